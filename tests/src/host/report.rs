// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results of a run, for people and as KTAP.

use std::fmt;
use std::io::{self, Write};

use coax_program::outln;
use coax_program::output::OutputError;

use crate::ktap::{Outcome, ResultLine, VERSION_LINE};

/// A result under its name in the whole run.
#[derive(Clone, Debug)]
pub struct Named {
    /// Mode, subject and case.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was said about it.
    pub diagnostics: Vec<String>,
}

/// All results so far.
#[derive(Debug, Default)]
pub struct Report {
    results: Vec<Named>,
}

impl Report {
    /// Takes a result, and shows it; diagnostics only of a failure.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub fn add(&mut self, result: Named) -> Result<(), OutputError> {
        if result.outcome == Outcome::Failed {
            for line in &result.diagnostics {
                outln!("#   {line}")?;
            }
        }
        outln!("{}", line_of(self.results.len() + 1, &result))?;
        self.results.push(result);
        Ok(())
    }

    /// All results, in the order in which they came.
    pub fn results(&self) -> &[Named] {
        &self.results
    }

    /// Whether nothing failed and something ran.
    pub fn passed(&self) -> bool {
        let failed = self
            .results
            .iter()
            .any(|result| result.outcome == Outcome::Failed);
        !failed && !self.results.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.results
                .iter()
                .filter(|result| wanted(&result.outcome))
                .count()
        };
        let passed = count(|outcome| *outcome == Outcome::Passed);
        let failed = count(|outcome| *outcome == Outcome::Failed);
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Writes the results as a KTAP document.
pub fn write_ktap(mut to: impl Write, results: &[Named]) -> io::Result<()> {
    writeln!(to, "{VERSION_LINE}\n1..{}", results.len())?;
    for (index, result) in results.iter().enumerate() {
        for line in &result.diagnostics {
            writeln!(to, "# {line}")?;
        }
        writeln!(to, "{}", line_of(index + 1, result))?;
    }
    to.flush()
}

fn line_of(number: usize, result: &Named) -> ResultLine<'_> {
    ResultLine {
        number,
        name: &result.name,
        outcome: &result.outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ktap::Parser;

    fn named(name: &str, outcome: Outcome) -> Named {
        Named {
            name: name.into(),
            outcome,
            diagnostics: vec!["said".into()],
        }
    }

    #[test]
    fn counts_are_by_outcome_and_an_empty_run_has_not_passed() {
        let mut report = Report::default();
        assert!(!report.passed());
        report.results.push(named("a", Outcome::Passed));
        let skipped = Outcome::Skipped("why".into());
        report.results.push(named("b", skipped));
        assert!(report.passed());
        report.results.push(named("c", Outcome::Failed));
        assert!(!report.passed());
        assert_eq!(report.to_string(), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn the_document_is_ktap() {
        let results = [named("a", Outcome::Passed), named("b", Outcome::Failed)];
        let mut bytes = Vec::new();
        write_ktap(&mut bytes, &results).expect("a vector takes all");
        let mut parser = Parser::default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .for_each(|line| parser.line(line));
        assert!(parser.is_complete());
        assert_eq!(parser.results()[1].outcome, Outcome::Failed);
        assert_eq!(parser.results()[0].diagnostics, ["said"]);
    }
}

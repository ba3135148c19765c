// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! KTAP, version 1 (`Documentation/dev-tools/ktap.rst`): what the guest prints and the host
//! reads.

use std::fmt;

/// First line of a document.
pub const VERSION_LINE: &str = "KTAP version 1";
/// Starts the line after which nothing more comes.
const BAIL_OUT: &str = "Bail out!";

/// How a test ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It showed what it should.
    Passed,
    /// It did not.
    Failed,
    /// It did not apply, for this reason.
    Skipped(String),
}

/// One result line with the diagnostics before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TestResult {
    /// Name of the test.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Diagnostic lines without the mark.
    pub diagnostics: Vec<String>,
}

/// A result line of a document.
#[derive(Debug)]
pub struct ResultLine<'a> {
    /// Counted from 1.
    pub number: usize,
    /// Name of the test.
    pub name: &'a str,
    /// How it ended.
    pub outcome: &'a Outcome,
}

impl fmt::Display for ResultLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if *self.outcome == Outcome::Failed {
            "not ok"
        } else {
            "ok"
        };
        write!(f, "{word} {} {}", self.number, self.name)?;
        match self.outcome {
            Outcome::Skipped(reason) => write!(f, " # SKIP {}", one_line(reason)),
            _ => Ok(()),
        }
    }
}

/// The text as one line: a reason with a line break would be read as two lines.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads a document line by line; lines that are not KTAP are diagnostics.
#[derive(Debug, Default)]
pub struct Parser {
    planned: Option<usize>,
    results: Vec<TestResult>,
    diagnostics: Vec<String>,
    bailed: Option<String>,
}

impl Parser {
    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(reason) = line.strip_prefix(BAIL_OUT) {
            self.bailed = Some(reason.trim().to_owned());
        } else if let Some(plan) = line.strip_prefix("1..").and_then(|n| n.parse().ok()) {
            self.planned = Some(plan);
        } else if let Some((name, outcome)) = result_line(line) {
            let diagnostics = std::mem::take(&mut self.diagnostics);
            self.results.push(TestResult {
                name,
                outcome,
                diagnostics,
            });
        } else if line != VERSION_LINE && !line.is_empty() {
            let text = line.strip_prefix("# ").unwrap_or(line);
            self.diagnostics.push(text.to_owned());
        }
    }

    /// Number of results read so far.
    pub fn results(&self) -> &[TestResult] {
        &self.results
    }

    /// Whether the document has begun.
    pub fn has_plan(&self) -> bool {
        self.planned.is_some()
    }

    /// Whether every planned test has its result.
    pub fn is_complete(&self) -> bool {
        self.bailed.is_none() && self.planned == Some(self.results.len())
    }

    /// Why the document ended early, if it says so.
    pub fn bail_out(&self) -> Option<&str> {
        self.bailed.as_deref()
    }

    /// The results, and the diagnostics after the last of them.
    pub fn finish(self) -> (Vec<TestResult>, Vec<String>) {
        (self.results, self.diagnostics)
    }
}

/// Name and outcome, if this is a result line.
fn result_line(line: &str) -> Option<(String, Outcome)> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<usize>().ok()?;
    let (name, directive) = match rest.split_once('#') {
        Some((name, directive)) => (name, directive.trim()),
        None => (rest, ""),
    };
    let name = name.trim().trim_start_matches("- ").to_owned();
    let outcome = match directive.strip_prefix("SKIP") {
        Some(reason) => Outcome::Skipped(reason.trim().to_owned()),
        None if passed => Outcome::Passed,
        None => Outcome::Failed,
    };
    Some((name, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Parser {
        let mut parser = Parser::default();
        text.lines().for_each(|line| parser.line(line));
        parser
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let outcomes = [
            Outcome::Passed,
            Outcome::Failed,
            Outcome::Skipped("no swap".into()),
        ];
        let mut text = format!("{VERSION_LINE}\n1..3\n");
        for (index, outcome) in outcomes.iter().enumerate() {
            let line = ResultLine {
                number: index + 1,
                name: "a.b",
                outcome,
            };
            text.push_str(&format!("# about {index}\n{line}\n"));
        }
        let parser = parse(&text);
        assert!(parser.is_complete());
        for (index, result) in parser.results().iter().enumerate() {
            assert_eq!(result.name, "a.b");
            assert_eq!(result.outcome, outcomes[index]);
            assert_eq!(result.diagnostics, [format!("about {index}")]);
        }
    }

    #[test]
    fn a_reason_of_several_lines_stays_on_one() {
        let outcome = Outcome::Skipped("first\nok 2 second".into());
        let line = ResultLine {
            number: 1,
            name: "a",
            outcome: &outcome,
        }
        .to_string();
        assert_eq!(line, "ok 1 a # SKIP first ok 2 second");
    }

    #[test]
    fn a_document_that_stops_is_not_complete() {
        let parser = parse("KTAP version 1\n1..2\nok 1 a\n# last words");
        assert!(!parser.is_complete());
        assert_eq!(parser.finish().1, ["last words"]);
    }

    #[test]
    fn bail_out_makes_a_full_document_incomplete() {
        let parser = parse("1..1\nok 1 a\nBail out! kernel hangs");
        assert!(!parser.is_complete());
        assert_eq!(parser.bail_out(), Some("kernel hangs"));
    }

    #[test]
    fn lines_of_others_are_diagnostics_of_the_next_result() {
        let parser = parse("1..1\nokay then\nnot okay\nok x y\nnot ok 1 - a");
        assert_eq!(parser.results()[0].name, "a");
        assert_eq!(parser.results()[0].outcome, Outcome::Failed);
        assert_eq!(
            parser.results()[0].diagnostics,
            ["okay then", "not okay", "ok x y"]
        );
    }
}

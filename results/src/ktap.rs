// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! KTAP, version 1 (`Documentation/dev-tools/ktap.rst`): lines that are printed, and the parser.
//!
//! The time of a test is the diagnostic data of its result line, in node-tap's form: `# time=12ms`.

use std::fmt;

use crate::{Outcome, TestResult};

mod parser;

pub use parser::Parser;

/// First line of a document.
pub const VERSION_LINE: &str = "KTAP version 1";
/// Starts the line after which nothing more comes.
const BAIL_OUT: &str = "Bail out!";
/// Before the name of what is nested.
const SUBTEST: &str = "# Subtest: ";
/// Before the part of a run that a document has.
pub(crate) const PARTITION: &str = "# partition ";
/// Before what ran some of it.
pub(crate) const MACHINE: &str = "# Machine: ";
/// Before the milliseconds that a test took.
const TIME: &str = "time=";
/// How far a nested document is moved to the right.
const INDENT: usize = 4;

/// A result line of a document.
#[derive(Clone, Copy, Debug)]
pub struct ResultLine<'a> {
    /// Counted from 1.
    pub number: usize,
    /// Name of the test.
    pub name: &'a str,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Seconds that it took, if that is known.
    pub seconds: Option<f64>,
}

impl<'a> ResultLine<'a> {
    /// The line of a test.
    pub fn of(number: usize, test: &'a TestResult) -> Self {
        ResultLine {
            number,
            name: &test.name,
            outcome: &test.outcome,
            seconds: test.seconds,
        }
    }
}

impl fmt::Display for ResultLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::Failed => "not ok",
            _ => "ok",
        };
        write!(f, "{word} {} {}", self.number, self.name)?;
        match (self.outcome, self.seconds) {
            (Outcome::Skipped(reason), _) => write!(f, " # SKIP {}", one_line(reason)),
            (_, Some(seconds)) => write!(f, " # {TIME}{:.0}ms", seconds * 1000.0),
            _ => Ok(()),
        }
    }
}

/// A document as it comes: its head, and what follows is up to the caller.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// How deep it is nested.
    pub depth: usize,
    /// Its name, if it is nested.
    pub name: Option<&'a str>,
    /// Results in it, without those nested deeper.
    pub planned: usize,
}

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = indent(self.depth);
        write!(f, "{indent}{VERSION_LINE}")?;
        if let Some(name) = self.name {
            write!(f, "\n{indent}{SUBTEST}{name}")?;
        }
        write!(f, "\n{indent}1..{}", self.planned)
    }
}

/// The blanks before lines of a document nested so deep.
pub fn indent(depth: usize) -> String {
    " ".repeat(depth * INDENT)
}

/// The text as one line: a reason with a line break would be read as two lines.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a result line says: name, outcome and seconds.
pub fn result_line(line: &str) -> Option<(String, Outcome, Option<f64>)> {
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
        None => Outcome::of(passed),
    };
    let seconds = directive
        .strip_prefix(TIME)
        .and_then(|time| time.strip_suffix("ms")?.parse::<f64>().ok())
        .map(|milliseconds| milliseconds / 1000.0);
    Some((name, outcome, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_several_lines_stays_on_one() {
        let test = TestResult::new::<&str>(&[], "a", Outcome::Skipped("first\nok 2 second".into()));
        let line = ResultLine::of(1, &test).to_string();
        assert_eq!(line, "ok 1 a # SKIP first ok 2 second");
    }

    #[test]
    fn a_result_line_is_read_as_it_was_written() {
        let passed = TestResult::new::<&str>(&[], "a.b", Outcome::Passed);
        let timed = TestResult {
            seconds: Some(1.25),
            outcome: Outcome::Failed,
            ..passed.clone()
        };
        let skipped = TestResult {
            outcome: Outcome::Skipped("no swap".into()),
            ..passed.clone()
        };
        for test in [passed, timed, skipped] {
            let line = ResultLine::of(7, &test).to_string();
            let read = result_line(&line).expect("a result line");
            assert_eq!(read, (test.name, test.outcome, test.seconds), "{line}");
        }
        for line in ["okay then", "# ok 1 a", "ok x y", "not okay"] {
            assert_eq!(result_line(line), None, "{line}");
        }
        let (name, ..) = result_line("not ok 2 - c").expect("a result line");
        assert_eq!(name, "c");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Collects results from the output of cargo, rustc's test harness and KTAP.

use coax_program::outln;
use coax_program::output::OutputError;
use std::fmt;
use std::io::{self, Write};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Passed,
    /// Badly.
    Failed,
    /// It was not run, for this reason.
    Skipped(String),
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    name: String,
    verdict: Verdict,
}

/// All tests so far.
#[derive(Debug, Default)]
pub struct Results {
    tests: Vec<Test>,
    /// Why the first failure that is not shown is not.
    unshown: Option<OutputError>,
}

impl Results {
    /// Takes a result.
    pub fn add(&mut self, name: String, verdict: Verdict) {
        if verdict == Verdict::Failed {
            self.show(outln!("  FAILED {name}"));
        }
        self.tests.push(Test { name, verdict });
    }

    /// Takes the failure of a step, or of a whole suite, with its reason.
    pub fn broken(&mut self, name: &str, reason: &str) {
        self.show(outln!("{reason}"));
        self.add(name.to_owned(), Verdict::Failed);
    }

    fn show(&mut self, shown: Result<(), OutputError>) {
        self.unshown = self.unshown.take().or(shown.err());
    }

    /// Whether all failures have been shown so far.
    ///
    /// # Errors
    ///
    /// The first that could not be.
    pub fn all_shown(&mut self) -> Result<(), OutputError> {
        self.unshown.take().map_or(Ok(()), Err)
    }

    /// How many tests there are, for what follows to be told apart.
    pub fn len(&self) -> usize {
        self.tests.len()
    }

    /// Passed and failed among the tests from number `from` on.
    pub fn counts_from(&self, from: usize) -> (usize, usize) {
        let tests = self.tests.get(from..).unwrap_or_default();
        let count = |wanted| tests.iter().filter(|test| test.verdict == wanted).count();
        (count(Verdict::Passed), count(Verdict::Failed))
    }

    /// Whether something ran and nothing failed.
    pub fn passed(&self) -> bool {
        let (passed, failed) = self.counts_from(0);
        failed == 0 && passed > 0
    }

    /// Writes all results as one KTAP document.
    pub fn write_ktap(&self, mut to: impl Write) -> io::Result<()> {
        writeln!(to, "KTAP version 1\n1..{}", self.tests.len())?;
        for (index, test) in self.tests.iter().enumerate() {
            let number = index + 1;
            // A number sign would begin a directive.
            let name = test.name.replace('#', "");
            match &test.verdict {
                Verdict::Passed => writeln!(to, "ok {number} {name}")?,
                Verdict::Failed => writeln!(to, "not ok {number} {name}")?,
                Verdict::Skipped(reason) => writeln!(to, "ok {number} {name} # SKIP {reason}")?,
            }
        }
        to.flush()
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = self.counts_from(0);
        write!(f, "{passed} passed, {failed} failed")
    }
}

/// Reads the output of `cargo test`, line by line.
#[derive(Debug, Default)]
pub struct CargoOutput {
    /// Program whose tests follow.
    program: String,
}

impl CargoOutput {
    /// The result on this line, if there is one.
    pub fn line(&mut self, line: &str) -> Option<(String, Verdict)> {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            self.program = program_name(rest);
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.program = format!("{name} documentation");
        }
        let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let verdict = match verdict {
            "ok" => Verdict::Passed,
            "FAILED" => Verdict::Failed,
            other => {
                let reason = other.strip_prefix("ignored")?.trim_start_matches(", ");
                Verdict::Skipped(reason.to_owned())
            }
        };
        Some((format!("{}: {name}", self.program), verdict))
    }
}

/// `unittests src/lib.rs (target/debug/deps/coax_abi-0123456789abcdef)` → `coax_abi`.
fn program_name(text: &str) -> String {
    let path = text
        .rsplit_once('(')
        .map_or(text, |(_, path)| path.trim_end_matches(')'));
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('-')
        .map_or(file, |(name, _)| name)
        .to_owned()
}

/// The result on a line of KTAP, if there is one.
pub fn ktap_line(line: &str) -> Option<(String, Verdict)> {
    let (verdict, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (Verdict::Failed, rest),
        None => (Verdict::Passed, line.strip_prefix("ok ")?),
    };
    let (number, description) = rest.split_once(' ')?;
    number.parse::<usize>().ok()?;
    let description = description.trim_start_matches("- ");
    Some(match description.split_once("# SKIP") {
        Some((name, reason)) => (
            name.trim().to_owned(),
            Verdict::Skipped(reason.trim().to_owned()),
        ),
        None => (description.trim().to_owned(), verdict),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_output_is_read_with_the_programs_names() {
        let mut output = CargoOutput::default();
        assert_eq!(
            output.line("     Running unittests src/lib.rs (t/deps/coax_abi-0a1b)"),
            None
        );
        let passed = output.line("test wire::tests::sizes ... ok");
        assert_eq!(
            passed,
            Some(("coax_abi: wire::tests::sizes".into(), Verdict::Passed))
        );
        let failed = output.line("test a ... FAILED").map(|(_, verdict)| verdict);
        assert_eq!(failed, Some(Verdict::Failed));
        let skipped = output
            .line("test b ... ignored, needs root")
            .map(|(_, verdict)| verdict);
        assert_eq!(skipped, Some(Verdict::Skipped("needs root".into())));
        assert_eq!(output.line("test result: ok. 3 passed; 0 failed"), None);
    }

    #[test]
    fn ktap_lines_are_read() {
        assert_eq!(ktap_line("ok 1 a.b"), Some(("a.b".into(), Verdict::Passed)));
        assert_eq!(
            ktap_line("not ok 2 - c"),
            Some(("c".into(), Verdict::Failed))
        );
        let skipped = ktap_line("ok 3 d # SKIP no reason");
        assert_eq!(
            skipped,
            Some(("d".into(), Verdict::Skipped("no reason".into())))
        );
        assert_eq!(ktap_line("okay then"), None);
        assert_eq!(ktap_line("# ok 1 a"), None);
    }

    #[test]
    fn sums_and_ktap_show_every_result() {
        let mut results = Results::default();
        assert!(!results.passed());
        results.add("a".into(), Verdict::Passed);
        results.add("b".into(), Verdict::Skipped("why".into()));
        assert!(results.passed());
        results.add("c".into(), Verdict::Failed);
        assert!(!results.passed());
        assert_eq!(results.to_string(), "1 passed, 1 failed");
        let mut text = Vec::new();
        results.write_ktap(&mut text).expect("a vector takes all");
        let text = String::from_utf8(text).expect("ASCII");
        assert_eq!(
            text,
            "KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP why\nnot ok 3 c\n"
        );
    }
}

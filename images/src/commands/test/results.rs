// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Collects the results of all suites, and those in the output of cargo and rustc's test harness.

use std::time::Duration;

use coax_images::machine::Machine;
use coax_program::outln;
use coax_program::output::OutputError;
use coax_results::partition::Partition;
use coax_results::run::Run;
use coax_results::{Outcome, TestResult};

/// All tests so far.
#[derive(Debug, Default)]
pub struct Results {
    run: Run,
    /// Why the first failure that is not shown is not.
    unshown: Option<OutputError>,
}

impl Results {
    /// No results yet, of this part of a run.
    pub fn of(partition: Option<Partition>) -> Self {
        Results {
            run: Run::of(partition),
            unshown: None,
        }
    }

    /// Notes what VMs ran some of it.
    pub fn ran_on(&mut self, machine: &Machine) {
        self.run.ran_on(&machine.to_string());
    }

    /// Takes a result that stands under this path.
    pub fn add(&mut self, path: &[&str], name: impl Into<String>, outcome: Outcome) {
        self.take(TestResult::new(path, name, outcome));
    }

    /// Takes the failure of a step, or of a whole suite, with its reason.
    pub fn broken(&mut self, path: &[&str], name: &str, reason: &str) {
        self.show(outln!("{reason}"));
        self.take(TestResult::new(path, name, Outcome::Failed).saying(reason));
    }

    /// Takes what came of a step that took this long.
    pub fn step(
        &mut self,
        path: &[&str],
        name: &str,
        took: Duration,
        ended: Result<(), anyhow::Error>,
    ) {
        let test = TestResult::new(path, name, Outcome::of(ended.is_ok())).took(took);
        match ended {
            Ok(()) => self.take(test),
            Err(error) => {
                let reason = format!("{error:#}");
                self.show(outln!("{reason}"));
                self.take(test.saying(&reason));
            }
        }
    }

    /// Takes a result with all that is known of it.
    pub fn take(&mut self, test: TestResult) {
        if test.outcome == Outcome::Failed {
            self.show(outln!("  FAILED {}", test.full_name()));
        }
        self.run.add(test);
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
        self.run.tests().len()
    }

    /// Passed and failed among the tests from number `from` on.
    pub fn counts_from(&self, from: usize) -> (usize, usize) {
        self.run.counts_from(from)
    }

    /// All of them.
    pub fn run(&self) -> &Run {
        &self.run
    }
}

/// Reads the output of `cargo test`, line by line.
#[derive(Debug, Default)]
pub struct CargoOutput {
    /// Program whose tests follow.
    program: String,
}

impl CargoOutput {
    /// The result on this line, if there is one, under its suite and program.
    pub fn line(&mut self, suite: &str, line: &str) -> Option<TestResult> {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            self.program = program_name(rest);
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.program = format!("{name} documentation");
        }
        let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let outcome = match outcome {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed,
            other => {
                let reason = other.strip_prefix("ignored")?.trim_start_matches(", ");
                Outcome::Skipped(reason.to_owned())
            }
        };
        let path = [suite, &self.program];
        // Tests outside of cargo have no program.
        let depth = if self.program.is_empty() { 1 } else { 2 };
        Some(TestResult::new(&path[..depth], name, outcome))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_output_is_read_with_the_programs_names() {
        let mut output = CargoOutput::default();
        let mut line = |line| {
            let test = output.line("unit", line);
            test.map(|test| (test.full_name(), test.outcome))
        };
        let pure = line("test pure ... ok");
        assert_eq!(pure, Some(("unit/pure".into(), Outcome::Passed)));
        let running = "     Running unittests src/lib.rs (t/deps/coax_abi-0a1b)";
        assert_eq!(line(running), None);
        let passed = line("test wire::tests::sizes ... ok");
        let name = "unit/coax_abi/wire::tests::sizes";
        assert_eq!(passed, Some((name.into(), Outcome::Passed)));
        let failed = line("test a ... FAILED").map(|(_, outcome)| outcome);
        assert_eq!(failed, Some(Outcome::Failed));
        let skipped = line("test b ... ignored, needs root").map(|(_, outcome)| outcome);
        assert_eq!(skipped, Some(Outcome::Skipped("needs root".into())));
        assert_eq!(line("test result: ok. 3 passed; 0 failed"), None);
    }

    #[test]
    fn a_step_has_its_time_and_its_reason() {
        let mut results = Results::default();
        let took = Duration::from_millis(1500);
        results.step(&["driver"], "module builds", took, Ok(()));
        let error = anyhow::anyhow!("no make");
        results.step(&["driver"], "tests", took, Err(error));
        results.all_shown().expect("output is captured");
        let [passed, failed] = results.run().tests() else {
            panic!("two results");
        };
        assert_eq!(
            (&passed.outcome, passed.seconds),
            (&Outcome::Passed, Some(1.5))
        );
        assert_eq!(
            (&failed.outcome, failed.seconds),
            (&Outcome::Failed, Some(1.5))
        );
        assert_eq!(failed.diagnostics, ["no make"]);
        assert_eq!(results.counts_from(1), (0, 1));
    }
}

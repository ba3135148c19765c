// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results of a run, shown as a KTAP document while they come.

use coax_images::machine::Machine;
use coax_program::outln;
use coax_program::output::OutputError;
use coax_results::document::sum;
use coax_results::ktap::{indent, Head, ResultLine};
use coax_results::run::Run;
use coax_results::{Outcome, TestResult};

/// Groups are nested in the run's document.
const DEPTH: usize = 1;

/// All results so far, each shown when it came.
#[derive(Debug, Default)]
pub struct Report {
    run: Run,
    /// Groups that have ended.
    groups: usize,
    /// The first test of the group that has begun.
    first: usize,
}

impl Report {
    /// Begins the document of a run of so many groups.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub fn new(groups: usize) -> Result<Self, OutputError> {
        let head = Head {
            depth: 0,
            name: None,
            planned: groups,
        };
        outln!("{head}")?;
        Ok(Report::default())
    }

    /// Begins a group of so many results.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub fn begin(&mut self, group: &str, planned: usize) -> Result<(), OutputError> {
        self.first = self.run.tests().len();
        let head = Head {
            depth: DEPTH,
            name: Some(group),
            planned,
        };
        outln!("{head}")
    }

    /// Takes a result of the group that has begun, and shows it; diagnostics only of a failure.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub fn add(&mut self, test: TestResult) -> Result<(), OutputError> {
        let blanks = indent(DEPTH);
        if test.outcome == Outcome::Failed {
            for line in &test.diagnostics {
                outln!("{blanks}# {line}")?;
            }
        }
        let number = self.run.tests().len() - self.first + 1;
        outln!("{blanks}{}", ResultLine::of(number, &test))?;
        self.run.add(test);
        Ok(())
    }

    /// Seconds of the tests of the group that has begun.
    pub fn seconds(&self) -> f64 {
        let tests = self.run.tests().iter().skip(self.first);
        tests.filter_map(|test| test.seconds).sum()
    }

    /// Ends the group.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub fn end(&mut self, group: &str) -> Result<(), OutputError> {
        self.groups += 1;
        let tests: Vec<&TestResult> = self.run.tests().iter().skip(self.first).collect();
        let outcome = sum(&tests);
        let line = ResultLine {
            number: self.groups,
            name: group,
            outcome: &outcome,
            seconds: None,
        };
        outln!("{line}")
    }

    /// Notes what runs them.
    pub fn ran_on(&mut self, machine: &Machine) {
        self.run.ran_on(&machine.to_string());
    }

    /// All results, in the order in which they came.
    pub fn run(&self) -> &Run {
        &self.run
    }
}

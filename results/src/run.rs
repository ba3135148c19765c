// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All results of a run.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ktap::one_line;
use crate::partition::Partition;
use crate::{Outcome, TestResult};

/// The results of a run, or of a part of one, in the order in which they came.
///
/// # Invariants
///
/// No test has the full name of another, or that of a path that others have. Names are one line, and have no
/// character that a format takes for its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Run {
    /// The part that this is, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<Partition>,
    /// What ran it, a line for each kind of VM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    machines: Vec<String>,
    tests: Vec<TestResult>,
    #[serde(skip)]
    names: HashSet<String>,
}

/// A run as it comes from a file.
#[derive(Deserialize)]
struct Unchecked {
    partition: Option<Partition>,
    #[serde(default)]
    machines: Vec<String>,
    tests: Vec<TestResult>,
}

impl<'de> Deserialize<'de> for Run {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Unchecked {
            partition,
            machines,
            tests,
        } = Unchecked::deserialize(from)?;
        let mut run = Run::of(partition);
        machines.iter().for_each(|machine| run.ran_on(machine));
        tests.into_iter().for_each(|test| run.add(test));
        Ok(run)
    }
}

impl Run {
    /// A run without results yet, or a part of one.
    pub fn of(partition: Option<Partition>) -> Self {
        Run {
            partition,
            ..Run::default()
        }
    }

    /// The part that this is, if it is one.
    pub fn partition(&self) -> Option<Partition> {
        self.partition
    }

    /// What ran it, a line for each kind of VM.
    pub fn machines(&self) -> &[String] {
        &self.machines
    }

    /// Notes what ran some of it, in the line that commands say.
    pub fn ran_on(&mut self, machine: &str) {
        let machine = one_line(machine);
        let machine = machine.strip_prefix("Machine: ").unwrap_or(&machine);
        let machine = machine.to_owned();
        if !self.machines.contains(&machine) {
            self.machines.push(machine);
        }
    }

    /// Takes a result. What formats take for their own goes out of its name, and a name that is there gets a
    /// number.
    pub fn add(&mut self, mut test: TestResult) {
        for part in &mut test.path {
            *part = clean(part).replace('/', "_");
        }
        test.name = clean(&test.name);
        let first = test.name.clone();
        let mut number = 1;
        // One with the name of what it stands in would be taken for the end of that.
        while test.path.last() == Some(&test.name) || !self.names.insert(test.full_name()) {
            number += 1;
            test.name = format!("{first} ({number})");
        }
        self.tests.push(test);
    }

    /// All results, in the order in which they came.
    pub fn tests(&self) -> &[TestResult] {
        &self.tests
    }

    /// Passed and failed among the tests from number `from` on.
    pub fn counts_from(&self, from: usize) -> (usize, usize) {
        let tests = self.tests.get(from..).unwrap_or_default();
        let count = |wanted| tests.iter().filter(|test| test.outcome == wanted).count();
        (count(Outcome::Passed), count(Outcome::Failed))
    }

    /// Those that were skipped.
    pub fn skipped(&self) -> usize {
        let (passed, failed) = self.counts_from(0);
        self.tests.len() - passed - failed
    }

    /// Whether nothing failed and something ran, or there was nothing for this part.
    pub fn passed(&self) -> bool {
        let (passed, failed) = self.counts_from(0);
        let nothing_to_do = self.partition.is_some() && self.tests.is_empty();
        failed == 0 && (passed > 0 || nothing_to_do)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = self.counts_from(0);
        write!(
            f,
            "{passed} passed, {failed} failed, {} skipped",
            self.skipped()
        )
    }
}

/// One line without the number sign, which begins a directive, and with something in it.
fn clean(name: &str) -> String {
    let name = name.replace(['#', '\\'], "");
    let words: Vec<&str> = name
        .split(|c: char| c.is_whitespace() || c.is_control())
        .collect();
    let name = words.join(" ");
    let name = name.trim().trim_start_matches("- ");
    let name = if name.is_empty() { "unnamed" } else { name };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(path: &[&str], name: &str) -> TestResult {
        TestResult::new(path, name, Outcome::Passed)
    }

    #[test]
    fn names_are_unique_and_no_formats_own() {
        let mut run = Run::default();
        run.add(passed(&["a/b"], "one #2\nlines"));
        run.add(passed(&["a_b"], "one 2 lines"));
        run.add(passed(&["a_b"], "#"));
        run.add(passed(&[], "one 2 lines"));
        run.add(passed(&["c"], "c"));
        let names: Vec<String> = run.tests().iter().map(TestResult::full_name).collect();
        assert_eq!(
            names,
            [
                "a_b/one 2 lines",
                "a_b/one 2 lines (2)",
                "a_b/unnamed",
                "one 2 lines",
                "c/c (2)"
            ]
        );
    }

    #[test]
    fn an_empty_run_has_not_passed_and_an_empty_part_has() {
        assert!(!Run::default().passed());
        let part: Partition = "slice:2/2".parse().expect("a part");
        let mut part = Run::of(Some(part));
        assert!(part.passed());
        part.add(TestResult::new(&["a"], "b", Outcome::Skipped("why".into())));
        assert!(!part.passed());
        part.add(passed(&["a"], "c"));
        assert!(part.passed());
        part.add(TestResult::new(&["a"], "d", Outcome::Failed));
        assert!(!part.passed());
        assert_eq!(part.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(part.counts_from(2), (0, 1));
    }
}

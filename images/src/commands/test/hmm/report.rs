// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two drivers side by side: a table, and JSON.

use std::collections::BTreeMap;
use std::fmt;

use coax_results::Outcome;
use serde::Serialize;

use super::side::Side;

/// Sums of one driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed, or did not run.
    pub failed: usize,
    /// Tests that were skipped.
    pub skipped: usize,
    /// Console lines by which the kernel complained.
    pub kernel_warnings: usize,
}

impl Sums {
    /// Whether there is nothing to complain of.
    pub fn clean(&self) -> bool {
        let all_passed = Sums {
            passed: self.passed,
            ..Sums::default()
        };
        *self == all_passed && self.passed > 0
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped, {} kernel warnings",
            self.passed, self.failed, self.skipped, self.kernel_warnings
        )
    }
}

/// How a test ended on each driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    coax: &'static str,
    test_hmm: &'static str,
}

/// Both drivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The driver of this checkout.
    pub coax: Sums,
    /// The kernel's own.
    pub test_hmm: Sums,
    tests: Vec<Row>,
}

const PASSED: &str = "ok";
const FAILED: &str = "not ok";
const SKIPPED: &str = "skip";

impl Report {
    /// Compares the runs on coax with that on `test_hmm`. A test has failed if it failed once; one
    /// that did not run has failed.
    pub fn new(coax: &[Side], test_hmm: &Side) -> Self {
        let names = names(coax.iter().chain([test_hmm]));
        let of_coax: Vec<&'static str> = names.iter().map(|name| worst(coax, name)).collect();
        let of_test_hmm: Vec<&'static str> = names
            .iter()
            .map(|name| worst(std::slice::from_ref(test_hmm), name))
            .collect();
        let warnings = coax.iter().map(|side| side.kernel_warnings).sum();
        Report {
            coax: sums(&of_coax, warnings),
            test_hmm: sums(&of_test_hmm, test_hmm.kernel_warnings),
            tests: names
                .into_iter()
                .zip(of_coax.into_iter().zip(of_test_hmm))
                .map(|(name, (coax, test_hmm))| Row {
                    name,
                    coax,
                    test_hmm,
                })
                .collect(),
        }
    }
}

impl Report {
    /// Each test's end on coax. A skip has its reason with it only in the table of the run.
    pub fn of_coax(&self) -> impl Iterator<Item = (&str, Outcome)> {
        self.tests.iter().map(|row| {
            let verdict = match row.coax {
                PASSED => Outcome::Passed,
                SKIPPED => Outcome::Skipped("it skipped itself".into()),
                _ => Outcome::Failed,
            };
            (row.name.as_str(), verdict)
        })
    }
}

/// The sums of one run.
pub fn sums_of(side: &Side) -> Sums {
    let sides = std::slice::from_ref(side);
    let words: Vec<&'static str> = names(sides.iter())
        .iter()
        .map(|name| worst(sides, name))
        .collect();
    sums(&words, side.kernel_warnings)
}

/// All tests known to a side, in the order of the first that knows any.
fn names<'a>(sides: impl Iterator<Item = &'a Side>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for side in sides {
        let ran = side.ran.iter().map(|ran| &ran.name);
        for name in side.listed.iter().chain(ran) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

/// The worst end of a test in any of the runs.
fn worst(sides: &[Side], name: &str) -> &'static str {
    let mut worst = PASSED;
    for side in sides {
        let ran = side.ran.iter().find(|ran| ran.name == name);
        match ran.map(|ran| &ran.verdict) {
            Some(Outcome::Passed) => {}
            Some(Outcome::Skipped(_)) => worst = SKIPPED,
            Some(Outcome::Failed) | None => return FAILED,
        }
    }
    // Without any run, it has not run.
    if sides.is_empty() {
        FAILED
    } else {
        worst
    }
}

fn sums(words: &[&'static str], kernel_warnings: usize) -> Sums {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    words
        .iter()
        .for_each(|word| *counts.entry(word).or_default() += 1);
    let count = |word: &str| counts.get(word).copied().unwrap_or_default();
    Sums {
        passed: count(PASSED),
        failed: count(FAILED),
        skipped: count(SKIPPED),
        kernel_warnings,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.tests.iter().map(|row| row.name.len()).max();
        let width = longest.unwrap_or_default();
        writeln!(f, "  {:<width$}  {:<8}  coax", "test", "test_hmm")?;
        for row in &self.tests {
            writeln!(
                f,
                "  {:<width$}  {:<8}  {}",
                row.name, row.test_hmm, row.coax
            )?;
        }
        writeln!(f, "  test_hmm: {}", self.test_hmm)?;
        write!(f, "  coax:     {}", self.coax)
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::Ran;
    use super::*;

    fn side(listed: &[&str], ran: &[(&str, Outcome)]) -> Side {
        let ran = ran.iter().map(|(name, verdict)| Ran {
            name: (*name).into(),
            verdict: verdict.clone(),
            messages: Vec::new(),
        });
        Side {
            listed: listed.iter().map(|name| (*name).into()).collect(),
            ran: ran.collect(),
            ..Side::default()
        }
    }

    #[test]
    fn json_has_exactly_the_fields_that_readers_expect() {
        let coax = side(
            &["a", "b"],
            &[("a", Outcome::Passed), ("b", Outcome::Failed)],
        );
        let skipped = Outcome::Skipped("why".into());
        let mut test_hmm = side(&["a", "b"], &[("a", skipped), ("b", Outcome::Passed)]);
        test_hmm.kernel_warnings = 3;
        let report = Report::new(&[coax], &test_hmm);
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(
            json,
            serde_json::json!({
                "coax": {"passed": 1, "failed": 1, "skipped": 0, "kernel_warnings": 0},
                "test_hmm": {"passed": 1, "failed": 0, "skipped": 1, "kernel_warnings": 3},
                "tests": [
                    {"name": "a", "coax": "ok", "test_hmm": "skip"},
                    {"name": "b", "coax": "not ok", "test_hmm": "ok"},
                ],
            })
        );
    }

    #[test]
    fn a_test_that_failed_once_or_did_not_run_has_failed() {
        let good = || {
            side(
                &["a", "b"],
                &[("a", Outcome::Passed), ("b", Outcome::Passed)],
            )
        };
        let bad = side(&["a", "b"], &[("a", Outcome::Failed)]);
        let report = Report::new(&[good(), bad], &good());
        assert_eq!(report.coax.failed, 2);
        assert!(!report.coax.clean());
        assert!(report.test_hmm.clean());
        let nothing = Report::new(&[], &good());
        assert_eq!(nothing.coax.failed, 2);
        assert!(!Report::new(&[], &Side::default()).coax.clean());
    }

    #[test]
    fn a_skip_or_a_warning_is_not_clean() {
        let mut warned = side(&["a"], &[("a", Outcome::Passed)]);
        assert!(sums_of(&warned).clean());
        warned.kernel_warnings = 1;
        assert!(!sums_of(&warned).clean());
        let skipped = side(&["a"], &[("a", Outcome::Skipped(String::new()))]);
        assert!(!sums_of(&skipped).clean());
    }

    #[test]
    fn the_table_has_every_test_and_both_sums() {
        let all = side(&["a.b.c"], &[("a.b.c", Outcome::Passed)]);
        let text = Report::new(&[side(&["a.b.c"], &[])], &all).to_string();
        assert!(text.contains("a.b.c  ok        not ok"), "{text}");
        assert!(text.contains("test_hmm: 1 passed, 0 failed"), "{text}");
        assert!(text.contains("coax:     0 passed, 1 failed"), "{text}");
    }
}

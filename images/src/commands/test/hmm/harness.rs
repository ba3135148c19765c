// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads what `hmm-tests`, a program on the kernel's test harness, lists and prints.

use coax_results::ktap::result_line;
use coax_results::Outcome;

/// Starts the first line of a list.
const LIST: &str = "# FIXTURE";
/// Columns of a list, padded to these widths and followed by a space.
const FIXTURE_COLUMN: usize = 20;
const VARIANT_COLUMN: usize = 25;
/// Before a test's name when it starts.
const RUN: &str = "RUN";

/// One test that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// `fixture.variant.test`.
    pub name: String,
    /// How it ended.
    pub verdict: Outcome,
    /// What it and the harness wrote meanwhile.
    pub messages: Vec<String>,
}

/// Reads the program's list of tests, then its results.
#[derive(Debug, Default)]
pub struct Output {
    list: List,
    running: Option<String>,
    messages: Vec<String>,
    ran: Vec<Ran>,
    planned: Option<usize>,
}

impl Output {
    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        if self.list.line(line) {
            return;
        }
        if let Some(plan) = line.strip_prefix("1..").and_then(|n| n.parse().ok()) {
            self.planned = Some(plan);
        } else if let Some(name) = started(line) {
            self.running = Some(name.to_owned());
            self.messages.clear();
        } else if let Some((name, verdict, _)) = result_line(line) {
            self.running = None;
            let messages = std::mem::take(&mut self.messages);
            self.ran.push(Ran {
                name,
                verdict,
                messages,
            });
        } else {
            self.messages.push(line.to_owned());
        }
    }

    /// All tests that the program has, in the order in which it runs them.
    pub fn listed(&self) -> Vec<String> {
        self.list.names()
    }

    /// Tests that the program was about to run, once it said so.
    pub fn planned(&self) -> Option<usize> {
        self.planned
    }

    /// Those that have their result.
    pub fn ran(&self) -> &[Ran] {
        &self.ran
    }

    /// The results; a test without one has failed, for `reason`.
    pub fn finish(mut self, reason: &str) -> Vec<Ran> {
        if let Some(name) = self.running {
            self.messages.push(reason.to_owned());
            self.ran.push(Ran {
                name,
                verdict: Outcome::Failed,
                messages: self.messages,
            });
        }
        self.ran
    }
}

/// The name on `#  RUN           name ...`.
fn started(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?.trim_start().strip_prefix(RUN)?;
    rest.trim().strip_suffix(" ...")
}

/// The program's tests: fixtures, each with the names of its variants and of its tests, which are
/// columns of their own and have nothing to do with each other.
#[derive(Debug, Default)]
struct List {
    begun: bool,
    fixtures: Vec<Fixture>,
}

#[derive(Debug, Default)]
struct Fixture {
    name: String,
    variants: Vec<String>,
    tests: Vec<String>,
}

impl List {
    /// Takes the line if it belongs to the list.
    fn line(&mut self, line: &str) -> bool {
        if line.starts_with(LIST) {
            self.begun = true;
            return true;
        }
        // The document of results follows.
        self.begun &= !line.starts_with("TAP ");
        if !self.begun || line.starts_with('#') {
            return false;
        }
        if line.starts_with("---") {
            return true;
        }
        let (name, rest) = column(line, FIXTURE_COLUMN);
        let (variant, test) = column(rest, VARIANT_COLUMN);
        if !name.is_empty() {
            self.fixtures.push(Fixture {
                name: name.to_owned(),
                ..Fixture::default()
            });
        }
        if let Some(fixture) = self.fixtures.last_mut() {
            let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
            fixture.variants.extend(named(variant));
            fixture.tests.extend(named(test.trim()));
        }
        true
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for fixture in &self.fixtures {
            let name = &fixture.name;
            if fixture.variants.is_empty() {
                names.extend(fixture.tests.iter().map(|test| format!("{name}.{test}")));
            }
            for variant in &fixture.variants {
                let tests = fixture.tests.iter();
                names.extend(tests.map(|test| format!("{name}.{variant}.{test}")));
            }
        }
        names
    }
}

/// The first column, at least so wide, and what follows its space. A longer name pushes the next
/// column to the right.
fn column(line: &str, width: usize) -> (&str, &str) {
    let at = width
        + line
            .get(width..)
            .and_then(|rest| rest.find(' '))
            .unwrap_or(0);
    match (line.get(..at), line.get(at..)) {
        (Some(name), Some(rest)) => (name.trim(), rest.strip_prefix(' ').unwrap_or(rest)),
        _ => (line.trim(), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the program prints it: one fixture without tests, one with more tests than variants.
    const LISTED: &str = "\
# FIXTURE            VARIANT                   TEST
global                                         
--------------------------------------------------------------------------------
hmm                  hmm_device_private        open_close
                     hmm_device_coherent       anon_read
                                               migrate
--------------------------------------------------------------------------------
plain                                          alone
";

    const PRINTED: &str = "\
TAP version 13
1..3
# Starting 3 tests from 2 test cases.
#  RUN           hmm.hmm_device_private.open_close ...
#            OK  hmm.hmm_device_private.open_close
ok 1 hmm.hmm_device_private.open_close
#  RUN           hmm.hmm_device_coherent.open_close ...
could not open hmm dmirror driver (/dev/hmm_dmirror2)
#      SKIP      DEVICE_COHERENT not available
#            OK  hmm.hmm_device_coherent.open_close
ok 2 hmm.hmm_device_coherent.open_close # SKIP DEVICE_COHERENT not available
#  RUN           hmm.hmm_device_private.migrate ...
# hmm-tests.c:977:migrate:Expected ret (-14) == 0 (0)
# migrate: Test terminated by assertion
#          FAIL  hmm.hmm_device_private.migrate
not ok 3 hmm.hmm_device_private.migrate
# FAILED: 2 / 3 tests passed.
";

    fn read(texts: &[&str]) -> Output {
        let mut output = Output::default();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines.for_each(|line| output.line(line));
        output
    }

    #[test]
    fn a_fixtures_tests_are_listed_for_each_of_its_variants() {
        let names = read(&[LISTED]).listed();
        assert_eq!(
            names,
            [
                "hmm.hmm_device_private.open_close",
                "hmm.hmm_device_private.anon_read",
                "hmm.hmm_device_private.migrate",
                "hmm.hmm_device_coherent.open_close",
                "hmm.hmm_device_coherent.anon_read",
                "hmm.hmm_device_coherent.migrate",
                "plain.alone",
            ]
        );
    }

    #[test]
    fn long_names_push_columns_to_the_right() {
        let line = "a_fixture_of_over_twenty_characters variant                   test";
        let names = read(&["# FIXTURE            VARIANT                   TEST", line]).listed();
        assert_eq!(names, ["a_fixture_of_over_twenty_characters.variant.test"]);
    }

    #[test]
    fn results_are_read_with_the_lines_before_them() {
        let output = read(&[LISTED, PRINTED]);
        assert_eq!(output.planned(), Some(3));
        assert_eq!(output.listed().len(), 7);
        let ran = output.finish("unused");
        let verdicts: Vec<&Outcome> = ran.iter().map(|ran| &ran.verdict).collect();
        let skipped = Outcome::Skipped("DEVICE_COHERENT not available".into());
        assert_eq!(verdicts, [&Outcome::Passed, &skipped, &Outcome::Failed]);
        assert_eq!(ran[2].name, "hmm.hmm_device_private.migrate");
        assert!(ran[2].messages[0].contains("Expected ret (-14) == 0"));
        assert_eq!(ran[1].messages.len(), 3);
    }

    #[test]
    fn a_test_that_was_running_at_the_end_has_failed() {
        let cut = PRINTED.find("# migrate: Test").expect("it is there");
        let ran = read(&[&PRINTED[..cut]]).finish("the VM ended");
        assert_eq!(ran.len(), 3);
        assert_eq!(ran[2].name, "hmm.hmm_device_private.migrate");
        assert_eq!(ran[2].verdict, Outcome::Failed);
        assert_eq!(
            ran[2].messages.last().map(String::as_str),
            Some("the VM ended")
        );
    }
}

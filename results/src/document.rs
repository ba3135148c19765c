// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run as a KTAP document: one plan, and a nested document for each part of a path.

use std::io::{self, Write};

use crate::ktap::{indent, Head, Parser, ResultLine, MACHINE, PARTITION};
use crate::run::Run;
use crate::{Outcome, TestResult};

/// A result of a document.
enum Node<'a> {
    Test(&'a TestResult),
    /// A name, and what is nested under it.
    Nested(&'a str, Vec<Node<'a>>),
}

/// Writes the document.
///
/// # Errors
///
/// It could not be written.
pub fn write(run: &Run, mut to: impl Write) -> io::Result<()> {
    let tests: Vec<&TestResult> = run.tests().iter().collect();
    let nodes = nodes(&tests, 0);
    let head = Head {
        depth: 0,
        name: None,
        planned: nodes.len(),
    };
    writeln!(to, "{head}")?;
    if let Some(partition) = run.partition() {
        writeln!(to, "{PARTITION}{partition}")?;
    }
    for machine in run.machines() {
        writeln!(to, "{MACHINE}{machine}")?;
    }
    results(&mut to, &nodes, 0)?;
    let (passed, failed) = run.counts_from(0);
    let skipped = run.skipped();
    writeln!(
        to,
        "# Totals: pass:{passed} fail:{failed} xfail:0 xpass:0 skip:{skipped} error:0"
    )?;
    to.flush()
}

/// A document of results that are part of nothing.
pub fn flat(results: impl IntoIterator<Item = (String, Outcome)>) -> String {
    let mut run = Run::default();
    for (name, outcome) in results {
        run.add(TestResult::new::<&str>(&[], name, outcome));
    }
    let mut bytes = Vec::new();
    // A vector takes all.
    let _ = write(&run, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a document.
///
/// # Errors
///
/// Says what is wrong with it: a plan that is missing or not kept, a name that is not the nested document's.
pub fn read(text: &str) -> Result<Run, String> {
    let mut parser = Parser::default();
    text.lines().for_each(|line| parser.line(line));
    if !parser.has_plan() {
        return Err("it is no KTAP document: there is no plan".into());
    }
    if !parser.is_complete() {
        let problem = parser
            .bail_out()
            .map(|reason| format!("it ends early: {reason}"));
        let problem = problem.or_else(|| parser.problems().first().cloned());
        return Err(problem.unwrap_or_else(|| "it has not all results that it plans".into()));
    }
    let partition = parser.partition().map(str::parse).transpose()?;
    let mut run = Run::of(partition);
    let machines = parser.machines().iter();
    machines.for_each(|machine| run.ran_on(machine));
    let (tests, _) = parser.finish();
    tests.into_iter().for_each(|test| run.add(test));
    Ok(run)
}

/// The results at this depth, each path under one name, where its first test stands.
fn nodes<'a>(tests: &[&'a TestResult], depth: usize) -> Vec<Node<'a>> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut below: Vec<(&str, Vec<&TestResult>)> = Vec::new();
    for test in tests {
        let Some(name) = test.path.get(depth) else {
            nodes.push(Node::Test(test));
            continue;
        };
        match below.iter_mut().find(|(known, _)| known == name) {
            Some((_, tests)) => tests.push(test),
            None => {
                nodes.push(Node::Nested(name, Vec::new()));
                below.push((name, vec![test]));
            }
        }
    }
    let mut below = below.into_iter();
    for node in &mut nodes {
        if let Node::Nested(_, nested) = node {
            *nested = below
                .next()
                .map(|(_, tests)| self::nodes(&tests, depth + 1))
                .unwrap_or_default();
        }
    }
    nodes
}

fn results(to: &mut impl Write, nodes: &[Node], depth: usize) -> io::Result<()> {
    let blanks = indent(depth);
    for (index, node) in nodes.iter().enumerate() {
        let number = index + 1;
        match node {
            Node::Test(test) => {
                for line in &test.diagnostics {
                    // One blank more, and it names nothing that is nested.
                    let blank = if line.starts_with("Subtest") { " " } else { "" };
                    writeln!(to, "{blanks}# {blank}{line}")?;
                }
                writeln!(to, "{blanks}{}", ResultLine::of(number, test))?;
            }
            Node::Nested(name, nested) => {
                let head = Head {
                    depth: depth + 1,
                    name: Some(name),
                    planned: nested.len(),
                };
                writeln!(to, "{head}")?;
                results(to, nested, depth + 1)?;
                let outcome = sum(&leaves(nested));
                let line = ResultLine {
                    number,
                    name,
                    outcome: &outcome,
                    seconds: None,
                };
                writeln!(to, "{blanks}{line}")?;
            }
        }
    }
    Ok(())
}

fn leaves<'a>(nodes: &[Node<'a>]) -> Vec<&'a TestResult> {
    let mut tests = Vec::new();
    for node in nodes {
        match node {
            Node::Test(test) => tests.push(*test),
            Node::Nested(_, nested) => tests.extend(leaves(nested)),
        }
    }
    tests
}

/// What tests come to together.
pub fn sum<'a>(tests: impl IntoIterator<Item = &'a &'a TestResult> + Clone) -> Outcome {
    let mut outcomes = tests.clone().into_iter().map(|test| &test.outcome);
    if outcomes.any(|outcome| *outcome == Outcome::Failed) {
        return Outcome::Failed;
    }
    let mut outcomes = tests.into_iter().map(|test| &test.outcome);
    match outcomes.any(|outcome| *outcome == Outcome::Passed) {
        true => Outcome::Passed,
        false => Outcome::Skipped("all its tests were".into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A part of a run that has everything that a run can have.
    pub fn example() -> Run {
        let mut run = Run::of("slice:1/2".parse().ok());
        run.ran_on("Linux 7.2.13 (base), QEMU 11.1.1 (ours)");
        run.ran_on("Linux 7.2.13 (debug), \"tcg\"");
        let test = |path: &[&str], name, outcome| TestResult::new(path, name, outcome);
        run.add(test(&["unit"], "lints", Outcome::Passed));
        run.add(test(&["unit", "coax_abi"], "tests: sizes", Outcome::Passed));
        let mut slow = test(
            &["vm", "private.standard"],
            "private.fork.a",
            Outcome::Failed,
        );
        slow.seconds = Some(1.5);
        slow.diagnostics = vec!["<1> & \"2\"".into(), "  indented".into()];
        run.add(slow);
        let reason = Outcome::Skipped("no swap".into());
        run.add(test(
            &["vm", "private.standard"],
            "private.fork.b",
            reason.clone(),
        ));
        run.add(test(&["vm", "numa.standard"], "numa.fork.b", reason));
        run.add(test(&["unit"], "documentation", Outcome::Passed));
        run
    }

    #[test]
    fn the_document_is_nested_and_has_one_plan() {
        let mut bytes = Vec::new();
        write(&example(), &mut bytes).expect("a vector takes all");
        let text = String::from_utf8(bytes).expect("text");
        let wanted = "\
KTAP version 1
1..2
# partition slice:1/2
# Machine: Linux 7.2.13 (base), QEMU 11.1.1 (ours)
# Machine: Linux 7.2.13 (debug), \"tcg\"
    KTAP version 1
    # Subtest: unit
    1..3
    ok 1 lints
        KTAP version 1
        # Subtest: coax_abi
        1..1
        ok 1 tests: sizes
    ok 2 coax_abi
    ok 3 documentation
ok 1 unit
    KTAP version 1
    # Subtest: vm
    1..2
        KTAP version 1
        # Subtest: private.standard
        1..2
        # <1> & \"2\"
        #   indented
        not ok 1 private.fork.a # time=1500ms
        ok 2 private.fork.b # SKIP no swap
    not ok 1 private.standard
        KTAP version 1
        # Subtest: numa.standard
        1..1
        ok 1 numa.fork.b # SKIP no swap
    ok 2 numa.standard # SKIP all its tests were
not ok 2 vm
# Totals: pass:3 fail:1 xfail:0 xpass:0 skip:2 error:0
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn what_is_no_whole_document_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "no plan"),
            ("KTAP version 1\n1..2\nok 1 a", "not all results"),
            ("1..1\nok 1 a\nBail out! no disk", "no disk"),
            (
                "KTAP version 1\n1..1\n    KTAP version 1\n    1..2\n    ok 1 a\nok 1 b",
                "1 results of 2",
            ),
            ("KTAP version 1\n1..1\n# partition half\nok 1 a", "half"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}

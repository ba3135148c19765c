// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The parts of a run as one run.

use std::collections::HashMap;

use crate::run::Run;
use crate::{Outcome, TestResult};

/// Results that are of a VM, or of a whole suite, rather than of a test: every part can have its own.
const OF_EACH_PART: [&str; 6] = [
    "the_vm_ends_well",
    "the suite runs",
    "all tests pass without a kernel warning",
    "a VM with coax ends well",
    "tests run on coax",
    "tests run on test_hmm",
];

/// Joins the parts of a run, each with a name for errors, or runs that have no test in common.
///
/// # Errors
///
/// Names the part that is missing or there twice, or the test that two of them have.
pub fn merge(mut runs: Vec<(String, Run)>) -> Result<Run, String> {
    check_parts(&runs)?;
    runs.sort_by_key(|(_, run)| run.partition().map_or(0, |part| part.shard()));
    let mut seen: HashMap<String, (&str, TestResult)> = HashMap::new();
    let mut order: Vec<String> = Vec::new();
    for (file, run) in &runs {
        for test in run.tests() {
            let name = test.full_name();
            let known = seen.remove(&name);
            let test = match known {
                None => test.clone(),
                Some((_, known)) if is_of_each_part(&known) => {
                    // It stands behind the last test that it is about.
                    order.retain(|other| *other != name);
                    both(known, test)
                }
                Some((other, _)) => {
                    return Err(format!("{name} is both in {other} and in {file}"));
                }
            };
            seen.insert(name.clone(), (file, test));
            order.push(name);
        }
    }
    let mut merged = Run::default();
    let machines = runs.iter().flat_map(|(_, run)| run.machines());
    machines.for_each(|machine| merged.ran_on(machine));
    let tests = order.iter().filter_map(|name| seen.remove(name));
    tests.for_each(|(_, test)| merged.add(test));
    Ok(merged)
}

/// Refuses parts of different runs, and those of which one is missing.
fn check_parts(runs: &[(String, Run)]) -> Result<(), String> {
    let Some((first, run)) = runs.first() else {
        return Err("there is nothing to merge".into());
    };
    let of = run.partition().map(|part| part.of());
    let mut of_shard: HashMap<u32, &str> = HashMap::new();
    for (file, run) in runs {
        if run.partition().map(|part| part.of()) != of {
            let what = |run: &Run| match run.partition() {
                Some(part) => format!("is {part}"),
                None => "is no part".to_owned(),
            };
            let (one, other) = (what(&runs[0].1), what(run));
            return Err(format!("{first} {one}, and {file} {other}"));
        }
        let shard = run.partition().map(|part| part.shard());
        if let Some(other) = shard.and_then(|shard| of_shard.insert(shard, file)) {
            let part = shard.unwrap_or_default();
            return Err(format!("part {part} is both {other} and {file}"));
        }
    }
    let missing = |shard: &u32| !of_shard.contains_key(shard);
    let missing: Vec<String> = (1..=of.unwrap_or(0))
        .filter(missing)
        .map(|shard| shard.to_string())
        .collect();
    match (&missing[..], of) {
        ([], _) => Ok(()),
        (missing, of) => {
            let of = of.unwrap_or_default();
            Err(format!(
                "of {of} parts there is no part {}",
                missing.join(", ")
            ))
        }
    }
}

fn is_of_each_part(test: &TestResult) -> bool {
    // One that was there already has a number.
    let (first, _) = test.name.rsplit_once(" (").unwrap_or((&test.name, ""));
    OF_EACH_PART.iter().any(|name| first.ends_with(name))
}

/// What a result of each part comes to in two of them.
fn both(mut one: TestResult, other: &TestResult) -> TestResult {
    let outcome = match (&one.outcome, &other.outcome) {
        (Outcome::Failed, _) | (_, Outcome::Failed) => Outcome::Failed,
        (Outcome::Passed, _) | (_, Outcome::Passed) => Outcome::Passed,
        (skipped, _) => skipped.clone(),
    };
    one.outcome = outcome;
    one.diagnostics.extend(other.diagnostics.iter().cloned());
    one.seconds = match (one.seconds, other.seconds) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    };
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "private.standard.the_vm_ends_well";

    fn run(part: Option<&str>, names: &[(&str, Outcome)]) -> Run {
        let mut run = Run::of(part.map(|part| part.parse().expect("a part")));
        for (name, outcome) in names {
            let mut test = TestResult::new(&["vm", "private.standard"], *name, outcome.clone());
            test.seconds = Some(1.0);
            run.add(test);
        }
        run
    }

    fn merged(runs: &[Run]) -> Result<Run, String> {
        let named = |(index, run): (usize, &Run)| (format!("file{}", index + 1), run.clone());
        merge(runs.iter().enumerate().map(named).collect())
    }

    #[test]
    fn parts_in_any_order_are_the_whole_run_in_its_order() {
        let parts = [
            run(
                Some("slice:2/2"),
                &[("b", Outcome::Passed), (END, Outcome::Failed)],
            ),
            run(
                Some("slice:1/2"),
                &[("a", Outcome::Passed), (END, Outcome::Passed)],
            ),
        ];
        let mut whole = run(
            None,
            &[
                ("a", Outcome::Passed),
                ("b", Outcome::Passed),
                (END, Outcome::Failed),
            ],
        );
        assert_ne!(
            merged(&parts),
            Ok(whole.clone()),
            "both ends take their time"
        );
        let whole_tests = whole.tests().to_vec();
        whole = Run::default();
        for mut test in whole_tests {
            test.seconds = Some(if test.name == END { 2.0 } else { 1.0 });
            whole.add(test);
        }
        assert_eq!(merged(&parts), Ok(whole));
    }

    #[test]
    fn what_each_part_says_of_itself_is_there_once() {
        let part = |part| {
            let end = "a VM with coax ends well";
            run(
                Some(part),
                &[(end, Outcome::Failed), (end, Outcome::Failed)],
            )
        };
        let joined = merged(&[part("slice:1/2"), part("slice:2/2")]).expect("parts of one run");
        assert_eq!(joined.counts_from(0), (0, 2));
    }

    #[test]
    fn what_is_not_one_run_is_refused_by_name() {
        let part = |part, name| run(Some(part), &[(name, Outcome::Passed)]);
        let whole = run(None, &[("a", Outcome::Passed)]);
        for (runs, words) in [
            (vec![], "nothing"),
            (vec![part("slice:1/3", "a")], "no part 2, 3"),
            (
                vec![part("slice:1/2", "a"), part("slice:1/2", "b")],
                "both file1 and file2",
            ),
            (
                vec![part("slice:1/2", "a"), part("slice:2/2", "a")],
                "both in file1 and in file2",
            ),
            (
                vec![part("slice:1/2", "a"), part("slice:2/3", "b")],
                "file2 is slice:2/3",
            ),
            (
                vec![part("slice:1/1", "a"), whole.clone()],
                "file2 is no part",
            ),
            (
                vec![whole.clone(), whole.clone()],
                "vm/private.standard/a is both",
            ),
        ] {
            let error = merged(&runs).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(merged(std::slice::from_ref(&whole)), Ok(whole));
    }
}

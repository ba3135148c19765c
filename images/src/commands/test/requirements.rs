// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `requirements`: what a coherent accelerator has to do for Linux, requirement by
//! requirement and mode by mode, each shown by cases of the suite `vm`.

mod table;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Result};
use serde::Serialize;

use super::results::{ktap_line, Results, Verdict};
use super::suites;
use crate::cli::Test;
use crate::commands::announce;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::result_file::ResultFile;
use coax_program::outln;
use table::Requirement;

/// What a requirement came to in one mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    id: &'static str,
    mode: &'static str,
    result: &'static str,
    checked: String,
}

const PASS: &str = "pass";
const FAIL: &str = "fail";
const NOT_APPLICABLE: &str = "not applicable";

/// A case as the list of the suite `vm` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Case {
    name: String,
    modes: Vec<String>,
    shows: String,
}

/// Runs the cases that show the requirements, once each, and reports by requirement.
///
/// # Errors
///
/// The images could not be built, a case that shows a requirement does not exist, or the JSON could not
/// be written.
pub fn run(
    results: &mut Results,
    options: &Test,
    json: Option<ResultFile>,
    install: bool,
) -> Result<()> {
    let images = Images::build(&options.kernel.which, install)?;
    let machine = announce(&images, &Mode::ALL)?;
    let cases = cases(&suites::vm_case_list()?);
    let wanted = wanted(&cases)?;
    let mut verdicts = BTreeMap::new();
    let ended = suites::vm_lines(options, &wanted, |line| {
        if let Some((name, verdict)) = ktap_line(line) {
            verdicts.insert(name, verdict);
        }
    });
    if !verdicts.values().any(|verdict| *verdict == Verdict::Failed) {
        ended?;
    }
    let rows: Vec<Row> = table::ALL
        .iter()
        .flat_map(|requirement| Mode::ALL.map(|mode| row(requirement, mode, &cases, &verdicts)))
        .collect();
    for row in &rows {
        outln!(
            "  {:<4} {:<9} {:<15} {}",
            row.id,
            row.mode,
            row.result,
            row.checked
        )?;
        let verdict = match row.result {
            PASS => Verdict::Passed,
            NOT_APPLICABLE => Verdict::Skipped(row.checked.clone()),
            _ => Verdict::Failed,
        };
        results.add(format!("requirements: {}.{}", row.mode, row.id), verdict);
    }
    // A VM that does not end well belongs to no requirement and is no success either.
    for (name, verdict) in verdicts
        .iter()
        .filter(|(name, _)| name.ends_with("the_vm_ends_well"))
    {
        results.add(format!("requirements: {name}"), verdict.clone());
    }
    if let Some(file) = json {
        let report = serde_json::json!({ "requirements": rows });
        file.json(&machine.report(report))?;
    }
    Ok(())
}

/// Reads the list of cases: `subject.case [mode, mode]: what it shows`.
fn cases(list: &str) -> Vec<Case> {
    let case = |line: &str| {
        let (name, rest) = line.split_once(" [")?;
        let (modes, shows) = rest.split_once("]: ")?;
        Some(Case {
            name: name.to_owned(),
            modes: modes.split(", ").map(str::to_owned).collect(),
            shows: shows.to_owned(),
        })
    };
    list.lines().filter_map(case).collect()
}

/// Whether `pattern`, a case or a subject with a dot behind it, means the case of this name.
fn means(pattern: &str, name: &str) -> bool {
    pattern == name || pattern.ends_with('.') && name.starts_with(pattern)
}

/// The full names of all cases that show something.
fn wanted(cases: &[Case]) -> Result<BTreeSet<String>> {
    let mut wanted = BTreeSet::new();
    for requirement in table::ALL {
        for pattern in requirement.cases {
            let found = cases.iter().filter(|case| means(pattern, &case.name));
            let names: Vec<String> = found.map(|case| case.name.clone()).collect();
            ensure!(
                !names.is_empty(),
                "No case {pattern} of the suite vm to show {}",
                requirement.id
            );
            wanted.extend(names);
        }
    }
    Ok(wanted)
}

fn row(
    requirement: &Requirement,
    mode: Mode,
    cases: &[Case],
    verdicts: &BTreeMap<String, Verdict>,
) -> Row {
    let of_it = cases.iter().filter(|case| {
        let patterns = requirement.cases.iter();
        patterns.clone().any(|pattern| means(pattern, &case.name))
            && case.modes.iter().any(|name| name == mode.name())
    });
    let (mut shown, mut bad) = (Vec::new(), Vec::new());
    for case in of_it {
        match verdicts.get(&format!("{mode}.{}", case.name)) {
            Some(Verdict::Passed) => shown.push(format!("{}: {}", case.name, case.shows)),
            Some(Verdict::Skipped(reason)) => {
                bad.push(format!("{} was skipped: {reason}", case.name))
            }
            Some(Verdict::Failed) => bad.push(format!("{} failed", case.name)),
            None => bad.push(format!("{} did not run", case.name)),
        }
    }
    let limit = requirement
        .limit
        .map_or(String::new(), |limit| format!("; {limit}"));
    let (result, what) = if !bad.is_empty() {
        (FAIL, bad.join("; "))
    } else if shown.is_empty() {
        (
            NOT_APPLICABLE,
            "nothing in this mode differs from ordinary memory".to_owned(),
        )
    } else {
        (PASS, shown.join("; "))
    };
    Row {
        id: requirement.id,
        mode: mode.name(),
        result,
        checked: format!("{}: {what}{limit}", requirement.demands),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
a.first [private, coherent]: one thing
a.second [coherent]: another thing
b.first [numa]: a third
no case";

    const REQUIREMENT: Requirement = Requirement {
        id: "R9",
        demands: "something",
        cases: &["a."],
        limit: Some("but not all"),
    };

    #[test]
    fn the_list_of_cases_is_read() {
        let cases = cases(LIST);
        assert_eq!(cases.len(), 3);
        assert_eq!(cases[0].modes, ["private", "coherent"]);
        assert_eq!(cases[2].shows, "a third");
    }

    #[test]
    fn a_requirement_is_met_where_all_its_cases_passed() {
        let cases = cases(LIST);
        let mut verdicts = BTreeMap::from([
            ("private.a.first".to_owned(), Verdict::Passed),
            ("coherent.a.first".to_owned(), Verdict::Passed),
        ]);
        let met = row(&REQUIREMENT, Mode::Private, &cases, &verdicts);
        assert_eq!(met.result, PASS);
        assert_eq!(met.checked, "something: a.first: one thing; but not all");
        let missing = row(&REQUIREMENT, Mode::Coherent, &cases, &verdicts);
        assert_eq!(missing.result, FAIL);
        assert!(missing.checked.contains("a.second did not run"));
        verdicts.insert("coherent.a.second".to_owned(), Verdict::Failed);
        let failed = row(&REQUIREMENT, Mode::Coherent, &cases, &verdicts);
        assert!(failed.checked.contains("a.second failed"));
        let none = row(&REQUIREMENT, Mode::Numa, &cases, &verdicts);
        assert_eq!(none.result, NOT_APPLICABLE);
    }

    #[test]
    fn a_case_that_does_not_exist_is_an_error() {
        let error = wanted(&cases(LIST)).expect_err("the table has other cases");
        assert!(error.to_string().contains("No case"), "{error}");
    }

    #[test]
    fn every_requirement_is_there_once() {
        let ids: BTreeSet<&str> = table::ALL
            .iter()
            .map(|requirement| requirement.id)
            .collect();
        assert_eq!(ids.len(), table::ALL.len());
        for id in ["R1a", "R1b", "R2", "R3", "R4", "R5", "R6a", "R6b", "R6c"] {
            assert!(ids.contains(id), "{id}");
        }
        assert!((1..=10).all(|n| ids.contains(format!("H{n}").as_str())));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax report`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{anyhow, Result};
use coax_program::outln;
use coax_results::file::{self, Format};
use coax_results::merge::merge;
use coax_results::run::Run;
use coax_results::Outcome;

use super::{create, exit_code};
use crate::cli::{Merge, Report};

/// Joins reports, or prints what is in one.
pub fn run(options: &Report) -> Result<ExitCode> {
    match options {
        Report::Merge(options) => join(options),
        Report::Seconds { file } => {
            let text = serde_json::to_string_pretty(&seconds(&read(file)?))?;
            outln!("{text}")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn read(path: &Path) -> Result<Run> {
    file::read(path).map_err(|error| anyhow!("{error}"))
}

fn join(options: &Merge) -> Result<ExitCode> {
    let mut runs = Vec::new();
    for path in &options.files {
        runs.push((path.display().to_string(), read(path)?));
    }
    let run =
        merge(runs).map_err(|error| anyhow!("These are not the parts of one run: {error}"))?;
    for (format, path) in [
        (Format::Ktap, &options.ktap),
        (Format::Junit, &options.junit),
        (Format::Json, &options.results),
    ] {
        if let Some(file) = create(path)? {
            file.write(|file| format.write(&run, file))?;
        }
    }
    for test in run.tests() {
        if test.outcome == Outcome::Failed {
            outln!("  FAILED {}", test.full_name())?;
        }
    }
    outln!("{run}")?;
    Ok(exit_code(run.passed()))
}

/// What each test took, by its full name. What is of a VM, or of a suite, stands under its path.
fn seconds(run: &Run) -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    let in_suite = |path: &[String], names: &[&str]| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        path == names
    };
    for test in run.tests() {
        let Some(took) = test.seconds else { continue };
        let rounded = (took * 1000.0).round() / 1000.0;
        if test.name.ends_with("the_vm_ends_well") {
            seconds.insert(test.path.join("/"), rounded);
        } else if in_suite(&test.path, &["driver"]) {
            *seconds.entry("driver".to_owned()).or_insert(0.0) += rounded;
        } else if !in_suite(&test.path, &["hmm"]) || !test.name.starts_with("all tests") {
            seconds.insert(test.full_name(), rounded);
        }
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use coax_results::TestResult;

    #[test]
    fn a_vms_own_time_stands_under_its_path() {
        let mut run = Run::default();
        let mut add = |path: &[&str], name: &str, took| {
            run.add(TestResult {
                seconds: took,
                ..TestResult::new(path, name, Outcome::Passed)
            });
        };
        let vm = ["vm", "private.standard"];
        add(&vm, "private.fork.a", Some(1.5));
        add(&vm, "private.standard.the_vm_ends_well", Some(20.0));
        add(&["unit", "coax_abi"], "sizes", None);
        add(&["driver"], "module builds", Some(30.0));
        add(&["driver"], "pure parts", Some(9.0));
        let wanted = [
            ("driver", 39.0),
            ("vm/private.standard", 20.0),
            ("vm/private.standard/private.fork.a", 1.5),
        ];
        let wanted = wanted.map(|(name, took)| (name.to_owned(), took));
        assert_eq!(seconds(&run), BTreeMap::from(wanted));
    }
}

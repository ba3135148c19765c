// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax test`.

mod driver;
mod fresh;
mod hmm;
mod part;
mod requirements;
mod results;
mod run;
mod soak;
mod stress;
mod suites;
mod trials;
mod untouched;

use std::process::ExitCode;

use anyhow::{bail, Result};
use clap::ValueEnum;
use coax_results::file::Format;

use super::{create, exit_code, refuse};
use crate::cli::{Suite, Test};
use coax_images::archive;
use coax_images::job::Mode;
use coax_images::machine::Translation;
use coax_program::{errln, outln, status};
use part::Part;
use results::Results;

pub use suites::test_program;

/// Runs the suites asked for, and prints the sums as its last line.
pub fn run(options: &Test, install: bool) -> Result<ExitCode> {
    let translation = options.kernel.which.translation();
    if translation == Translation::Pcie {
        // The other suites are of the driver's own translation, or have no device.
        if let Some(&suite) = options.suites.iter().find(|suite| **suite != Suite::Vm) {
            errln!(
                "coax: the suite {} has no --translation pcie; vm has",
                name(suite)
            );
            return Ok(status::USAGE.into());
        }
    }
    if let Some(status) = refuse(translation, &modes(options)) {
        return Ok(status);
    }
    if options.list {
        return list(options, install);
    }
    if archive::here()?.is_some() {
        if let Some(&suite) = options.suites.iter().find(|suite| needs_checkout(**suite)) {
            bail!(
                "The suite {} needs a checkout, and this is an archive: run it where the archive was built",
                name(suite)
            );
        }
    }
    let files = [
        (Format::Ktap, create(&options.ktap)?),
        (Format::Junit, create(&options.junit)?),
        (Format::Json, create(&options.results)?),
    ];
    let mut json = create(&options.json)?;
    options.kernel.ready(install)?;
    let part = Part::of(options, || names(options, install))?;
    let mut results = Results::of(part.partition());
    for suite in chosen(options) {
        if !part.has_some_of(name(suite)) {
            continue;
        }
        outln!("Suite {}", name(suite))?;
        let ran = match suite {
            Suite::Unit => suites::unit(&mut results, &part),
            Suite::Driver => driver::run(&mut results, options, install),
            Suite::Vm => suites::vm(&mut results, options, &part, install),
            Suite::Hmm => hmm::run(&mut results, options, &part, json.take(), install),
            Suite::Requirements => requirements::run(&mut results, options, json.take(), install),
            Suite::Fresh => fresh::run(&mut results, options, install),
            // These open the file themselves.
            Suite::Soak | Suite::Stress | Suite::Stall | Suite::Kill => {
                let json = json.take().and(options.json.as_deref());
                match suite {
                    Suite::Soak => soak::run(&mut results, options, json, install),
                    Suite::Stress => stress::run(&mut results, options, json, install),
                    _ => trials::run(&mut results, name(suite), options, json, install),
                }
            }
        };
        if let Err(error) = ran {
            if coax_program::reader_has_gone(&error) {
                return Err(error);
            }
            results.broken(&[name(suite)], "the suite runs", &format!("{error:#}"));
        }
        results.all_shown()?;
    }
    let run = results.run();
    for (format, file) in files {
        if let Some(file) = file {
            file.write(|file| format.write(run, file))?;
        }
    }
    if let (Some(partition), true) = (part.partition(), run.tests().is_empty()) {
        outln!("There is nothing for {partition}")?;
    }
    outln!("{run}")?;
    Ok(exit_code(run.passed()))
}

/// What the chosen suites have, in the order in which it runs, for parts to be made of: what is started for a
/// test, and the test's full name. Suites that run only when they are named are whole in one part, and so is
/// `driver`.
fn names(options: &Test, install: bool) -> Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    for suite in chosen(options) {
        match suite {
            Suite::Unit => {
                let steps = suites::UNIT.map(|step| format!("unit/{step}"));
                names.extend(steps.map(|step| (step.clone(), step)));
            }
            Suite::Vm => names.extend(suites::vm_names(options, install)?),
            Suite::Hmm => {
                let tests = hmm::names(options, install)?.into_iter();
                names.extend(tests.map(|test| ("hmm".to_owned(), format!("hmm/{test}"))));
            }
            whole => names.push((name(whole).to_owned(), name(whole).to_owned())),
        }
    }
    Ok(names)
}

/// The suites asked for in the order in which they run; if none is, all but those that run only when they
/// are named.
fn chosen(options: &Test) -> Vec<Suite> {
    let all = Suite::value_variants().iter().copied();
    let in_archive = matches!(archive::here(), Ok(Some(_)));
    let can_run = |suite: Suite| !in_archive || !needs_checkout(suite);
    let is_left = |suite: Suite| match options.kernel.which.translation() {
        Translation::Virtqueue => runs_unnamed(suite),
        Translation::Pcie => suite == Suite::Vm,
    };
    let by_default = |suite: Suite| options.suites.is_empty() && is_left(suite) && can_run(suite);
    all.filter(|&suite| by_default(suite) || options.suites.contains(&suite))
        .collect()
}

/// Whether the suite belongs to the default, which has to end within an hour.
fn runs_unnamed(suite: Suite) -> bool {
    match suite {
        Suite::Unit | Suite::Driver | Suite::Vm | Suite::Hmm => true,
        Suite::Requirements
        | Suite::Soak
        | Suite::Stress
        | Suite::Stall
        | Suite::Kill
        | Suite::Fresh => false,
    }
}

/// Whether the suite builds something, or looks at the sources.
fn needs_checkout(suite: Suite) -> bool {
    match suite {
        Suite::Unit | Suite::Driver | Suite::Soak | Suite::Fresh => true,
        Suite::Vm
        | Suite::Hmm
        | Suite::Requirements
        | Suite::Stress
        | Suite::Stall
        | Suite::Kill => false,
    }
}

/// The modes of a suite that takes one.
fn modes(options: &Test) -> Vec<Mode> {
    let all = || options.kernel.which.translation().modes(&Mode::ALL);
    options.mode.map_or_else(all, |mode| vec![mode.into()])
}

fn name(suite: Suite) -> &'static str {
    match suite {
        Suite::Unit => "unit",
        Suite::Driver => "driver",
        Suite::Vm => "vm",
        Suite::Hmm => "hmm",
        Suite::Requirements => "requirements",
        Suite::Soak => "soak",
        Suite::Stress => "stress",
        Suite::Stall => "stall",
        Suite::Kill => "kill",
        Suite::Fresh => "fresh",
    }
}

fn list(options: &Test, install: bool) -> Result<ExitCode> {
    let part = Part::of(options, || names(options, install))?;
    if let Some(names) = part.names() {
        for name in names {
            outln!("{name}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    for suite in chosen(options) {
        let help = suite
            .to_possible_value()
            .and_then(|value| value.get_help().cloned());
        outln!("{}: {}", name(suite), help.unwrap_or_default())?;
        if suite == Suite::Vm {
            suites::list_vm_cases(options)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn suites_that_take_hours_run_only_when_they_are_named() {
        let chosen_by = |args: &[&str]| {
            let args = ["coax", "test"].iter().chain(args);
            match Cli::parse_from(args).command {
                Command::Test(options) => chosen(&options),
                other => panic!("{other:?}"),
            }
        };
        let default = [Suite::Unit, Suite::Driver, Suite::Vm, Suite::Hmm];
        assert_eq!(chosen_by(&[]), default);
        for &suite in Suite::value_variants() {
            // What the help promises is what happens.
            let help = suite.to_possible_value().expect("None is hidden");
            let help = help.get_help().expect("All are described").to_string();
            let named = help.contains("only when it is named");
            assert_eq!(!named, default.contains(&suite), "{help}");
            assert_eq!(chosen_by(&[name(suite)]), [suite]);
        }
    }
}

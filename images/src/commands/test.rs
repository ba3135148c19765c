// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax test`.

mod driver;
mod fresh;
mod hmm;
mod requirements;
mod results;
mod run;
mod soak;
mod stress;
mod suites;
mod trials;
mod untouched;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::{create, exit_code};
use crate::cli::{Suite, Test};
use coax_images::job::Mode;
use coax_program::outln;
use results::Results;

/// Runs the suites asked for, and prints the sums as its last line.
pub fn run(options: &Test, install: bool) -> Result<ExitCode> {
    if options.list {
        return list(options);
    }
    let ktap = create(&options.ktap)?;
    let mut json = create(&options.json)?;
    options.kernel.ready(install)?;
    let mut results = Results::default();
    for suite in chosen(options) {
        outln!("Suite {}", name(suite))?;
        let ran = match suite {
            Suite::Unit => suites::unit(&mut results),
            Suite::Driver => driver::run(&mut results, options, install),
            Suite::Vm => suites::vm(&mut results, options, install),
            Suite::Hmm => hmm::run(&mut results, options, json.take(), install),
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
            results.broken(name(suite), &format!("{error:#}"));
        }
        results.all_shown()?;
    }
    if let Some(file) = ktap {
        file.write(|file| results.write_ktap(file))?;
    }
    outln!("{results}")?;
    Ok(exit_code(results.passed()))
}

/// The suites asked for in the order in which they run; if none is, all but those that run only when they
/// are named.
fn chosen(options: &Test) -> Vec<Suite> {
    let all = Suite::value_variants().iter().copied();
    let by_default = |suite: Suite| options.suites.is_empty() && runs_unnamed(suite);
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

/// The modes of a suite that takes one.
fn modes(options: &Test) -> Vec<Mode> {
    let all = || Mode::ALL.to_vec();
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

fn list(options: &Test) -> Result<ExitCode> {
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

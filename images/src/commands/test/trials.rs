// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suites `stall` and `kill`: something bad happens to the device at many seeded points. They take an hour
//! or so and run only when they are named.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::results::{Results, Verdict};
use super::{modes, suites};
use crate::cli::Test;
use crate::commands::announce;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::qemu::Form;

/// Runs the program of the trials, prints its lines and takes its results.
///
/// # Errors
///
/// What it needs could not be built, or it ended badly without saying what failed.
pub fn run(
    results: &mut Results,
    trial: &str,
    options: &Test,
    json: Option<&Path>,
    install: bool,
) -> Result<()> {
    let images = Images::build(&options.kernel.which, install)?;
    if trial == "kill" && images.form == Form::TwoFunctions {
        let reason = "a QEMU without our patches ends when the back end does";
        results.add(trial.into(), Verdict::Skipped(reason.into()));
        return Ok(());
    }
    announce(&images, &modes(options))?;
    let mut program = Command::new(suites::test_program("coax-trials")?);
    program
        .arg(trial)
        .args(["--from", &options.from.to_string()])
        .args(options.kernel.which.words());
    if let Some(points) = options.points {
        program.args(["--points", &points.to_string()]);
    }
    if let Some(seed) = options.seed {
        program.args(["--seed", &seed.to_string()]);
    }
    if let Some(mode) = options.mode {
        program.args(["--mode", Mode::from(mode).name()]);
    }
    if let Some(json) = json {
        program.arg("--json").arg(json);
    }
    suites::ktap_of(results, trial, program)
}

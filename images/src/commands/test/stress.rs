// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `stress`: each stressor of stress-ng's classes vm, memory and scheduler, without a storm and in
//! one. It takes an hour and a package that nothing else needs, so it runs only when it is named.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::results::Results;
use super::{modes, suites};
use crate::cli::Test;
use crate::commands::announce;
use coax_images::host_packages::{self, Group};
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::virtiofsd;

/// Runs the program of the suite, prints its lines and takes its results.
///
/// # Errors
///
/// What it needs could not be built, or it ended badly without saying what failed.
pub fn run(
    results: &mut Results,
    options: &Test,
    json: Option<&Path>,
    install: bool,
) -> Result<()> {
    let images = Images::build(&options.kernel.which, install)?;
    announce(&images, &modes(options))?;
    virtiofsd::build(install)?;
    host_packages::ensure(&[Group::Stress], install)?;
    let mut program = Command::new(suites::test_program("coax-stress")?);
    program
        .args(["--from", &options.from.to_string()])
        .args(options.kernel.which.words());
    if let Some(mode) = options.mode {
        program.args(["--mode", Mode::from(mode).name()]);
    }
    if let Some(json) = json {
        program.arg("--json").arg(json);
    }
    program.args(&options.filter);
    suites::ktap_of(results, "stress", program)
}

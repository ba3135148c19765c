// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `soak`: stock programs in a long storm of moving pages. It takes an hour and packages that
//! nothing else needs, so it runs only when it is named.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::results::Results;
use super::{modes, suites};
use crate::cli::Test;
use crate::commands::announce;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::{sqlite, virtiofsd};

/// Runs the storm's program, prints its lines and takes its results.
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
    sqlite::build(install)?;
    let mut soak = Command::new(suites::test_program("coax-soak")?);
    soak.args(["--minutes", &options.minutes.to_string()])
        .args(["--from", &options.from.to_string()])
        .args(options.kernel.which.words());
    if let Some(mode) = options.mode {
        soak.args(["--mode", Mode::from(mode).name()]);
    }
    if let Some(json) = json {
        soak.arg("--json").arg(json);
    }
    suites::ktap_of(results, "soak", soak)
}

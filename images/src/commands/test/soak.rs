// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The suite `soak`: stock programs in a long storm of moving pages. It takes an hour and packages that
//! nothing else needs, so it runs only when it is named.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use nix::sys::signal::Signal;

use super::results::{ktap_line, Results, Verdict};
use super::suites;
use crate::cli::Test;
use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::process::Group;
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
    Images::build(options.kernel, install)?;
    virtiofsd::build(install)?;
    sqlite::build(install)?;
    let mut soak = Command::new(suites::test_program("coax-soak")?);
    soak.args(["--minutes", &options.minutes.to_string()])
        .args(["--from", &options.from.to_string()])
        .args(["--accel", &suites::accel_name(options)?])
        .args(["--kernel", options.kernel.name()]);
    if let Some(mode) = options.mode {
        soak.args(["--mode", Mode::from(mode).name()]);
    }
    if let Some(json) = json {
        soak.arg("--json").arg(json);
    }
    soak.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut group = Group::start(&mut soak, Signal::SIGTERM).context("Cannot start the soak")?;
    let output = group.child().stdout.take().context("It has no output")?;
    let mut failed = 0;
    for line in BufReader::new(output).lines() {
        let line = line.context("Cannot read the soak's output")?;
        println!("{line}");
        if let Some((name, verdict)) = ktap_line(&line) {
            failed += usize::from(verdict == Verdict::Failed);
            results.add(format!("soak: {name}"), verdict);
        }
    }
    let status = group.wait().context("Cannot wait for the soak")?;
    // The failures that were read tell more than the status.
    if !status.success() && failed == 0 {
        bail!("The soak ended with {status}");
    }
    Ok(())
}

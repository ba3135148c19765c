// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax bench fairness`: a device fault of one process beside what another does with the device.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{goals, succeeded, take, Measured};
use crate::cli::Fairness;
use crate::commands::{announce, create, exit_code, refuse};
use coax_images::images::Images;
use coax_images::job::{Job, Mode};
use coax_images::launch::{Vm, VmConfig};
use coax_program::outln;

/// A measurement takes seconds; one that waits for a fault in vain ends by itself.
const VM_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Measures, prints what was measured with a line for each goal, and writes what is asked for.
pub fn run(options: &Fairness, install: bool) -> Result<ExitCode> {
    let mode = Mode::from(options.mode);
    if let Some(status) = refuse(options.kernel.which.translation(), &[mode]) {
        return Ok(status);
    }
    let json = create(&options.json)?;
    let images = Images::build(options.kernel.ready(install)?, install)?;
    let config = VmConfig {
        mode,
        translation: images.translation,
        timeout: Some(VM_LIMIT),
        ..VmConfig::default()
    };
    let machine = announce(&images, &[config.mode])?;
    outln!("A fault of the device, as a whole command, alone and beside another process")?;
    let mut measured = Measured::new();
    let job = Job::new(["coax-guest-tests", "fairness"]);
    let outcome = Vm::start(&images, &config, &job)?.wait_watching(|line| {
        take(line, &mut measured)?;
        Ok(None)
    })?;
    succeeded(&outcome)?;

    outln!("\nWhat must be reached: how many times as long a fault takes")?;
    let judged = goals::judge(goals::FAIRNESS, &measured);
    judged.iter().try_for_each(|goal| outln!("  {goal}"))?;
    let passed = judged.iter().all(|goal| goal.passed);
    if let Some(file) = json {
        let report = json!({
            "verdict": if passed { "pass" } else { "fail" },
            "goals": judged,
            "measured": measured,
        });
        file.json(&machine.report(report))?;
    }
    Ok(exit_code(passed))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax demo`: the host half.
//!
//! The guest's `coax-demo` works, judges, and prints one JSON object a scenario; all numbers in
//! it are read from the driver and the device. This side runs it in each mode, adds what it ran
//! on, and reports.

mod scenario;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{announce, create, exit_code};
use crate::cli::Demo;
use coax_images::images::Images;
use coax_images::job::{Job, Mode};
use coax_images::launch::{Vm, VmConfig};
use coax_program::outln;
use scenario::{describe, first_migration, missing, Scenario};

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Report {
    verdict: &'static str,
    seconds: f64,
    scenarios: Vec<Scenario>,
}

/// A demonstration that was shown.
#[derive(Debug)]
pub struct Shown {
    scenarios: Vec<Scenario>,
    /// Whether every scenario was told and passed.
    pub passed: bool,
    /// From the start of the first VM to the end of the last.
    pub duration: Duration,
    /// From a kernel's start to the first page that moved, the longest of all VMs.
    pub first_migration: Option<Duration>,
}

/// Runs the demonstration and reports.
pub fn run(options: &Demo, install: bool) -> Result<ExitCode> {
    let json = create(&options.json)?;
    let images = Images::build(options.kernel.ready(install)?, install)?;
    let modes = options.mode.list();
    let machine = announce(&images, &modes)?;
    let shown = show(&images, &modes)?;
    let verdict = if shown.passed { "pass" } else { "fail" };
    let seconds = shown.duration.as_secs_f64();
    outln!(
        "\n{verdict}: {} scenarios in {seconds:.1} s",
        shown.scenarios.len()
    )?;
    if let Some(file) = json {
        let report = Report {
            verdict,
            seconds,
            scenarios: shown.scenarios,
        };
        file.json(&machine.report(report))?;
    }
    Ok(exit_code(shown.passed))
}

/// Shows all scenarios in each of `modes`, one VM a mode.
///
/// # Errors
///
/// A VM did not end well.
pub fn show(images: &Images, modes: &[Mode]) -> Result<Shown> {
    let start = Instant::now();
    let mut shown = Shown {
        scenarios: Vec::new(),
        passed: true,
        duration: Duration::ZERO,
        first_migration: None,
    };
    for mode in modes {
        let (told, well) = show_mode(images, *mode)?;
        for name in missing(&told) {
            outln!("  {name:<12}FAIL: the guest did not report it")?;
        }
        shown.passed &= well && missing(&told).is_empty() && told.iter().all(Scenario::passed);
        shown.first_migration = shown.first_migration.max(first_migration(&told));
        shown.scenarios.extend(told);
    }
    shown.duration = start.elapsed();
    Ok(shown)
}

/// One VM: its scenarios, and whether the guest's program ended well.
fn show_mode(images: &Images, mode: Mode) -> Result<(Vec<Scenario>, bool)> {
    let usual = VmConfig::default();
    let config = VmConfig {
        mode,
        timeout: usual.timeout.map(|limit| limit * images.time_factor),
        ..usual
    };
    let job = Job::new(["coax-demo", "all", "--json", "-"]);
    let vm = Vm::start(images, &config, &job)
        .with_context(|| format!("Cannot start the VM in {mode} mode"))?;
    outln!("\n{}", title(mode))?;
    let mut scenarios = Vec::new();
    let mut unreadable = 0;
    let outcome = vm.wait_watching(|line| {
        match serde_json::from_str::<Scenario>(line) {
            Ok(scenario) => {
                outln!("{}", describe(&scenario))?;
                scenarios.push(scenario);
            }
            Err(error) => {
                outln!("  not understood ({error}): {line}")?;
                unreadable += 1;
            }
        }
        Ok(None)
    })?;
    if !outcome.exit.success() {
        outln!(
            "  coax-demo: {}\n{}",
            outcome.exit,
            outcome.stderr_text().trim_end()
        )?;
    }
    outln!(
        "  {}",
        timing(outcome.boot, outcome.duration, first_migration(&scenarios))
    )?;
    Ok((scenarios, outcome.exit.success() && unreadable == 0))
}

fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Private => "Private memory: a page that the CPU touches comes back.",
        Mode::Coherent => "Coherent memory: the CPU reads and writes pages where they are.",
        Mode::Numa => "A memory node: the kernel moves pages when asked.",
    }
}

fn timing(boot: Duration, all: Duration, first: Option<Duration>) -> String {
    let first = first.map_or(String::new(), |first| {
        format!(
            ", first page moved {:.1} s after the kernel's start",
            first.as_secs_f64()
        )
    });
    format!(
        "booted in {:.1} s{first}, VM gone after {:.1} s",
        boot.as_secs_f64(),
        all.as_secs_f64()
    )
}

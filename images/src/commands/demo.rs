// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax demo`: the host half.
//!
//! The guest's `coax-demo` works, judges, and prints one JSON object a scenario; all numbers in
//! it are read from the driver and the device. This side runs it in each mode, adds what it ran
//! on, and reports.

mod scenario;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use serde::Serialize;

use super::{announce, create, exit_code, refuse};
use crate::cli::Demo;
use coax_images::availability;
use coax_images::images::Images;
use coax_images::job::{Job, Mode};
use coax_images::launch::{Vm, VmConfig};
use coax_images::tool;
use coax_program::{errln, outln};
use scenario::{describe, first_migration, missing, Scenario};

/// With it the kernel would bring pages back as the CPU reads them, and what moved them could not be told.
const NUMA_KERNEL_ARGS: &str = "numa_balancing=disable";

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
    let translation = options.kernel.which.translation();
    let modes = options.mode.list(translation);
    if let Some(status) = refuse(translation, &modes) {
        return Ok(status);
    }
    let json = create(&options.json)?;
    let mut kernel = options.kernel.clone();
    let (which, why) = availability::soonest(kernel.which);
    kernel.which = which;
    for line in why {
        errln!("{line}");
    }
    let images = Images::build(kernel.ready(install)?, install)?;
    let machine = announce(&images, &modes)?;
    let at_once = u32::try_from(modes.len().min(tool::jobs()))?;
    let shown = show(&images, &modes, at_once)?;
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

/// Shows all scenarios in each of `modes`, one VM a mode and so many at once, and mode by mode.
///
/// # Errors
///
/// A VM did not end well.
pub fn show(images: &Images, modes: &[Mode], at_once: u32) -> Result<Shown> {
    let start = Instant::now();
    let mut shown = Shown {
        scenarios: Vec::new(),
        passed: true,
        duration: Duration::ZERO,
        first_migration: None,
    };
    let next = AtomicUsize::new(0);
    let (senders, receivers): (Vec<_>, Vec<_>) = modes.iter().map(|_| mpsc::channel()).unzip();
    thread::scope(|scope| -> Result<()> {
        for _ in 0..at_once {
            let (next, senders) = (&next, senders.clone());
            scope.spawn(move || loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (Some(mode), Some(to)) = (modes.get(number), senders.get(number)) else {
                    return;
                };
                let told = show_mode(images, *mode, at_once, to);
                // Nobody waits for it any more when another has failed.
                let _ = to.send(Told::End(told));
            });
        }
        drop(senders);
        for from in receivers {
            let (told, well) = follow(from)?;
            for name in missing(&told) {
                outln!("  {name:<12}FAIL: the guest did not report it")?;
            }
            shown.passed &= well && missing(&told).is_empty() && told.iter().all(Scenario::passed);
            shown.first_migration = shown.first_migration.max(first_migration(&told));
            shown.scenarios.extend(told);
        }
        Ok(())
    })?;
    shown.duration = start.elapsed();
    Ok(shown)
}

/// What a VM tells.
enum Told {
    /// Something to be shown.
    Line(String),
    /// Its scenarios, and whether the guest's program ended well; the last.
    End(Result<(Vec<Scenario>, bool)>),
}

/// Shows what a VM tells, as it does or has done.
fn follow(from: Receiver<Told>) -> Result<(Vec<Scenario>, bool)> {
    for told in from {
        match told {
            Told::Line(line) => outln!("{line}")?,
            Told::End(end) => return end,
        }
    }
    bail!("A VM has told no end")
}

/// One VM: its scenarios, and whether the guest's program ended well.
fn show_mode(
    images: &Images,
    mode: Mode,
    at_once: u32,
    to: &Sender<Told>,
) -> Result<(Vec<Scenario>, bool)> {
    let usual = VmConfig::default();
    // Others work on the same processors.
    let factor = images.time_factor * at_once;
    let numa = (mode == Mode::Numa).then(|| NUMA_KERNEL_ARGS.to_owned());
    let config = VmConfig {
        mode,
        translation: images.translation,
        kernel_args: numa.into_iter().collect(),
        timeout: usual.timeout.map(|limit| limit * factor),
        ..usual
    };
    // Nobody reads it any more when another VM has failed.
    let tell = |line: String| {
        let _ = to.send(Told::Line(line));
    };
    let job = Job::new(["coax-demo", "all", "--json", "-"]);
    let vm = Vm::start(images, &config, &job)
        .with_context(|| format!("Cannot start the VM in {mode} mode"))?;
    tell(format!("\n{}", title(mode)));
    let mut scenarios = Vec::new();
    let mut unfit = 0;
    let outcome = vm.wait_watching(|line| {
        match serde_json::from_str::<Scenario>(line) {
            Ok(scenario) => {
                tell(describe(&scenario));
                let meant = images.translation.to_string();
                if scenario.translation != meant {
                    let told = &scenario.translation;
                    tell(format!(
                        "  FAIL: translation by {told} instead of {meant}; `dmesg` in the guest says why"
                    ));
                    unfit += 1;
                }
                scenarios.push(scenario);
            }
            Err(error) => {
                tell(format!("  not understood ({error}): {line}"));
                unfit += 1;
            }
        }
        Ok(None)
    })?;
    if !outcome.exit.success() {
        tell(format!(
            "  coax-demo: {}\n{}",
            outcome.exit,
            outcome.stderr_text().trim_end()
        ));
    }
    tell(format!(
        "  {}",
        timing(outcome.boot, outcome.duration, first_migration(&scenarios))
    ));
    Ok((scenarios, outcome.exit.success() && unfit == 0))
}

fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Private => "Private memory: a page that the CPU touches comes back.",
        Mode::Coherent => "Coherent memory: the CPU reads and writes pages where they are.",
        Mode::Numa => {
            "A memory node: pages move to it as the device touches them, since the programs ask for that, and the \
             CPU reads and writes them there."
        }
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

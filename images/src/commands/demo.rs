// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax demo`: the host half.
//!
//! The guest's `coax-demo` works, judges, and prints one JSON object a scenario; all numbers in
//! it are read from the driver and the device. This side runs it in each mode, one after another in one VM, adds
//! what it ran on, and reports.

mod scenario;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{announce, create, exit_code, refuse};
use crate::cli::Demo;
use coax_images::availability;
use coax_images::images::Images;
use coax_images::job::{Job, Mode};
use coax_images::launch::{Vm, VmConfig};
use coax_program::{errln, outln};
use scenario::{describe, first_migration, missing, Scenario};

/// With it the kernel would bring pages back as the CPU reads them, and what moved them could not be told.
const NUMA_KERNEL_ARGS: &str = "numa_balancing=disable";
/// What the guest does; its arguments are values of the driver's parameter `mode`. Starting takes longer than all
/// scenarios of a mode, so there is one VM, and the driver is loaded anew for each mode.
const SCRIPT: &str = r#"
status=0
for mode; do
	insmod /lib/modules/coax.ko mode=$mode || exit
	[ -c /dev/coax0 ] || { echo "coax.ko makes no /dev/coax0" >&2; exit 1; }
	coax-demo all --json - || status=$?
	rmmod coax || exit
done
exit $status
"#;

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
    /// From the start of the VM to its end.
    pub duration: Duration,
    /// From the kernel's start to the first page that moved.
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

/// Shows all scenarios in each of `modes`.
///
/// # Errors
///
/// The VM did not end well.
pub fn show(images: &Images, modes: &[Mode]) -> Result<Shown> {
    let usual = VmConfig::default();
    let numa = modes.contains(&Mode::Numa);
    let first = modes.first().copied().context("No mode to show")?;
    let factor = images.time_factor * u32::try_from(modes.len())?;
    let config = VmConfig {
        // The others do not mind that there is a memory node as well.
        mode: if numa { Mode::Numa } else { first },
        translation: images.translation,
        load_driver: false,
        kernel_args: numa
            .then(|| NUMA_KERNEL_ARGS.to_owned())
            .into_iter()
            .collect(),
        timeout: usual.timeout.map(|limit| limit * factor),
        ..usual
    };
    let mut argv: Vec<String> = ["sh", "-c", SCRIPT, "demo"].map(Into::into).into();
    argv.extend(modes.iter().map(|mode| mode.parameter().to_string()));
    let vm = Vm::start(images, &config, &Job::new(argv)).context("Cannot start the VM")?;

    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut unfit = 0;
    let outcome = vm.wait_watching(|line| {
        match serde_json::from_str::<Scenario>(line) {
            Ok(scenario) => {
                if !scenarios.iter().any(|told| told.mode == scenario.mode) {
                    outln!("\n{}", title(&scenario.mode))?;
                }
                outln!("{}", describe(&scenario))?;
                let (told, meant) = (&scenario.translation, images.translation.to_string());
                if *told != meant {
                    outln!("  FAIL: translation by {told} instead of {meant}; `dmesg` in the guest says why")?;
                    unfit += 1;
                }
                scenarios.push(scenario);
            }
            Err(error) => {
                outln!("  not understood ({error}): {line}")?;
                unfit += 1;
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
    let missing = missing(&scenarios, modes);
    for (mode, name) in &missing {
        outln!("  {name:<12}FAIL: the guest did not report it in {mode} mode")?;
    }
    let first_migration = first_migration(&scenarios);
    outln!(
        "\n{}",
        timing(outcome.boot, outcome.duration, first_migration)
    )?;
    let well = outcome.exit.success() && unfit == 0 && missing.is_empty();
    Ok(Shown {
        passed: well && scenarios.iter().all(Scenario::passed),
        scenarios,
        duration: outcome.duration,
        first_migration,
    })
}

/// What a mode means to a program, by its name.
fn title(mode: &str) -> &str {
    let known = Mode::ALL.into_iter().find(|known| known.name() == mode);
    match known {
        Some(Mode::Private) => "Private memory: a page that the CPU touches comes back.",
        Some(Mode::Coherent) => "Coherent memory: the CPU reads and writes pages where they are.",
        Some(Mode::Numa) => {
            "A memory node: pages move to it as the device touches them, since the programs ask for that, and the \
             CPU reads and writes them there."
        }
        None => mode,
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
        "Booted in {:.1} s{first}, VM gone after {:.1} s",
        boot.as_secs_f64(),
        all.as_secs_f64()
    )
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax bench`: measures, and compares with what must be reached.
//!
//! Everything is measured in one run on one machine: the demonstration, the guest's own
//! measurements, the same work on the host, and the back end's memory.

mod busy;
mod fairness;
mod goals;
mod invalidate;
mod memory;
mod migrate;
mod programs;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use anyhow::{bail, Context, Result};
use serde::Deserialize;
use serde_json::{json, Value};

use super::{announce, create, demo, exit_code};
use crate::cli::{Bench, BenchPart};
use coax_images::images::Images;
use coax_images::job::{Job, Mode};
use coax_images::launch::{Outcome, Vm, VmConfig};
use coax_images::tool;
use coax_program::outln;
use coax_program::output::OutputError;
use memory::MemoryWatch;

/// Contexts at work while the back end's memory is looked at.
const CONTEXTS: u32 = 64;
/// The guest's `coax-demo bench` works on these sizes; the host has to do the same.
const HOST_ARGS: &[&str] = &[
    "--json",
    "--bytes",
    "64M",
    "--gemm-size",
    "1024",
    "--nodes",
    "524288",
    "--spread",
    "32M",
];

/// A measurement, as the guest tells it in one line of JSON.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    name: String,
    value: Value,
    #[serde(default)]
    unit: String,
}

/// Measurements by name.
pub type Measured = BTreeMap<String, f64>;

/// Measures what is asked for.
pub fn run(options: &Bench, install: bool) -> Result<ExitCode> {
    match &options.part {
        Some(BenchPart::Fairness(options)) => fairness::run(options, install),
        Some(BenchPart::Invalidate(options)) => invalidate::run(options, install),
        Some(BenchPart::Migrate(options)) => migrate::run(options, install),
        Some(BenchPart::Programs(options)) => programs::run(options, install),
        None => everything(options, install),
    }
}

/// Measures everything but what has a sub-command, and prints a line for each goal.
fn everything(options: &Bench, install: bool) -> Result<ExitCode> {
    let json = create(&options.json)?;
    let images = Images::build(options.kernel.ready(install)?, install)?;
    let machine = announce(&images, &images.translation.modes(&Mode::MOVING))?;

    let mut measured = Measured::new();
    measured.insert("cold_build".into(), images.build_seconds);
    demonstrate(&images, &mut measured)?;
    outln!("\nOn the host")?;
    on_the_host(&images, &mut measured)?;
    outln!("\nIn a guest")?;
    in_a_guest(&images, &mut measured)?;
    outln!("\n{CONTEXTS} contexts")?;
    many_contexts(&images, &mut measured)?;

    outln!("\nWhat must be reached")?;
    let judged = goals::judge(goals::GENERAL, &measured);
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

/// The demonstration in the modes in which the driver moves pages, one after the other.
fn demonstrate(images: &Images, measured: &mut Measured) -> Result<()> {
    let shown = demo::show(images, &images.translation.modes(&Mode::MOVING))?;
    if !shown.passed {
        bail!("The demonstration failed; its speed is worth nothing");
    }
    measured.insert("demo".into(), shown.duration.as_secs_f64());
    if let Some(first) = shown.first_migration {
        measured.insert("first_migration".into(), first.as_secs_f64());
    }
    Ok(())
}

/// The engine's work directly on host memory: the yardstick.
fn on_the_host(images: &Images, measured: &mut Measured) -> Result<()> {
    #[derive(Deserialize)]
    struct Report {
        results: BTreeMap<String, Rates>,
    }
    #[derive(Deserialize)]
    struct Rates {
        unit: String,
        host: f64,
    }
    let text = tool::output_of(Command::new(&images.engine_bench).args(HOST_ARGS))?;
    let report: Report =
        serde_json::from_str(&text).context("Cannot understand the measurements on the host")?;
    for (name, rates) in report.results {
        outln!("  {name:<32}{:>16.0} {}", rates.host, rates.unit)?;
        measured.insert(format!("host_{name}"), rates.host);
    }
    Ok(())
}

/// The guest's own measurements in private mode, where a fault always moves a page, or in coherent mode if the
/// IOMMU translates; faults also with both processors busy.
fn in_a_guest(images: &Images, measured: &mut Measured) -> Result<()> {
    const BOTH: &str = "coax-demo bench --json - && coax-demo bench --busy 2 --json -";
    let job = Job::new(["sh", "-c", BOTH]);
    let vm = Vm::start(images, &config(images), &job)?;
    succeeded(&vm.wait_watching(|line| {
        take(line, measured)?;
        Ok(None)
    })?)
}

/// The back end's memory while many contexts work.
fn many_contexts(images: &Images, measured: &mut Measured) -> Result<()> {
    let count = CONTEXTS.to_string();
    let job = Job::new(["coax-demo", "bench", "--contexts", &count, "--json", "-"]);
    let mut vm = Vm::start(images, &config(images), &job)?;
    let device = *vm.device_ids().first().context("The VM has no device")?;
    let watch = MemoryWatch::start(device)?;
    let outcome = vm.wait_watching(|line| {
        take(line, measured)?;
        Ok(None)
    })?;
    let most = watch.most_mib();
    succeeded(&outcome)?;
    let most = most.context("The back end's memory could not be read")?;
    outln!("  {:<32}{most:>16.2} MiB", "back_end_memory")?;
    measured.insert("back_end_memory".into(), most);
    Ok(())
}

fn config(images: &Images) -> VmConfig {
    let modes = images.translation.modes(&Mode::MOVING);
    VmConfig {
        mode: modes.first().copied().unwrap_or(Mode::Private),
        translation: images.translation,
        ..VmConfig::default()
    }
}

fn succeeded(outcome: &Outcome) -> Result<()> {
    if outcome.exit.success() {
        return Ok(());
    }
    bail!(
        "The guest's program: {}\n{}",
        outcome.exit,
        outcome.stderr_text().trim_end()
    )
}

/// Shows and keeps a measurement; other lines are left alone.
fn take(line: &str, measured: &mut Measured) -> Result<(), OutputError> {
    let Ok(line) = serde_json::from_str::<Line>(line) else {
        return Ok(());
    };
    let Some(value) = line.value.as_f64() else {
        return Ok(());
    };
    outln!("  {:<32}{value:>16.2} {}", line.name, line.unit)?;
    measured.insert(line.name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_kept_and_names_are_not() {
        let mut measured = Measured::new();
        for line in [
            r#"{"name":"nop_round_trip","value":12.5,"unit":"ns","n":3}"#,
            r#"{"name":"mode","value":"private","unit":"name"}"#,
            "no JSON",
        ] {
            take(line, &mut measured).expect("it can be shown");
        }
        assert_eq!(measured, Measured::from([("nop_round_trip".into(), 12.5)]));
    }
}

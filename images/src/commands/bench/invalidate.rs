// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax bench invalidate`: how long the device takes to give a translation up while it is at work.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{goals, succeeded, Line, Measured};
use crate::cli::Invalidate;
use crate::commands::{announce, create, exit_code, refuse};
use coax_images::images::Images;
use coax_images::job::{Job, Mode};
use coax_images::launch::{Vm, VmConfig};
use coax_program::outln;

/// Kinds of work that the guest knows, the first being none.
const WORKS: [&str; 5] = ["nothing", "fill", "list", "atomics", "gemm"];
/// A measurement takes a minute on a busy host.
const VM_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Before the numbers in the line that a back end writes at its end.
const DEVICE_MARK: &str = "invalidations answered: ";

/// Measures, prints what was measured with a line for each goal, and writes what is asked for.
pub fn run(options: &Invalidate, install: bool) -> Result<ExitCode> {
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
    outln!("Microseconds to give a translation up, while the device is at work")?;
    outln!(
        "  {:<10}{:>14}{:>14}{:>14}{:>14}",
        "work",
        "device p50",
        "device p99",
        "guest p50",
        "guest p99"
    )?;
    let mut measured = Measured::new();
    for work in WORKS {
        // A VM for each, so that what its back end counts is of this work alone.
        let mut lines = Vec::new();
        let job = Job::new(["coax-guest-tests", "invalidation", work]);
        let outcome = Vm::start(&images, &config, &job)?.wait_watching(|line| {
            lines.extend(serde_json::from_str::<Line>(line));
            Ok(None)
        })?;
        succeeded(&outcome)?;
        for line in lines {
            let name = line.name.replace("invalidation", "guest");
            if let Some(value) = line.value.as_f64() {
                measured.insert(format!("{work}_{name}"), value / 1000.0);
            }
        }
        let logs = outcome.evidence.back_ends.iter();
        if let Some([p50, p99]) = logs.filter_map(|back_end| of_device(&back_end.log)).next() {
            measured.insert(format!("{work}_device"), p50 / 1000.0);
            measured.insert(format!("{work}_device_p99"), p99 / 1000.0);
        }
        let cell = |name: &str| {
            let value = measured.get(&format!("{work}_{name}"));
            value.map_or("-".into(), |value| format!("{value:.1}"))
        };
        outln!(
            "  {work:<10}{:>14}{:>14}{:>14}{:>14}",
            cell("device"),
            cell("device_p99"),
            cell("guest"),
            cell("guest_p99")
        )?;
    }

    outln!("\nWhat must be reached")?;
    let judged = goals::judge(goals::INVALIDATE, &measured);
    judged.iter().try_for_each(|goal| outln!("  {goal}"))?;
    let passed = judged.iter().all(|goal| goal.passed);
    if let Some(file) = json {
        let report = json!({
            "verdict": if passed { "pass" } else { "fail" },
            "unit": "us",
            "goals": judged,
            "measured": measured,
        });
        file.json(&machine.report(report))?;
    }
    Ok(exit_code(passed))
}

/// Median and 99th percentile, in nanoseconds, as the back end has told them:
/// `invalidations answered: N, p50 A ns, p99 B ns, most C ns`.
fn of_device(log: &str) -> Option<[f64; 2]> {
    let mut lines = log.lines().rev();
    let numbers = lines.find_map(|line| Some(line.split_once(DEVICE_MARK)?.1))?;
    let number = |name: &str| -> Option<f64> {
        let mut parts = numbers.split(", ");
        let text = parts.find_map(|part| part.strip_prefix(name))?;
        text.trim().strip_suffix("ns")?.trim().parse().ok()
    };
    Some([number("p50")?, number("p99")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_has_told_is_read() {
        let log = "coax: listening\ncoax: invalidations answered: 1000, p50 2500 ns, p99 31000 ns, most 90000 ns\n";
        assert_eq!(of_device(log), Some([2500.0, 31000.0]));
        assert_eq!(of_device("coax: nothing\n"), None);
    }
}

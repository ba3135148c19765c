// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's benchmark on coax and on `test_hmm`, in turn, in one VM: whatever slows the host down
//! slows both down.

use std::time::Duration;

use anyhow::{bail, Result};

use super::speeds::{Samples, Speeds, Tables};
use coax_images::images::Images;
use coax_images::job::Job;
use coax_images::launch::{Bytes, Vm, VmConfig};
use coax_images::progress::Progress;

/// Announces whose results follow.
const MARK: &str = "@ ";
/// Names behind the mark.
const COAX: &str = "coax";
const TEST_HMM: &str = "test_hmm";
/// Sizes that the benchmark goes through, for the estimate.
const EXPECTED_TABLES: u64 = 7;
/// Longest life of the VM: a round takes a minute under TCG, several on a busy host.
const ROUND_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The benchmark works on 256 MiB, and on as much again to see what the device has read.
const MEMORY: Bytes = Bytes::gib(4);

/// What the guest does; the number of rounds is its argument.
const SCRIPT: &str = r#"
measure() {
	echo "@ $1"
	hmm-tests -r hmm.hmm_device_private.benchmark_thp_migration 2>&1
}
for round in $(seq "$1"); do
	insmod /lib/modules/coax.ko mode=0 hmm=1 || exit
	[ -c /dev/hmm_dmirror0 ] || { echo "coax.ko makes no /dev/hmm_dmirror0" >&2; exit 1; }
	measure coax || exit
	rmmod coax || exit
	insmod /lib/modules/test_hmm.ko || exit
	measure test_hmm || exit
	rmmod test_hmm || exit
done
"#;

/// Medians of both drivers: coax, then `test_hmm`.
///
/// # Errors
///
/// The VM did not end well, or a benchmark failed in it.
pub fn run(images: &Images, rounds: u32) -> Result<(Speeds, Speeds)> {
    let mut progress = Progress::start(&format!("The kernel's benchmark, {rounds} rounds"));
    let config = VmConfig {
        memory: MEMORY,
        device_memory: Bytes::gib(1),
        load_driver: false,
        timeout: Some(ROUND_LIMIT * rounds),
        ..VmConfig::default()
    };
    let job = Job::new(["sh", "-c", SCRIPT, "rounds", &rounds.to_string()]);
    let mut output = Output::default();
    let outcome = Vm::start(images, &config, &job)?.wait_watching(|line| {
        output.line(line);
        progress.update(output.lines_of_times / 2, rounds_tables(rounds));
        Ok(None)
    })?;
    progress.finish();
    if !outcome.exit.success() {
        bail!(
            "The kernel's benchmark: {}\n{}{}",
            outcome.exit,
            output.said.join("\n"),
            outcome.stderr_text()
        );
    }
    Ok((output.coax.medians(), output.test_hmm.medians()))
}

fn rounds_tables(rounds: u32) -> u64 {
    2 * EXPECTED_TABLES * u64::from(rounds)
}

/// Reads the guest's output.
#[derive(Debug, Default)]
struct Output {
    on_coax: bool,
    tables: Tables,
    coax: Samples,
    test_hmm: Samples,
    lines_of_times: u64,
    /// What the benchmark that is running said.
    said: Vec<String>,
}

impl Output {
    fn line(&mut self, line: &str) {
        if let Some(name @ (COAX | TEST_HMM)) = line.strip_prefix(MARK) {
            self.on_coax = name == COAX;
            self.said.clear();
            return;
        }
        self.said.push(line.to_owned());
        let samples = if self.on_coax {
            &mut self.coax
        } else {
            &mut self.test_hmm
        };
        if let Some(speeds) = self.tables.line(line) {
            self.lines_of_times += 1;
            for (case, speed) in speeds {
                samples.add(case, speed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::speeds::{Case, Direction};
    use super::*;

    #[test]
    fn results_go_to_the_driver_announced_before_them() {
        let mut output = Output::default();
        for line in [
            "@ coax",
            "=== Single THP Size (2.0 MB) ===",
            "Sys->Dev Migration   | 2.097152 ms        | 4.194304 ms        | 50.0%",
            "@ test_hmm",
            "=== Single THP Size (2.0 MB) ===",
            "Sys->Dev Migration   | 20.97152 ms        | 41.94304 ms        | 50.0%",
        ] {
            output.line(line);
        }
        let case = Case {
            bytes: 2 << 20,
            thp: true,
            direction: Direction::ToDevice,
        };
        assert!((output.coax.medians()[&case] - 1.0).abs() < 1e-9);
        assert!((output.test_hmm.medians()[&case] - 0.1).abs() < 1e-9);
        assert_eq!(output.lines_of_times, 2);
        assert_eq!(output.said.len(), 2);
    }

    #[test]
    fn the_script_announces_what_is_read() {
        assert!(SCRIPT.contains(&format!("echo \"{MARK}$1\"")));
        for name in [COAX, TEST_HMM] {
            assert!(SCRIPT.contains(&format!("measure {name} ")));
        }
    }
}

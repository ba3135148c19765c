// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Migration by the driver's own call, on one device and on several at once, and the speed of plain
//! copies on the host.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde::Deserialize;

use super::speeds::{Case, Direction, Speeds};
use coax_images::images::Images;
use coax_images::job::Job;
use coax_images::launch::{Bytes, Vm, VmConfig};
use coax_images::progress::Progress;
use coax_images::tool;

/// Sizes moved: those of the kernel's benchmark, and a gigabyte.
pub const SIZES: [u64; 8] = [
    512 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
    8 << 20,
    16 << 20,
    256 << 20,
    1 << 30,
];
/// Numbers of devices at work at once.
pub const DEVICES: [u32; 3] = [1, 2, 4];
/// Memory moved by each of them.
pub const BYTES_AT_ONCE: u64 = 256 << 20;
/// All memory that moves, with as much again.
const MEMORY: Bytes = Bytes::gib(4);
/// Twice the largest size, so that it finds large pages free.
const DEVICE_MEMORY: Bytes = Bytes::gib(2);
/// A gigabyte in small pages takes seconds each way under TCG, and more on a busy host.
const VM_LIMIT: Duration = Duration::from_secs(45 * 60);
/// Each size is moved with and without large pages, in both directions.
const LINES_A_SIZE: usize = 4;

/// What the guest measured.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// On one device.
    pub speeds: Speeds,
    /// On so many devices at once, all together.
    pub at_once: BTreeMap<(Case, u32), f64>,
}

/// Measures in a VM with as many devices as are ever at work.
///
/// # Errors
///
/// The VM did not end well, or not all memory moved.
pub fn run(images: &Images) -> Result<Own> {
    let mut progress = Progress::start("Migration by the driver's own call");
    let config = VmConfig {
        memory: MEMORY,
        devices: DEVICES.into_iter().max().unwrap_or(1),
        device_memory: DEVICE_MEMORY,
        timeout: Some(VM_LIMIT),
        ..VmConfig::default()
    };
    let mut own = Own::default();
    let mut done = 0;
    let total = (SIZES.len() + DEVICES.len()) * LINES_A_SIZE;
    let outcome =
        Vm::start(images, &config, &Job::new(["sh", "-c", &script()]))?.wait_watching(|line| {
            done += u64::from(own.line(line));
            progress.update(done, total as u64);
            Ok(None)
        })?;
    progress.finish();
    if !outcome.exit.success() {
        bail!("coax-demo: {}\n{}", outcome.exit, outcome.stderr_text());
    }
    Ok(own)
}

/// One run through the sizes, and one for each number of devices.
fn script() -> String {
    let sizes = SIZES.map(|bytes| bytes.to_string()).join(",");
    let mut script = format!("coax-demo bench --migrate-sizes {sizes}");
    for count in DEVICES {
        script += &format!(" && coax-demo bench --migrate-sizes {BYTES_AT_ONCE} --at-once {count}");
    }
    script
}

/// A measurement as the guest tells it.
#[derive(Deserialize)]
struct Line {
    bytes: u64,
    thp: bool,
    direction: Direction,
    devices: u32,
    value: f64,
}

impl Own {
    /// Takes a line, and says whether it was a measurement.
    fn line(&mut self, line: &str) -> bool {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            return false;
        };
        let case = Case {
            bytes: line.bytes,
            thp: line.thp,
            direction: line.direction,
        };
        // The last one with one device is that beside which those with more were measured.
        if self.speeds.contains_key(&case) || line.devices > 1 {
            self.at_once.insert((case, line.devices), line.value);
        } else {
            self.speeds.insert(case, line.value);
        }
        true
    }
}

/// Speeds of `memcpy` on the host, in GB (10⁹ bytes) a second.
///
/// # Errors
///
/// The program that measures fails.
pub fn on_the_host(images: &Images) -> Result<BTreeMap<u64, f64>> {
    #[derive(Deserialize)]
    struct Report {
        results: BTreeMap<String, Rates>,
    }
    #[derive(Deserialize)]
    struct Rates {
        host: f64,
    }
    let mut progress = Progress::start("Copies on the host");
    let mut speeds = BTreeMap::new();
    for (done, bytes) in SIZES.into_iter().enumerate() {
        progress.update(done as u64, SIZES.len() as u64);
        let mut bench = Command::new(&images.engine_bench);
        bench.args(["--json", "--only", "copy", "--bytes", &bytes.to_string()]);
        let report: Report = serde_json::from_str(&tool::output_of(&mut bench)?)
            .context("Cannot understand the measurements on the host")?;
        let rates = report.results.get("copy");
        let rates = rates.context("The host's copies were not measured")?;
        speeds.insert(bytes, rates.host / 1e9);
    }
    progress.finish();
    Ok(speeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_is_measured_for_itself_and_beside_several() {
        let mut own = Own::default();
        let line = |devices: u32, value: f64| {
            format!(
                r#"{{"name":"migrate_sizes","bytes":268435456,"thp":true,"devices":{devices},
                "direction":"to_system","value":{value},"unit":"GB/s","n":5}}"#
            )
        };
        assert!(own.line(&line(1, 1.0)));
        assert!(own.line(&line(1, 1.5)));
        assert!(own.line(&line(2, 2.0)));
        assert!(!own.line("no JSON"));
        let case = Case {
            bytes: 256 << 20,
            thp: true,
            direction: Direction::ToSystem,
        };
        assert_eq!(own.speeds, Speeds::from([(case, 1.0)]));
        let at_once = BTreeMap::from([((case, 1), 1.5), ((case, 2), 2.0)]);
        assert_eq!(own.at_once, at_once);
    }

    #[test]
    fn the_guest_is_asked_for_every_size_and_number_of_devices() {
        let script = script();
        assert!(script.starts_with("coax-demo bench --migrate-sizes 524288,"));
        assert!(script.contains(",1073741824 &&"));
        assert!(script.ends_with("--migrate-sizes 268435456 --at-once 4"));
        assert!(SIZES.contains(&BYTES_AT_ONCE));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Has the kernel look for memory that the driver lost, where the kernel can.
//!
//! kmemleak takes an allocation for lost when no pointer to it is left in the kernel's memory,
//! and tells where it was made.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use coax_program::errln;

/// kmemleak's file.
const FILE: &str = "/sys/kernel/debug/kmemleak";
/// A younger allocation may have its only pointer in a register: kmemleak leaves it out for 5 s
/// (`MSECS_MIN_AGE` in `mm/kmemleak.c`).
const MIN_AGE: Duration = Duration::from_secs(6);
/// What changed since the scan before is not taken for lost, and the first scan has none before.
const SCANS: usize = 2;
/// Reports shown; one loss often comes a hundred times.
const SHOWN: usize = 5;

/// Tells the host of memory that the driver lost, in words that it takes for a bug. Call it both
/// while the driver is loaded, when its functions have names, and afterwards, when what only its
/// own variables pointed to is lost too.
pub fn report() {
    // Only debug kernels have it.
    if !fs::exists(FILE).unwrap_or(false) {
        return;
    }
    match find() {
        Ok(lost) => {
            if !lost.is_empty() {
                errln!(
                    "coax-init: BUG: the driver lost memory {} times",
                    lost.len()
                );
            }
            for report in lost.iter().take(SHOWN) {
                errln!("{report}");
            }
        }
        Err(error) => errln!("coax-init: BUG: cannot look for leaks: {error:#}"),
    }
}

fn find() -> Result<Vec<String>> {
    thread::sleep(MIN_AGE);
    for _ in 0..SCANS {
        fs::write(FILE, "scan").context("Cannot scan memory")?;
    }
    let text = fs::read(FILE).context("Cannot read the reports")?;
    // Each is reported once.
    fs::write(FILE, "clear").context("Cannot clear the reports")?;
    Ok(of_driver(&String::from_utf8_lossy(&text)))
}

/// The reports on allocations that the driver made.
fn of_driver(text: &str) -> Vec<String> {
    let mut reports: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("unreferenced object") {
            reports.push(String::new());
        }
        if let Some(report) = reports.last_mut() {
            report.push_str(line);
            report.push('\n');
        }
    }
    reports.retain(|report| {
        let mut calls = report
            .lines()
            .skip_while(|line| !line.trim_start().starts_with("backtrace"));
        // A function without a name is one of a module that is gone.
        calls.any(|line| line.contains("[coax]") || line.trim_start().starts_with("0x"))
    });
    reports
}

#[cfg(test)]
mod tests {
    use super::of_driver;

    const REPORTS: &str = "\
unreferenced object 0xffff888004d3c000 (size 64):
  comm \"coax-guest-test\", pid 71, jiffies 4294899131
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 7a1c):
    __kmalloc_noprof+0x2a1/0x3c0
    acpi_ns_internalize_name+0x4d/0xa0
unreferenced object 0xffff888004d3c100 (size 96):
  comm \"init\", pid 1, jiffies 4294899132
  backtrace (crc 0):
    __kmalloc_noprof+0x2a1/0x3c0
    coax_probe+0x4d/0xa0 [coax]
unreferenced object 0xffff888004d3c200 (size 96):
  comm \"init\", pid 1, jiffies 4294899133
  backtrace (crc 0):
    __kmalloc_noprof+0x2a1/0x3c0
    0xffffffffa000104d
  ... and 3 more object(s) with the same backtrace
";

    #[test]
    fn reports_count_by_where_the_memory_came_from() {
        let lost = of_driver(REPORTS);
        assert_eq!(lost.len(), 2);
        assert!(lost[0].contains("c100") && lost[0].ends_with("[coax]\n"));
        assert!(lost[1].contains("c200") && lost[1].contains("3 more"));
    }

    #[test]
    fn no_reports_are_no_loss() {
        assert!(of_driver("").is_empty());
    }
}

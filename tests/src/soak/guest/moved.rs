// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many pages have moved so far, while a storm has not reported yet.
#![forbid(unsafe_code)]

use std::fs;

use anyhow::{Context, Result};
use coax_abi::uapi;

/// Counts moved pages, in both directions.
pub enum Moved {
    /// The driver moves them, and counts.
    Driver(coax::Context),
    /// The kernel does, and counts.
    Kernel,
}

impl Moved {
    /// For the mode that the driver is in.
    pub fn new() -> Result<Self> {
        let context = coax::Context::open().context("Opening the device")?;
        let info = context.info().context("Asking the device")?;
        Ok(if info.mode == uapi::MODE_NUMA {
            Moved::Kernel
        } else {
            Moved::Driver(context)
        })
    }

    /// Pages that have moved since the start of the guest.
    pub fn pages(&self) -> Result<u64> {
        match self {
            Moved::Driver(context) => {
                let stats = context.stats().context("Counters of the driver")?;
                Ok(stats.to_device_request
                    + stats.to_device_fault
                    + stats.to_system_request
                    + stats.to_system_fault
                    + stats.to_system_evict)
            }
            Moved::Kernel => {
                let text = fs::read_to_string("/proc/vmstat").context("Reading /proc/vmstat")?;
                migrated(&text).context("No pgmigrate_success in /proc/vmstat")
            }
        }
    }
}

fn migrated(vmstat: &str) -> Option<u64> {
    let count = |line: &str| line.strip_prefix("pgmigrate_success ")?.parse().ok();
    vmstat.lines().find_map(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counter_is_found() {
        let text = "nr_free_pages 5\npgmigrate_success 77\npgmigrate_fail 3\n";
        assert_eq!(migrated(text), Some(77));
        assert_eq!(migrated("pgmigrate_fail 3\n"), None);
    }
}

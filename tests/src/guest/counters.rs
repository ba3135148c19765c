// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters that no call of the driver gives.

use anyhow::{Context as _, Result};

use crate::case::Skip;

/// A counter of the first device's driver.
pub fn of_driver(name: &str) -> Result<u64> {
    const STATS: &str = "/sys/kernel/debug/coax/coax0/stats";
    let Ok(text) = std::fs::read_to_string(STATS) else {
        return Err(Skip("debugfs is not mounted".into()).into());
    };
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.with_context(|| format!("No {name} in {STATS}"))?;
    value
        .trim()
        .parse()
        .with_context(|| format!("{name}: {value}"))
}

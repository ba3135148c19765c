// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Measurements of `coax bench` that take what cases are made of; their guest halves. Each measurement is a
//! line of JSON on standard output.
#![forbid(unsafe_code)]

pub mod fairness;
pub mod invalidation;

use std::time::Duration;

use coax_program::outln;
use coax_program::output::OutputError;
use serde_json::json;

/// Tells times, with the median as the value.
fn tell(name: &str, times: &mut [Duration]) -> Result<(), OutputError> {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100);
        let time = times.get(rank.saturating_sub(1));
        time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    };
    for (name, percent) in [(name.to_owned(), 50), (format!("{name}_p99"), 99)] {
        let line = json!({
            "name": name,
            "value": at(percent),
            "unit": "ns",
            "n": times.len(),
        });
        outln!("{line}")?;
    }
    Ok(())
}

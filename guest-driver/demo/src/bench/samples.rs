// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Repeated measurements and what is told of them.
#![forbid(unsafe_code)]

use std::time::Instant;

use serde_json::{json, Value};

/// Values of one measurement.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The JSON line, with the median as the value.
    pub fn summary(&self, name: &str, unit: &str) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| percentile(&sorted, percent);
        json!({
            "name": name,
            "value": at(50),
            "unit": unit,
            "n": sorted.len(),
            "p50": at(50),
            "p90": at(90),
            "p99": at(99),
        })
    }
}

/// The value below which the given share of sorted values lies (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Time that a call takes.
pub fn nanoseconds<T, E>(call: impl FnOnce() -> Result<T, E>) -> Result<f64, E> {
    let started = Instant::now();
    call()?;
    Ok(started.elapsed().as_nanos() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 50), Some(5.0));
        assert_eq!(percentile(&sorted, 90), Some(9.0));
        assert_eq!(percentile(&sorted, 99), Some(10.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn order_of_samples_does_not_matter() {
        let samples = Samples(vec![3.0, 1.0, 2.0]);
        assert_eq!(samples.summary("x", "ns")["value"], 2.0);
        assert_eq!(samples.summary("x", "ns")["n"], 3);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long something takes, as counts by length: cheap enough to be kept all the time.
//!
//! Lengths are told apart to an eighth: eight buckets for each power of two nanoseconds.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets of a power of two.
const PARTS: u64 = 8;
/// Up to 2⁴⁰ ns, a quarter of an hour; what takes longer counts as that.
const BUCKETS: usize = 40 * PARTS as usize;

/// Counts of times.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    most: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            most: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Counts a time.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.most.fetch_max(nanos, Relaxed);
    }

    /// The longest of so many percent of the times, in nanoseconds and rounded up to what is told apart.
    fn percentile(&self, percent: u64) -> u64 {
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        let all: u64 = counts.clone().sum();
        let wanted = (all * percent).div_ceil(100);
        let mut sum = 0;
        for (bucket, count) in counts.enumerate() {
            sum += count;
            if sum >= wanted {
                return longest(bucket).min(self.most.load(Relaxed));
            }
        }
        0
    }
}

/// The bucket of a time: below eight nanoseconds one each, then eight to a power of two.
fn bucket(nanos: u64) -> usize {
    if nanos < PARTS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - PARTS.ilog2();
    let part = (nanos >> shift) - PARTS;
    let bucket = u64::from(shift + 1) * PARTS + part;
    (bucket as usize).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn longest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let (shift, part) = (bucket / PARTS - 1, bucket % PARTS);
    ((PARTS + part + 1) << shift) - 1
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.buckets.iter().map(|count| count.load(Relaxed)).sum();
        write!(
            f,
            "{all}, p50 {} ns, p99 {} ns, most {} ns",
            self.percentile(50),
            self.percentile(99),
            self.most.load(Relaxed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_that_ends_with_it_or_later() {
        let mut last = 0;
        for nanos in (0..5000).chain([1 << 20, (1 << 20) + 1, u64::from(u32::MAX)]) {
            let at = bucket(nanos);
            assert!(at >= last, "{nanos}");
            assert!(longest(at) >= nanos, "{nanos}");
            assert!(longest(at) <= nanos + nanos / 8, "{nanos}");
            last = at;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_of_all_that_was_counted() {
        let latency = Latency::default();
        assert_eq!(latency.to_string(), "0, p50 0 ns, p99 0 ns, most 0 ns");
        for nanos in 1..=100 {
            latency.record(Duration::from_nanos(nanos * 1000));
        }
        let near = |percent, nanos: u64| {
            let got = latency.percentile(percent);
            assert!(
                (nanos..=nanos + nanos / 8).contains(&got),
                "{percent}: {got}"
            );
        };
        near(50, 50_000);
        near(99, 99_000);
        assert!(latency.to_string().ends_with("most 100000 ns"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters that the guest reads with `CONTROL_STATS`.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use coax_abi::wire::DeviceStats;

use crate::latency::Latency;
use crate::resolve::ResponseCode;
use crate::sync::lock;

/// Fault times kept for the median.
const FAULT_SAMPLES: usize = 1024;

/// One counter; it only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters of a device; the fields are those of [`DeviceStats`].
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is documented in `DeviceStats`")]
pub struct Stats {
    pub commands: Counter,
    pub commands_failed: Counter,
    pub commands_parked: Counter,
    pub translation_requests: Counter,
    pub page_requests: Counter,
    pub responses_success: Counter,
    pub responses_invalid: Counter,
    pub responses_failure: Counter,
    pub invalidations: Counter,
    pub atc_hits: Counter,
    pub atc_misses: Counter,
    pub atc_evictions: Counter,
    pub system_bytes: Counter,
    pub device_bytes: Counter,
    pub copied_bytes: Counter,
    pub guest_errors: Counter,
    pub requests_deferred: Counter,
    pub engine_ns: Counter,
    /// From an invalidation to its answer; no counter of the wire.
    pub invalidation_times: Latency,
    fault_times: Mutex<FaultTimes>,
}

/// Ring of the last fault times in nanoseconds.
#[derive(Debug, Default)]
struct FaultTimes {
    samples: Vec<u64>,
    next: usize,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Stats {
    /// Does something for a command, and counts its time as an engine's work.
    pub fn at_work<R>(&self, work: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = work();
        self.engine_ns.add(nanoseconds(begin.elapsed()));
        result
    }

    /// Records the time from a page request to the command's resumption.
    pub fn record_fault(&self, time: Duration) {
        let nanos = nanoseconds(time);
        let mut times = lock(&self.fault_times);
        if times.samples.len() < FAULT_SAMPLES {
            times.samples.push(nanos);
        } else {
            let at = times.next;
            times.samples[at] = nanos;
            times.next = (at + 1) % FAULT_SAMPLES;
        }
    }

    /// Counts a request that was answered, if pages were requested for it.
    pub fn count_response(&self, code: Option<ResponseCode>) {
        let Some(code) = code else {
            return;
        };
        self.page_requests.bump();
        match code {
            ResponseCode::Success => self.responses_success.bump(),
            ResponseCode::InvalidRequest => self.responses_invalid.bump(),
            ResponseCode::ResponseFailure => self.responses_failure.bump(),
        }
    }

    /// All counters in the form of the wire.
    pub fn snapshot(&self) -> DeviceStats {
        DeviceStats {
            commands: self.commands.get().into(),
            commands_failed: self.commands_failed.get().into(),
            commands_parked: self.commands_parked.get().into(),
            translation_requests: self.translation_requests.get().into(),
            page_requests: self.page_requests.get().into(),
            responses_success: self.responses_success.get().into(),
            responses_invalid: self.responses_invalid.get().into(),
            responses_failure: self.responses_failure.get().into(),
            invalidations: self.invalidations.get().into(),
            atc_hits: self.atc_hits.get().into(),
            atc_misses: self.atc_misses.get().into(),
            atc_evictions: self.atc_evictions.get().into(),
            system_bytes: self.system_bytes.get().into(),
            device_bytes: self.device_bytes.get().into(),
            copied_bytes: self.copied_bytes.get().into(),
            guest_errors: self.guest_errors.get().into(),
            fault_median_ns: self.fault_median_ns().into(),
            requests_deferred: self.requests_deferred.get().into(),
            engine_ns: self.engine_ns.get().into(),
        }
    }

    /// Median of the recorded fault times, 0 without any.
    fn fault_median_ns(&self) -> u64 {
        let mut samples = lock(&self.fault_times).samples.clone();
        let middle = samples.len() / 2;
        if samples.is_empty() {
            return 0;
        }
        *samples.select_nth_unstable(middle).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_covers_the_last_samples_only() {
        let stats = Stats::default();
        assert_eq!(stats.fault_median_ns(), 0);
        for _ in 0..FAULT_SAMPLES {
            stats.record_fault(Duration::from_nanos(1));
        }
        assert_eq!(stats.fault_median_ns(), 1);
        for _ in 0..FAULT_SAMPLES {
            stats.record_fault(Duration::from_nanos(7));
        }
        assert_eq!(stats.fault_median_ns(), 7);
    }
}

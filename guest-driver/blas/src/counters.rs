// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What became of the calls, counted as they end.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::outcome::{Outcome, Reason};
use crate::routine::Routine;

const REASONS: usize = Reason::ALL.len();

/// Counters of one routine.
struct Counters {
    /// Calls that the device did, or began.
    offloaded: AtomicU64,
    /// Those that the CPU finished, by the reason.
    finished: [AtomicU64; REASONS],
    /// Calls of the CPU, by the reason.
    on_cpu: [AtomicU64; REASONS],
    /// Nanoseconds of the calls that were offloaded.
    nanoseconds: AtomicU64,
}

static COUNTERS: [Counters; Routine::COUNT] = [const {
    Counters {
        offloaded: AtomicU64::new(0),
        finished: [const { AtomicU64::new(0) }; REASONS],
        on_cpu: [const { AtomicU64::new(0) }; REASONS],
        nanoseconds: AtomicU64::new(0),
    }
}; Routine::COUNT];

/// Counts a call that the CPU did.
pub fn on_cpu(routine: Routine, reason: Reason) {
    COUNTERS[routine as usize].on_cpu[reason as usize].fetch_add(1, Relaxed);
}

/// Counts a call that went to the device.
pub fn offloaded(routine: Routine, outcome: &Outcome, seconds: f64) {
    let counters = &COUNTERS[routine as usize];
    match outcome.failure {
        // The device did nothing of it.
        Some(reason) if outcome.on_device == 0 => return on_cpu(routine, reason),
        Some(reason) => {
            counters.finished[reason as usize].fetch_add(1, Relaxed);
        }
        None => {}
    }
    counters.offloaded.fetch_add(1, Relaxed);
    counters
        .nanoseconds
        .fetch_add((seconds * 1e9) as u64, Relaxed);
}

/// Sets all counters to zero: a child of `fork` begins to count.
pub fn reset() {
    for counters in &COUNTERS {
        counters.offloaded.store(0, Relaxed);
        counters.nanoseconds.store(0, Relaxed);
        for counter in counters.finished.iter().chain(&counters.on_cpu) {
            counter.store(0, Relaxed);
        }
    }
}

/// Counts with their names, of those that are not zero.
pub type Counts = Vec<(&'static str, u64)>;

/// Calls that the device did, or began, by routine.
pub fn by_routine() -> Counts {
    let all = Routine::ALL.iter().zip(&COUNTERS);
    all.map(|(routine, counters)| (routine.name(), counters.offloaded.load(Relaxed)))
        .filter(|&(_, count)| count != 0)
        .collect()
}

/// Those of them that the CPU finished, by the reason.
pub fn finished_by_cpu() -> Counts {
    by_reason(|counters| &counters.finished)
}

/// Calls of the CPU, by the reason.
pub fn left_to_cpu() -> Counts {
    by_reason(|counters| &counters.on_cpu)
}

/// Seconds of the calls that were offloaded.
pub fn seconds() -> f64 {
    let sum: u64 = COUNTERS
        .iter()
        .map(|counters| counters.nanoseconds.load(Relaxed))
        .sum();
    sum as f64 / 1e9
}

fn by_reason(select: impl Fn(&'static Counters) -> &'static [AtomicU64; REASONS]) -> Counts {
    let sum = |reason: Reason| -> u64 {
        let counters = COUNTERS.iter().map(&select);
        counters
            .map(|array| array[reason as usize].load(Relaxed))
            .sum()
    };
    let all = Reason::ALL.iter();
    all.map(|&reason| (reason.name(), sum(reason)))
        .filter(|&(_, count)| count != 0)
        .collect()
}

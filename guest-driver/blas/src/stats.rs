// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What became of the calls, counted as they end and reported when the process does.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::message;
use crate::model::Model;
use crate::outcome::{Outcome, Reason};
use crate::rates;
use crate::session::{self, Session};
use crate::settings::{settings, Report};

/// A function that calls are counted of, under either of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routine {
    Sgemm,
    Ssyrk,
    Ssymm,
    Strsm,
    Sgemv,
    Sdot,
    Dgemm,
    Dsyrk,
    Dsymm,
    Dtrsm,
    Dgemv,
    Ddot,
}

/// An operation of level 3, of either precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gemm,
    Syrk,
    Symm,
    Trsm,
}

/// A precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Single,
    Double,
}

impl Routine {
    /// Routines that there are.
    pub const COUNT: usize = ROUTINES.len();

    /// What it does, if that is of level 3.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Routine::Sgemm | Routine::Dgemm => Some(Kind::Gemm),
            Routine::Ssyrk | Routine::Dsyrk => Some(Kind::Syrk),
            Routine::Ssymm | Routine::Dsymm => Some(Kind::Symm),
            Routine::Strsm | Routine::Dtrsm => Some(Kind::Trsm),
            _ => None,
        }
    }

    /// What on.
    pub fn precision(self) -> Precision {
        match self {
            Routine::Sgemm | Routine::Ssyrk | Routine::Ssymm | Routine::Strsm => Precision::Single,
            Routine::Sgemv | Routine::Sdot => Precision::Single,
            _ => Precision::Double,
        }
    }
}

/// All of them, in the order of their numbers.
const ALL: [Routine; ROUTINES.len()] = [
    Routine::Sgemm,
    Routine::Ssyrk,
    Routine::Ssymm,
    Routine::Strsm,
    Routine::Sgemv,
    Routine::Sdot,
    Routine::Dgemm,
    Routine::Dsyrk,
    Routine::Dsymm,
    Routine::Dtrsm,
    Routine::Dgemv,
    Routine::Ddot,
];

/// Names in the order of [`Routine`].
const ROUTINES: [&str; 12] = [
    "sgemm", "ssyrk", "ssymm", "strsm", "sgemv", "sdot", "dgemm", "dsyrk", "dsymm", "dtrsm",
    "dgemv", "ddot",
];
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

static COUNTERS: [Counters; ROUTINES.len()] = [const {
    Counters {
        offloaded: AtomicU64::new(0),
        finished: [const { AtomicU64::new(0) }; REASONS],
        on_cpu: [const { AtomicU64::new(0) }; REASONS],
        nanoseconds: AtomicU64::new(0),
    }
}; ROUTINES.len()];

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

/// Sums of an array of counters over all routines, with the names of those that are not zero.
fn by_reason(
    select: impl Fn(&'static Counters) -> &'static [AtomicU64; REASONS],
) -> Vec<(&'static str, u64)> {
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

fn sum(counts: &[(&str, u64)]) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

/// Counts with their names, as they stand in a sentence.
fn listed(counts: &[(&str, u64)]) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(" ({})", parts.join(", "))
}

/// The same as members of a JSON object.
fn members(counts: &[(&str, u64)]) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("\"{name}\":{count}"))
        .collect();
    parts.join(",")
}

/// The report as one line of text.
fn line() -> String {
    let offloaded = per_routine(|counters| counters.offloaded.load(Relaxed));
    let finished = by_reason(|counters| &counters.finished);
    let on_cpu = by_reason(|counters| &counters.on_cpu);
    let mut line = format!(
        "process {}: {} calls offloaded{} in {:.3} s, {} of them finished by the CPU{}; \
         {} calls on the CPU{}",
        std::process::id(),
        sum(&offloaded),
        listed(&offloaded),
        seconds(),
        sum(&finished),
        listed(&finished),
        sum(&on_cpu),
        listed(&on_cpu),
    );
    if let Some((pages, requests)) = session::traffic() {
        let _ = write!(
            line,
            "; {pages} pages moved to the device, {requests} page requests"
        );
    }
    line
}

/// The report as one line of JSON.
fn json() -> String {
    let offloaded = per_routine(|counters| counters.offloaded.load(Relaxed));
    let finished = by_reason(|counters| &counters.finished);
    let on_cpu = by_reason(|counters| &counters.on_cpu);
    let mut json = format!(
        "{{\"pid\":{},\"offloaded\":{},\"offloaded_seconds\":{:.6},\"routines\":{{{}}},\
         \"finished_by_cpu\":{{{}}},\"on_cpu\":{{{}}}",
        std::process::id(),
        sum(&offloaded),
        seconds(),
        members(&offloaded),
        members(&finished),
        members(&on_cpu),
    );
    if let Some((pages, requests)) = session::traffic() {
        let _ = write!(
            json,
            ",\"pages_to_device\":{pages},\"page_requests\":{requests}"
        );
    }
    for (name, model) in ["single", "double"].iter().zip(Session::known_models()) {
        if let Some(model) = model {
            let Model {
                device_flop,
                touch,
                page,
                back,
                command,
            } = model;
            let _ = write!(
                json,
                ",\"measured_{name}\":{{\"device_flop_s\":{device_flop:e},\"touch_s\":{touch:e},\"page_s\":{page:e},\"back_s\":{back:e},\
                 \"command_s\":{command:e}}}"
            );
        }
    }
    let fastest: Vec<String> = ROUTINES
        .iter()
        .zip(ALL)
        .filter_map(|(name, routine)| Some((name, rates::fastest(routine)?)))
        .map(|(name, flop)| format!("\"{name}\":{flop:e}"))
        .collect();
    let _ = write!(json, ",\"cpu_flop_s\":{{{}}}", fastest.join(","));
    json.push('}');
    json
}

fn per_routine(count: impl Fn(&Counters) -> u64) -> Vec<(&'static str, u64)> {
    let all = ROUTINES.iter().zip(&COUNTERS);
    all.map(|(&name, counters)| (name, count(counters)))
        .filter(|&(_, count)| count != 0)
        .collect()
}

fn seconds() -> f64 {
    let sum: u64 = COUNTERS
        .iter()
        .map(|counters| counters.nanoseconds.load(Relaxed))
        .sum();
    sum as f64 / 1e9
}

/// Reports as the settings say. A report that cannot be made ends nothing.
pub extern "C" fn report() {
    match &settings().report {
        Report::None => {}
        Report::Line => message::say(format_args!("{}", line())),
        Report::Json(path) => {
            // One write, so that lines of several processes do not mix.
            let text = format!("{}\n", json());
            let file = OpenOptions::new().append(true).create(true).open(path);
            let written = file
                .and_then(|mut file| message::without_sigpipe(|| file.write_all(text.as_bytes())));
            if let Err(error) = written {
                message::say(format_args!("cannot write {}: {error}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, because the counters are the process's.
    #[test]
    fn calls_are_counted_by_who_did_them_and_why() {
        reset();
        on_cpu(Routine::Sgemm, Reason::Small);
        on_cpu(Routine::Dgemm, Reason::Small);
        let done = Outcome {
            on_device: 2,
            failure: None,
        };
        offloaded(Routine::Dgemm, &done, 0.5);
        let half = Outcome {
            on_device: 1,
            failure: Some(Reason::Fault),
        };
        offloaded(Routine::Dtrsm, &half, 0.25);
        let refused = Outcome {
            on_device: 0,
            failure: Some(Reason::Busy),
        };
        offloaded(Routine::Dtrsm, &refused, 0.25);

        let line = line();
        let expected =
            "2 calls offloaded (dgemm 1, dtrsm 1) in 0.750 s, 1 of them finished by the \
                        CPU (fault 1); 3 calls on the CPU (small 2, busy 1)";
        assert!(line.ends_with(expected), "{line}");
        let json = json();
        let expected = "\"offloaded\":2,\"offloaded_seconds\":0.750000,\
                        \"routines\":{\"dgemm\":1,\"dtrsm\":1},\"finished_by_cpu\":{\"fault\":1},\
                        \"on_cpu\":{\"small\":2,\"busy\":1}";
        assert!(json.contains(expected), "{json}");
        reset();
        assert!(super::json().contains("\"offloaded\":0"));
    }
}

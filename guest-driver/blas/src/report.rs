// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What became of the calls, reported when the process ends.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::counters;
use crate::message;
use crate::model::Model;
use crate::rates;
use crate::routine::Routine;
use crate::session;
use crate::settings::{settings, Report};
use crate::why;

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
    let offloaded = counters::by_routine();
    let finished = counters::finished_by_cpu();
    let on_cpu = counters::left_to_cpu();
    let mut line = format!(
        "process {}: {} calls offloaded{} in {:.3} s, {} of them finished by the CPU{}; \
         {} calls on the CPU{}",
        std::process::id(),
        sum(&offloaded),
        listed(&offloaded),
        counters::seconds(),
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
    let offloaded = counters::by_routine();
    let finished = counters::finished_by_cpu();
    let on_cpu = counters::left_to_cpu();
    let mut json = format!(
        "{{\"pid\":{},\"offloaded\":{},\"offloaded_seconds\":{:.6},\"routines\":{{{}}},\
         \"finished_by_cpu\":{{{}}},\"on_cpu\":{{{}}}",
        std::process::id(),
        sum(&offloaded),
        counters::seconds(),
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
    for (name, model) in ["single", "double"].iter().zip(session::known_models()) {
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
    let fastest: Vec<String> = Routine::ALL
        .iter()
        .filter_map(|&routine| Some((routine.name(), rates::fastest(routine)?)))
        .map(|(name, flop)| format!("\"{name}\":{flop:e}"))
        .collect();
    let _ = write!(json, ",\"cpu_flop_s\":{{{}}}", fastest.join(","));
    json.push('}');
    json
}

/// Reports as the settings say. A report that cannot be made ends nothing.
pub extern "C" fn report() {
    why::tell_of_small();
    match &settings().report {
        Report::None => {}
        Report::Line => message::say(format_args!("{}", line())),
        Report::Json(path) => message::append(path, json()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::{offloaded, on_cpu, reset};
    use crate::outcome::{Outcome, Reason};

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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page faults of the device, one page at a time.
#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::Result;
use coax::abi::wire::PAGE_SIZE;
use coax::{Context, Policy};
use serde_json::json;

use super::samples::{nanoseconds, Samples};
use crate::output::Output;

/// Pages faulted in each measurement: more than the 1024 faults of which the device keeps the
/// median, so that no fault of an earlier measurement is in it.
const PAGES: usize = 1200;
/// Bytes that the device writes on each page.
const BYTES: usize = 8;

/// Whether the CPU wrote the pages before the device does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nobody did: there is nothing to copy.
    Untouched,
    /// It did: the page moves with its content.
    Written,
}

/// What is measured: its name, and how.
const ALL: [(&str, Policy, Before); 3] = [
    (
        "fault_on_fault_untouched",
        Policy::OnFault,
        Before::Untouched,
    ),
    ("fault_on_fault_written", Policy::OnFault, Before::Written),
    (
        "fault_on_request_untouched",
        Policy::OnRequest,
        Before::Untouched,
    ),
];

/// Measures faults under each policy; `prefix` is what the measurements' names begin with.
pub fn run(device: &Path, prefix: &str, output: &mut Output) -> Result<()> {
    for (name, policy, before) in ALL {
        measure(device, output, &format!("{prefix}{name}"), policy, before)?;
    }
    Ok(())
}

fn measure(
    device: &Path,
    output: &mut Output,
    name: &str,
    policy: Policy,
    before: Before,
) -> Result<()> {
    let context = Context::open_path(device)?;
    context.set_policy(policy, Some(1))?;
    let page = PAGE_SIZE as usize;
    // Zeroed memory of this size is mapped anew, untouched.
    let mut memory = vec![0u8; (PAGES + 1) * page];
    if before == Before::Written {
        memory.fill(1);
    }
    let start = page - memory.as_ptr().addr() % page;
    let mut samples = Samples::default();
    for number in 0..PAGES {
        let place = &mut memory[start + number * page..][..BYTES];
        // The first page may have been touched by the allocator or reach beyond the memory.
        samples.add(nanoseconds(|| context.fill(place, number as u64))?);
    }
    let stats = context.stats()?;
    let requests = stats.context_page_requests;
    // A driver may answer translation requests so well that no page request is needed.
    if requests > 0 {
        output.line(&json!({
            "name": format!("{name}_device"),
            "value": stats.device().fault_median_ns.get(),
            "unit": "ns",
            "n": requests,
            "p50": stats.device().fault_median_ns.get(),
            "to_device": stats.context_to_device,
        }))?;
    }
    output.line(&samples.summary(&format!("{name}_command"), "ns"))
}

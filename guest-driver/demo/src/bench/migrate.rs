// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moving pages by ioctl, and pages that come back because the CPU touches them.
#![forbid(unsafe_code)]

use std::time::Instant;

use anyhow::{ensure, Result};
use coax::abi::wire::PAGE_SIZE;
use coax::{Context, PageRange, MODE_PRIVATE};
use serde_json::json;

use super::samples::Samples;
use crate::output::Output;
use crate::scenario::touch;

/// Memory that is moved.
const BYTES: usize = 64 << 20;
/// Times that it is moved each way.
const ROUNDS: usize = 7;
/// Pages that the CPU takes back.
const FAULTS: usize = 2048;

/// Measures both.
pub fn run(context: &Context, output: &mut Output) -> Result<()> {
    let memory = vec![1u8; BYTES];
    let range = PageRange::of(&memory);
    let mut to_device = Samples::default();
    let mut to_system = Samples::default();
    let mut moved = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let there = context.prefetch(range)?.moved;
        to_device.add(rate(there, started));
        let started = Instant::now();
        let back = context.evict(range)?.moved;
        to_system.add(rate(back, started));
        ensure!(there > 0 && back > 0, "no page of {range} moved");
        moved.push(there.min(back));
    }
    let pages = moved.into_iter().min();
    for (name, samples) in [
        ("migrate_to_device", to_device),
        ("migrate_to_system", to_system),
    ] {
        let mut line = samples.summary(name, "GB/s");
        line["pages"] = json!(pages);
        output.line(&line)?;
    }
    if context.info()?.mode == MODE_PRIVATE {
        output.line(&fault_back(
            context,
            &memory[..FAULTS * PAGE_SIZE as usize],
        )?)?;
    }
    Ok(())
}

/// GB (10⁹ bytes) a second.
fn rate(pages: u64, started: Instant) -> f64 {
    (pages * PAGE_SIZE) as f64 / started.elapsed().as_nanos() as f64
}

/// Time that the CPU needs to get pages back by touching them one after the other; the driver
/// may bring neighbours along.
fn fault_back(context: &Context, memory: &[u8]) -> Result<serde_json::Value> {
    let mut samples = Samples::default();
    let mut pages = 0;
    for _ in 0..ROUNDS {
        context.prefetch(PageRange::of(memory))?;
        let before = context.stats()?.to_system_fault;
        let started = Instant::now();
        touch(memory);
        let microseconds = started.elapsed().as_nanos() as f64 / 1000.0;
        pages = context.stats()?.to_system_fault - before;
        ensure!(pages > 0, "the CPU's touch brought no page back");
        samples.add(microseconds / pages as f64);
    }
    let mut line = samples.summary("cpu_fault_back", "us/page");
    line["pages"] = json!(pages);
    Ok(line)
}

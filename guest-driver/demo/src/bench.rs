// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Measurements of the device as a program sees it.
#![deny(unsafe_code)]

mod array_list;
mod busy;
mod compute;
mod contexts;
mod fault;
mod migrate;
mod migrate_sizes;
mod samples;

use std::path::Path;

use anyhow::Result;
use coax::Context;
use coax_program::errln;
use serde_json::json;

use crate::args::Bench;
use crate::output::Output;
use crate::scenario::mode_name;

use samples::{nanoseconds, Samples};

/// Empty commands before any is counted.
const NOP_WARM_UP: usize = 200;
/// Empty commands counted.
const NOP_ROUNDS: usize = 4000;

/// Runs all measurements, or the one asked for alone.
pub fn run(device: &Path, options: &Bench, output: &mut Output) -> Result<()> {
    if let Some(count) = options.contexts {
        return contexts::run(device, count, options.seconds, output);
    }
    if !options.migrate_sizes.is_empty() {
        return migrate_sizes::run(device, options, output);
    }
    if let Some(threads) = options.busy {
        return busy::run(device, threads, output);
    }
    let context = Context::open_path(device)?;
    let mode = mode_name(&context.info()?);
    output.line(&json!({"name": "mode", "value": mode, "unit": "name", "n": 1}))?;
    errln!("bench: empty commands …");
    nop(&context, "", output)?;
    errln!("bench: device page faults …");
    fault::run(device, "", output)?;
    errln!("bench: migration …");
    migrate::run(&context, output)?;
    errln!("bench: list, hash and matrix product over resident pages …");
    compute::run(&context, output)
}

/// The round trip of a command that does nothing; `prefix` is what the measurement's name begins with.
fn nop(context: &Context, prefix: &str, output: &mut Output) -> Result<()> {
    for _ in 0..NOP_WARM_UP {
        context.nop()?;
    }
    let mut samples = Samples::default();
    for _ in 0..NOP_ROUNDS {
        samples.add(nanoseconds(|| context.nop())?);
    }
    output.line(&samples.summary(&format!("{prefix}nop_round_trip"), "ns"))
}

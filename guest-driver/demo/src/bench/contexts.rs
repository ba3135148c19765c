// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many contexts at work at once, while the host looks at the back end's memory.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use coax::Context;
use coax_program::errln;
use serde_json::json;

use crate::output::Output;

/// Memory that each context works on.
const BYTES: usize = 1 << 20;

/// Opens the contexts, says so, works in all of them and says how many commands they did.
pub fn run(device: &Path, count: u32, seconds: u32, output: &mut Output) -> Result<()> {
    let contexts = (0..count)
        .map(|number| {
            Context::open_path(device).with_context(|| format!("Cannot open context {number}"))
        })
        .collect::<Result<Vec<_>>>()?;
    output.line(&json!({"name": "contexts_open", "value": count, "unit": "contexts", "n": 1}))?;
    errln!("bench: {count} contexts at work for {seconds} s …");
    let duration = Duration::from_secs(u64::from(seconds));
    let ready = Barrier::new(contexts.len());
    let started = Instant::now();
    let commands = thread::scope(|scope| {
        let workers: Vec<_> = contexts
            .iter()
            .enumerate()
            .map(|(number, context)| {
                let ready = &ready;
                scope.spawn(move || work(context, number, ready, duration))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .sum::<Result<u64>>()
    })?;
    let rate = commands as f64 / started.elapsed().as_secs_f64();
    let open = contexts[0].stats()?.contexts;
    output.line(&json!({
        "name": "contexts_commands",
        "value": rate,
        "unit": "commands/s",
        "n": commands,
        "contexts": open,
    }))
}

/// Copies, fills and hashes until the end, and checks what can be checked.
fn work(context: &Context, number: usize, ready: &Barrier, duration: Duration) -> Result<u64> {
    let source = vec![number as u8; BYTES];
    let mut copy = vec![0u8; BYTES];
    ready.wait();
    let end = Instant::now() + duration;
    let mut commands = 0;
    while Instant::now() < end {
        context.fill(&mut copy, 0)?;
        context.copy(&mut copy, &source)?;
        let digests = [context.sha256(&copy)?, context.sha256(&source)?];
        ensure!(digests[0] == digests[1], "context {number} copied wrongly");
        // The CPU's write brings a page back, so that there are faults in both directions.
        copy[commands as usize % BYTES] = 0xff;
        commands += 4;
    }
    Ok(commands)
}

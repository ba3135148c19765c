// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Empty commands and device page faults while others want the processors.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use coax::Context;
use coax_program::errln;

use super::{fault, nop};
use crate::output::Output;

/// What the measurements' names begin with.
const PREFIX: &str = "busy_";

/// Measures both while so many threads do nothing but work.
pub fn run(device: &Path, threads: u32, output: &mut Output) -> Result<()> {
    let context = Context::open_path(device)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        errln!("bench: empty commands and device page faults, {threads} processors busy …");
        let measured =
            nop(&context, PREFIX, output).and_then(|()| fault::run(device, PREFIX, output));
        stop.store(true, Ordering::Relaxed);
        measured
    })
}

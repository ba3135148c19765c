// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a change of the page table waits for while the device is at work for the same context: a measurement
//! of `coax bench invalidate`, in the guest.
//!
//! Page by page the device gets a translation by a small command, and the page is dropped; that is timed. The
//! commands at work meanwhile are those with the longest steps. How long the device itself takes for its
//! answers it tells the host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _, Result};
use coax::{Command, Policy};
use coax_abi::wire;

use super::tell;
use crate::guest::device::Device;
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};

/// Pages dropped in each measurement.
const PAGES: usize = 1000;
/// Nodes of the list, one on each page: the longest walk between two looks at what else there is to do.
const NODES: usize = 4096;
/// Additions to the one word that a CPU adds to as well.
const ADDITIONS: u64 = 4096;
/// Rows and columns of matrices in double precision: several tiles of 2 MiB each way.
const SIZE: u64 = 1024;
/// Commands under way at once: more than the device has engines.
const AT_ONCE: usize = 4;

/// Kinds of work, by name.
pub const WORKS: [&str; 5] = ["nothing", "fill", "list", "atomics", "gemm"];

/// Memory of the work, and the command that is repeated on it.
struct Work {
    memory: Mapping,
    command: Option<Command>,
}

impl Work {
    fn new(name: &str) -> Result<Self> {
        let bytes = match name {
            "nothing" => PAGE,
            "fill" | "list" => NODES * PAGE,
            "atomics" => PAGE,
            "gemm" => 3 * usize::try_from(SIZE * SIZE * 8)?,
            other => bail!("No work {other:?}; there are {WORKS:?}"),
        };
        let memory = Mapping::anonymous(bytes)?;
        memory.fill(0..bytes, 0);
        let at = memory.address();
        let command = match name {
            "fill" => Some(Command::fill(at, bytes as u64, 1)),
            "list" => {
                list::lay(&memory, 0);
                Some(list::walk(&memory, NODES as u64))
            }
            "atomics" => Some(Command::fetch_add(at, 8, 1, ADDITIONS, 0)),
            "gemm" => Some(product(&memory)),
            _ => None,
        };
        Ok(Work { memory, command })
    }
}

/// The product of two matrices in the memory.
fn product(memory: &Mapping) -> Command {
    let matrix = usize::try_from(SIZE * SIZE * 8).unwrap_or(0);
    let [a, b, c] = [0, 1, 2].map(|number| memory.at(number * matrix));
    let (one, zero) = (1f64.to_bits(), 0f64.to_bits());
    let n = SIZE;
    let args = [n, n, n, a, n, b, n, c, n, one, zero, wire::GEMM_ROW_MAJOR];
    Command::new(wire::OP_DGEMM, &args)
}

/// Measures beside this work, and tells what was measured.
///
/// # Errors
///
/// There is no such work, or it fails.
pub fn run(name: &str) -> Result<()> {
    let work = Work::new(name)?;
    let device = Device::open()?;
    // Pages stay: a move is no part of what is timed.
    device.set_policy(Policy::Never, None)?;
    let stop = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        let worker = scope.spawn(|| repeat(&device, &work, &stop));
        let contender = scope.spawn(|| contend(name, &work, &stop));
        let times = drop_pages(&device);
        stop.store(true, Ordering::Relaxed);
        for thread in [worker, contender] {
            let ended = thread.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        times
    })?;
    tell("invalidation", &mut times)?;
    Ok(())
}

/// Has the device do the work again and again.
fn repeat(device: &Device, work: &Work, stop: &AtomicBool) -> Result<()> {
    let Some(command) = work.command else {
        return Ok(());
    };
    let mut under_way = std::collections::VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        under_way.push_back(device.start(command).context("The work")?);
        if under_way.len() == AT_ONCE {
            if let Some(first) = under_way.pop_front() {
                device.finish(first).context("The work")?;
            }
        }
    }
    for rest in under_way {
        device.finish(rest).context("The work")?;
    }
    Ok(())
}

/// Beside atomic work, adds to the same word.
fn contend(name: &str, work: &Work, stop: &AtomicBool) -> Result<()> {
    while name == "atomics" && !stop.load(Ordering::Relaxed) {
        work.memory.add(0, 1);
    }
    Ok(())
}

/// Gives the device a translation of each page, and times its loss.
fn drop_pages(device: &Device) -> Result<Vec<Duration>> {
    let memory = Mapping::small_pages(PAGES * PAGE)?;
    let mut times = Vec::with_capacity(PAGES);
    for page in 0..PAGES {
        let range = page * PAGE..(page + 1) * PAGE;
        device.fill(&memory, range.start..range.start + 8, 1)?;
        let begin = Instant::now();
        memory
            .advise(range, libc::MADV_DONTNEED)
            .context("MADV_DONTNEED")?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

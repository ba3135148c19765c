// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Linked lists with one node a page, for the device to walk.

use anyhow::Result;
use coax::{Command, CommandId};
use coax_abi::wire::OP_LIST_SUM;

use super::device::Device;
use super::memory::{Mapping, PAGE};
use super::wait;

/// Offset of the pointer to the next node.
pub const NEXT: usize = 0;
/// Offset of the value.
pub const VALUE: usize = 8;

/// Lays one node into each page of the mapping, in order of address, with the page's number
/// plus one as its value; the last node points to `after`, 0 ends the list.
pub fn lay(memory: &Mapping, after: u64) {
    let pages = memory.len() / PAGE;
    for page in 0..pages {
        let next = if page + 1 < pages {
            memory.at((page + 1) * PAGE)
        } else {
            after
        };
        memory.store(page * PAGE + NEXT, next);
        memory.store(page * PAGE + VALUE, page as u64 + 1);
    }
}

/// Sum of the values of a list of this many nodes.
pub fn sum(nodes: u64) -> u64 {
    nodes * (nodes + 1) / 2
}

/// The walk from the first page on, for at most so many nodes.
pub fn walk(memory: &Mapping, most: u64) -> Command {
    Command::new(
        OP_LIST_SUM,
        &[memory.address(), NEXT as u64, VALUE as u64, most],
    )
}

/// Closes the list in the mapping to a ring, starts a walk without end, and waits until the
/// device works on it.
pub fn start_endless(device: &Device, memory: &Mapping) -> Result<CommandId> {
    lay(memory, memory.address());
    let before = look_ups(device)?;
    let id = device.start(walk(memory, u64::MAX))?;
    wait::until("The device's first look-up for the walk", || {
        Ok(look_ups(device)? > before)
    })?;
    Ok(id)
}

/// Look-ups of the device so far, whether its cache or the driver answered.
fn look_ups(device: &Device) -> Result<u64> {
    let stats = device.stats()?;
    let cache = stats.device().atc_hits.get() + stats.device().atc_misses.get();
    Ok(cache + stats.translation_requests + stats.page_requests)
}

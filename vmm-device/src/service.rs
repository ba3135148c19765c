// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Work on the queues that are served chain by chain: control, copy and translation.
#![forbid(unsafe_code)]

pub mod control;
pub mod page_copy;
pub mod translation;

use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{GuestAddressSpace, GuestMemoryMmap};

use crate::device::Device;
use crate::queue::{self, Chain, Ring};

/// Names and limits of a queue.
struct Limits {
    name: &'static str,
    max_request: usize,
    max_reply: usize,
    /// How long the next chain is looked for before the driver is asked to notify.
    linger: Duration,
}

/// Whether a chain comes within `linger`; other threads run meanwhile if they want to.
fn comes_soon(ring: &Ring, memory: &GuestMemoryMmap, linger: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < linger {
        match queue::available(ring, memory) {
            Ok(0) => thread::yield_now(),
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
    false
}

/// Serves all chains of a queue. `handle` makes the reply of a chain from its readable part,
/// which is `None` if malformed, and the room for the reply.
fn serve(
    device: &Device,
    ring: &Ring,
    limits: &Limits,
    mut handle: impl FnMut(&GuestMemoryMmap, Option<&[u8]>, usize) -> Vec<u8>,
) {
    while !device.shutting_down() {
        let memory = device.memory.memory();
        let chain = match queue::take(ring, &memory, limits.max_request, limits.max_reply) {
            Ok(Some(chain)) => chain,
            Ok(None) if comes_soon(ring, &memory, limits.linger) => continue,
            Ok(None) => match queue::await_kick(ring, &memory) {
                Ok(true) => continue,
                Ok(false) => return,
                Err(error) => return device.queue_error(limits.name, &error),
            },
            Err(error) => return device.queue_error(limits.name, &error),
        };
        let Chain { request, reply } = chain;
        let bytes = handle(&memory, request.as_deref(), reply.room());
        match queue::answer(ring, &memory, &reply, &bytes) {
            Ok(true) => {}
            Ok(false) => device.guest_error(format_args!(
                "{} queue: no room for a reply of {} bytes",
                limits.name,
                bytes.len()
            )),
            Err(error) => device.queue_error(limits.name, &error),
        }
    }
}

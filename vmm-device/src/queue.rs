// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtqueues: from descriptor chains to bytes, and from replies to the used ring.
//!
//! The only file that walks rings. Chains are taken only while the ring is started and enabled,
//! which is checked under its lock; the front end stops it under the same lock. Whoever answers
//! a chain has to make sure that the front end, when it stops the ring, waits for that: see
//! `Backend::stop_vring`. What the guest wrote is copied out once and never read again.
#![forbid(unsafe_code)]

use thiserror::Error;
use vhost_user_backend::{VringState, VringT};
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

pub use crate::ring::Ring;

/// A ring that the guest left in a state that makes no sense.
#[derive(Debug, Error)]
pub enum Error {
    /// The available ring cannot be read.
    #[error("Cannot take a chain from the available ring")]
    Available(#[source] virtio_queue::Error),
    /// The used ring cannot be written.
    #[error("Cannot put chain {head} into the used ring")]
    Used {
        /// Head of the chain.
        head: u16,
        /// Cause.
        #[source]
        source: virtio_queue::Error,
    },
    /// The notification state of the ring cannot be accessed.
    #[error("Cannot set up the notifications of the ring")]
    Notification(#[source] virtio_queue::Error),
    /// The front end cannot be notified.
    #[error("Cannot notify the front end")]
    Signal(#[source] std::io::Error),
}

/// Where the reply of a chain goes.
#[derive(Debug)]
pub struct ReplySlot {
    head: u16,
    segments: Vec<(GuestAddress, usize)>,
}

/// A chain taken from a queue.
#[derive(Debug)]
pub struct Chain {
    /// Bytes of the readable part; `None` if the chain is malformed or the part too long.
    pub request: Option<Vec<u8>>,
    /// Where the reply goes.
    pub reply: ReplySlot,
}

/// Takes the next chain: `max_request` bytes are read at most, and room for `max_reply` bytes
/// is kept.
pub fn take(
    ring: &Ring,
    memory: &GuestMemoryMmap,
    max_request: usize,
    max_reply: usize,
) -> Result<Option<Chain>, Error> {
    let mut state = ring.get_mut();
    let Some(chain) = pop(&mut state, memory)? else {
        return Ok(None);
    };
    drop(state);
    Ok(Some(parse(chain, memory, max_request, max_reply)))
}

/// Whether the front end has started and enabled the ring.
pub fn started(ring: &Ring) -> bool {
    usable(&ring.get_ref())
}

fn usable(state: &VringState<GuestMemoryAtomic<GuestMemoryMmap>>) -> bool {
    state.is_enabled() && state.get_queue().ready()
}

fn pop<'m>(
    state: &mut VringState<GuestMemoryAtomic<GuestMemoryMmap>>,
    memory: &'m GuestMemoryMmap,
) -> Result<Option<DescriptorChain<&'m GuestMemoryMmap>>, Error> {
    if !usable(state) {
        return Ok(None);
    }
    let mut chains = state
        .get_queue_mut()
        .iter(memory)
        .map_err(Error::Available)?;
    Ok(chains.next())
}

fn parse(
    chain: DescriptorChain<&GuestMemoryMmap>,
    memory: &GuestMemoryMmap,
    max_request: usize,
    max_reply: usize,
) -> Chain {
    let head = chain.head_index();
    let mut request = Some(Vec::new());
    let mut segments = Vec::new();
    let mut room = 0;
    for descriptor in chain {
        let len = descriptor.len() as usize;
        if descriptor.is_write_only() {
            if len > 0 && room < max_reply {
                segments.push((descriptor.addr(), len));
                room = room.saturating_add(len);
            }
            continue;
        }
        // Readable after writable is against VirtIO 1.3 §2.7.4.2.
        let fits = segments.is_empty();
        request = request.filter(|_| fits).and_then(|mut bytes| {
            let start = bytes.len();
            let end = start.checked_add(len).filter(|&end| end <= max_request)?;
            bytes.resize(end, 0);
            memory
                .read_slice(&mut bytes[start..], descriptor.addr())
                .ok()?;
            Some(bytes)
        });
    }
    Chain {
        request,
        reply: ReplySlot { head, segments },
    }
}

impl ReplySlot {
    /// Bytes that the reply may have; capped at what was asked for when the chain was taken.
    pub fn room(&self) -> usize {
        self.segments
            .iter()
            .fold(0, |sum, &(_, len)| sum.saturating_add(len))
    }

    /// Writes a reply; false if it does not fit or its place is no memory.
    fn write(&self, memory: &GuestMemoryMmap, mut bytes: &[u8]) -> bool {
        if self.room() < bytes.len() {
            return false;
        }
        for &(address, len) in &self.segments {
            let (now, later) = bytes.split_at(len.min(bytes.len()));
            if memory.write_slice(now, address).is_err() {
                return false;
            }
            bytes = later;
        }
        true
    }
}

/// Answers a chain and notifies the driver if it wants to be. Returns whether the reply was
/// delivered: a chain without room for it is answered with length 0.
pub fn answer(
    ring: &Ring,
    memory: &GuestMemoryMmap,
    reply: &ReplySlot,
    bytes: &[u8],
) -> Result<bool, Error> {
    let mut state = ring.get_mut();
    let delivered = put(&mut state, memory, reply, bytes)?;
    notify_locked(&mut state, memory)?;
    Ok(delivered)
}

fn put(
    state: &mut VringState<GuestMemoryAtomic<GuestMemoryMmap>>,
    memory: &GuestMemoryMmap,
    reply: &ReplySlot,
    bytes: &[u8],
) -> Result<bool, Error> {
    let delivered = reply.write(memory, bytes);
    let len = if delivered { bytes.len() as u32 } else { 0 };
    state
        .get_queue_mut()
        .add_used(memory, reply.head, len)
        .map_err(|source| Error::Used {
            head: reply.head,
            source,
        })?;
    Ok(delivered)
}

fn notify_locked(
    state: &mut VringState<GuestMemoryAtomic<GuestMemoryMmap>>,
    memory: &GuestMemoryMmap,
) -> Result<(), Error> {
    let wanted = state
        .get_queue_mut()
        .needs_notification(memory)
        .map_err(Error::Notification)?;
    if wanted {
        state.signal_used_queue().map_err(Error::Signal)?;
    }
    Ok(())
}

/// Asks for a kick when more chains come; true if there are some already.
pub fn await_kick(ring: &Ring, memory: &GuestMemoryMmap) -> Result<bool, Error> {
    let mut state = ring.get_mut();
    if !usable(&state) {
        return Ok(false);
    }
    state
        .get_queue_mut()
        .enable_notification(memory)
        .map_err(Error::Notification)
}

/// Chains in the available ring.
pub fn available(ring: &Ring, memory: &GuestMemoryMmap) -> Result<u16, Error> {
    let state = ring.get_mut();
    if !usable(&state) {
        return Ok(0);
    }
    let queue = state.get_queue();
    let index = queue
        .avail_idx(memory, std::sync::atomic::Ordering::Acquire)
        .map_err(Error::Available)?;
    Ok(index.0.wrapping_sub(queue.next_avail()))
}

/// Fills the next buffer of a queue of writable buffers, without notifying; false if there is
/// none that is large enough. Buffers that are too small are given back empty.
pub fn push(ring: &Ring, memory: &GuestMemoryMmap, bytes: &[u8]) -> Result<bool, Error> {
    let mut state = ring.get_mut();
    while let Some(chain) = pop(&mut state, memory)? {
        let chain = parse(chain, memory, 0, bytes.len());
        if put(&mut state, memory, &chain.reply, bytes)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notifies the driver of buffers that were pushed, if it wants to be.
pub fn notify(ring: &Ring, memory: &GuestMemoryMmap) -> Result<(), Error> {
    let mut state = ring.get_mut();
    if !usable(&state) {
        return Ok(());
    }
    notify_locked(&mut state, memory)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Descriptor chains: from descriptors to bytes, and from replies to descriptors.
//!
//! What the guest wrote is copied out once and never read again.
#![forbid(unsafe_code)]

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Where the reply of a chain goes.
#[derive(Debug)]
pub struct ReplySlot {
    /// Head of the chain.
    pub(super) head: u16,
    /// Life of the queue that the chain was taken from.
    pub(super) life: u64,
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

/// Reads a chain: `max_request` bytes are read at most, and room for `max_reply` bytes is kept.
pub(super) fn parse(
    chain: DescriptorChain<&GuestMemoryMmap>,
    life: u64,
    memory: &GuestMemoryMmap,
    max_request: usize,
    max_reply: usize,
) -> Chain {
    let head = chain.head_index();
    let mut request = Some(Vec::new());
    let mut segments = Vec::new();
    let mut wanted = max_reply;
    let mut writable = false;
    for descriptor in chain {
        let len = descriptor.len() as usize;
        if descriptor.is_write_only() {
            writable |= len > 0;
            let len = len.min(wanted);
            // What is no memory is no room, nor is what lies behind it.
            if !memory.check_range(descriptor.addr(), len) {
                wanted = 0;
            } else if len > 0 {
                segments.push((descriptor.addr(), len));
                wanted -= len;
            }
            continue;
        }
        // Readable after writable is against VirtIO 1.3 §2.7.4.2.
        let fits = !writable;
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
    let reply = ReplySlot {
        head,
        life,
        segments,
    };
    Chain { request, reply }
}

impl ReplySlot {
    /// Bytes that the reply may have; no more than was asked for when the chain was taken.
    pub fn room(&self) -> usize {
        self.segments.iter().map(|&(_, len)| len).sum()
    }

    /// Life of the queue that the chain was taken from.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Writes a reply; false if it does not fit or its place is no memory.
    pub(super) fn write(&self, memory: &GuestMemoryMmap, mut bytes: &[u8]) -> bool {
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

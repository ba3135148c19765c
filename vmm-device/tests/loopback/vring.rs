// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Driver side of one split virtqueue, as VirtIO 1.3 §2.7 describes it, with event index.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

/// Descriptors in a queue.
pub const SIZE: u16 = 256;
/// Bytes of the buffer that belongs to each descriptor.
pub const BUFFER: u64 = 16 * 1024;
/// Guest memory that a queue takes: rings and buffers.
pub const QUEUE_BYTES: u64 = 0x1_0000 + SIZE as u64 * BUFFER;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// One descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Desc {
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A queue as its driver sees it.
pub struct Vring {
    mem: GuestMemoryMmap,
    base: u64,
    free: Vec<u16>,
    next_avail: u16,
    last_used: u16,
    /// Chains in flight by head: their descriptors, and how many of them are readable.
    chains: Vec<Option<(Vec<u16>, usize)>>,
    pub kick: EventFd,
    pub call: EventFd,
    epoll: Epoll,
}

impl Vring {
    pub fn new(mem: GuestMemoryMmap, base: u64) -> Self {
        let call = EventFd::new(EFD_NONBLOCK).unwrap();
        let epoll = Epoll::new().unwrap();
        epoll
            .ctl(
                ControlOperation::Add,
                call.as_raw_fd(),
                EpollEvent::new(EventSet::IN, 0),
            )
            .unwrap();
        let vring = Self {
            mem,
            base,
            free: (0..SIZE).rev().collect(),
            next_avail: 0,
            last_used: 0,
            chains: vec![None; SIZE.into()],
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call,
            epoll,
        };
        vring
            .mem
            .write_slice(&[0; 0x1_0000], GuestAddress(base))
            .unwrap();
        vring
    }

    pub fn desc_table(&self) -> u64 {
        self.base
    }

    /// The available ring: its head ends with a page, and its entries begin with the next one.
    pub fn avail(&self) -> u64 {
        self.avail_entries() - 4
    }

    pub fn avail_entries(&self) -> u64 {
        self.base + 0x5000
    }

    pub fn used(&self) -> u64 {
        self.base + 0x8000
    }

    /// Buffer of a descriptor.
    pub fn buffer(&self, index: u16) -> u64 {
        self.base + 0x1_0000 + u64::from(index) * BUFFER
    }

    /// Adds a chain of one readable and one writable buffer, leaving out empty ones, and kicks.
    pub fn add(&mut self, readable: &[u8], writable: u32) -> u16 {
        assert!(readable.len() as u64 <= BUFFER && u64::from(writable) <= BUFFER);
        let mut descs = Vec::new();
        let readable_count = usize::from(!readable.is_empty());
        for (data, len, flags) in [(true, readable.len() as u32, 0), (false, writable, WRITE)] {
            if len == 0 {
                continue;
            }
            let index = self.free.pop().expect("descriptors left");
            let addr = self.buffer(index);
            if data {
                self.mem.write_slice(readable, GuestAddress(addr)).unwrap();
            }
            descs.push((index, addr, len, flags));
        }
        let indices: Vec<u16> = descs.iter().map(|d| d.0).collect();
        for (n, &(index, addr, len, flags)) in descs.iter().enumerate() {
            let next = indices.get(n + 1).copied();
            self.write_desc(
                index,
                Desc {
                    addr,
                    len,
                    flags: flags | next.map_or(0, |_| NEXT),
                    next: next.unwrap_or(0),
                },
            );
        }
        let head = indices[0];
        self.chains[usize::from(head)] = Some((indices, readable_count));
        self.offer(head);
        self.kick();
        head
    }

    /// Writes a descriptor of the table.
    pub fn write_desc(&self, index: u16, desc: Desc) {
        self.mem
            .write_slice(
                &desc.bytes(),
                GuestAddress(self.desc_table() + u64::from(index) * 16),
            )
            .unwrap();
    }

    /// Offers a chain whose descriptors the caller wrote, `indices[0]` being its head.
    pub fn add_raw(&mut self, indices: &[u16]) {
        self.free.retain(|index| !indices.contains(index));
        self.chains[usize::from(indices[0])] = Some((indices.to_vec(), 0));
        self.offer(indices[0]);
        self.kick();
    }

    /// Puts any number into the available ring.
    pub fn offer(&mut self, head: u16) {
        let slot = self.avail() + 4 + u64::from(self.next_avail % SIZE) * 2;
        self.mem
            .write_obj(head.to_le(), GuestAddress(slot))
            .unwrap();
        self.next_avail = self.next_avail.wrapping_add(1);
        self.publish(self.next_avail);
    }

    /// Sets the index of the available ring.
    pub fn publish(&self, index: u16) {
        self.mem
            .store(
                index.to_le(),
                GuestAddress(self.avail() + 2),
                Ordering::Release,
            )
            .unwrap();
    }

    /// Replaces the eventfd by which the driver kicks.
    pub fn renew_kick(&mut self) {
        self.kick = EventFd::new(EFD_NONBLOCK).unwrap();
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Takes a used chain: its head and the bytes that the device wrote.
    pub fn poll(&mut self) -> Option<(u16, Vec<u8>)> {
        let index: u16 = self
            .mem
            .load(GuestAddress(self.used() + 2), Ordering::Acquire)
            .unwrap();
        if u16::from_le(index) == self.last_used {
            return None;
        }
        let slot = self.used() + 4 + u64::from(self.last_used % SIZE) * 8;
        let head: u32 = self.mem.read_obj(GuestAddress(slot)).unwrap();
        let len: u32 = self.mem.read_obj(GuestAddress(slot + 4)).unwrap();
        self.last_used = self.last_used.wrapping_add(1);
        // Ask for a notification of the next one: `used_event` of VirtIO 1.3 §2.7.7.
        self.mem
            .store(
                self.last_used.to_le(),
                GuestAddress(self.avail() + 4 + u64::from(SIZE) * 2),
                Ordering::SeqCst,
            )
            .unwrap();
        let head = head as u16;
        let (indices, readable) = self.chains[usize::from(head)]
            .take()
            .expect("the device returns chains that it was given");
        let mut written = vec![0; len as usize];
        if let Some(&index) = indices.get(readable) {
            self.mem
                .read_slice(&mut written, GuestAddress(self.buffer(index)))
                .unwrap();
        }
        self.free.extend(indices);
        Some((head, written))
    }

    /// Waits for a notification of the device; false after `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut events = [EpollEvent::default()];
        let count = self
            .epoll
            .wait(timeout.as_millis() as i32, &mut events)
            .unwrap();
        let _ = self.call.read();
        count > 0
    }
}

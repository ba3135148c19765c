// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ring type of the daemon, with kicks that cannot end a thread.
//!
//! The daemon's loop ends the thread of a queue when a kick cannot be read. That happens to a
//! ring that was stopped and started again with another eventfd while the event of the old one
//! was on its way: the new one has nothing to read yet.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;

use vhost_user_backend::{VringMutex, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error as QueueError;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::fail_stop;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Inner = VringMutex<Memory>;

/// A ring shared between the threads of the device.
#[derive(Clone)]
pub struct Ring(Inner);

impl<'a> VringStateGuard<'a, Memory> for Ring {
    type G = <Inner as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Ring {
    type G = <Inner as VringStateMutGuard<'a, Memory>>::G;
}

impl VringT<Memory> for Ring {
    fn read_kick(&self) -> io::Result<bool> {
        match self.0.read_kick() {
            // Whoever kicked is served, or will kick again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(self.get_ref().is_enabled())
            }
            Err(error) => {
                fail_stop::end_process(format_args!("the kick of a queue cannot be read: {error}"))
            }
            enabled => enabled,
        }
    }

    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, QueueError> {
        Inner::new(memory, max_queue_size).map(Self)
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.0.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.0.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), QueueError> {
        self.0.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.0.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.0.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.0.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.0.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.0.set_queue_info(desc, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.0.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.0.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.0.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.0.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.0.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.0.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        self.0.set_kick(file);
    }

    fn set_call(&self, file: Option<File>) {
        self.0.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        self.0.set_err(file);
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{eventfd, EventfdFlags};

    use super::*;

    #[test]
    fn kick_that_has_nothing_to_read_is_no_failure() -> Result<(), Box<dyn std::error::Error>> {
        let ring = Ring::new(Memory::new(GuestMemoryMmap::new()), 1)?;
        ring.set_kick(Some(eventfd(0, EventfdFlags::NONBLOCK)?.into()));
        ring.set_enabled(true);
        assert!(ring.read_kick()?);
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ring type of the daemon, with kicks that cannot end a thread, and an end that is one.
//!
//! A ring that is disabled is not used any more when the daemon says so to the front end: who
//! disables it waits for the threads that serve it, as the stop of a ring does. When it is enabled
//! again nobody need kick for what was left.
//!
//! The daemon's loop ends the thread of a queue when a kick cannot be read. That happens to a
//! ring that was stopped and started again with another eventfd while the event of the old one
//! was on its way: the new one has nothing to read yet.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};

use vhost_user_backend::{VringMutex, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error as QueueError;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::serving::Serving;
use crate::fail_stop;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Inner = VringMutex<Memory>;

/// A ring shared between the threads of the device.
#[derive(Clone)]
pub struct Ring {
    inner: Inner,
    served: Arc<OnceLock<Served>>,
}

/// By whom a ring is served.
pub struct Served {
    /// Threads that use it.
    pub threads: Vec<Arc<Serving>>,
    /// Has the first of them look for work.
    pub waker: EventFd,
}

impl Ring {
    /// Tells once by whom the ring is served.
    pub fn served_by(&self, served: Served) {
        self.served.get_or_init(|| served);
    }
}

impl<'a> VringStateGuard<'a, Memory> for Ring {
    type G = <Inner as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Ring {
    type G = <Inner as VringStateMutGuard<'a, Memory>>::G;
}

impl VringT<Memory> for Ring {
    fn read_kick(&self) -> io::Result<bool> {
        match self.inner.read_kick() {
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
        Ok(Self {
            inner: Inner::new(memory, max_queue_size)?,
            served: Arc::default(),
        })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.inner.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.inner.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), QueueError> {
        self.inner.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.inner.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.inner.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.inner.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.inner.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.inner.set_enabled(enabled);
        let Some(served) = self.served.get() else {
            return;
        };
        if !enabled {
            served
                .threads
                .iter()
                .for_each(|serving| drop(serving.stop()));
        } else if let Err(error) = served.waker.write(1) {
            log::error!("cannot wake the thread of a queue: {error}");
        }
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.inner.set_queue_info(desc, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.inner.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.inner.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.inner.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.inner.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.inner.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.inner.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.inner.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        self.inner.set_kick(file);
    }

    fn set_call(&self, file: Option<File>) {
        self.inner.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        self.inner.set_err(file);
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

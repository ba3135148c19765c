// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command on its way through the device, and the way back to its engine.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::time::Instant;

use coax_abi::wire::STATUS_ABORTED;
use vm_memory::GuestAddressSpace;
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

use crate::access::Access;
use crate::context::Membership;
use crate::device::Device;
use crate::dma::{regions, Window};
use crate::engine::{Operation, Step};
use crate::queue::ReplySlot;
use crate::sync::lock;

/// A command that was taken from its queue and not yet answered.
///
/// Field order is drop order: the membership goes last, so that a context counts as drained
/// only when nothing of its commands is left.
#[derive(Debug)]
pub struct Job {
    /// What it does.
    pub operation: Operation,
    /// Where the reply goes.
    pub reply: ReplySlot,
    /// Engine that runs it.
    pub engine: usize,
    /// Page requests it waited for.
    pub page_requests: u64,
    /// Times in a row that it was parked without having gained anything.
    pub fruitless: u32,
    /// [`Operation::advance`] when it was parked last.
    pub parked_at: Option<u64>,
    /// Context and epoch.
    pub member: Membership,
}

impl Job {
    /// Takes one step, under the read lock of the context's translations.
    pub fn step(&mut self, device: &Device) -> Step {
        let memory = device.memory.memory();
        let regions = regions(&memory);
        let device_memory = *lock(&device.device_memory);
        let atc = self.member.context().atc();
        // Read under the lock: after an abort has cleared the translations no access happens.
        if self.member.aborted() {
            return Step::Done(STATUS_ABORTED);
        }
        let mut window = Window::new(&atc, &regions, device_memory);
        let step = device.stats.at_work(|| self.operation.step(&mut window));
        window.count(&device.stats);
        step
    }
}

/// What became of the wait of a parked command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take the step again.
    Retry,
    /// The step was taken again already.
    Stepped(Step),
    /// Invalid Request was answered.
    Fault {
        /// Address refused.
        va: u64,
        /// Right refused.
        access: Access,
    },
    /// Response Failure was answered, or would be.
    Failure {
        /// Address that could not be had.
        va: u64,
    },
    /// The context was closed or reset.
    Aborted,
}

/// A job that goes back to its engine.
#[derive(Debug)]
pub struct Resumed {
    /// The job.
    pub job: Box<Job>,
    /// What became of its wait.
    pub verdict: Verdict,
    /// When its first page request was sent, if any was.
    pub asked_at: Option<Instant>,
}

/// Jobs that are ready to go on, for one engine.
#[derive(Debug)]
pub struct Inbox {
    resumed: Mutex<Vec<Resumed>>,
    wake: EventFd,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            resumed: Mutex::default(),
            wake: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Event that tells the engine to look into the inbox.
    pub fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Hands a job back to the engine.
    pub fn put(&self, resumed: Resumed) {
        lock(&self.resumed).push(resumed);
        self.wake();
    }

    /// Makes the engine look.
    pub fn wake(&self) {
        if let Err(error) = self.wake.write(1) {
            log::error!("cannot wake an engine: {error}");
        }
    }

    /// Resets the event; to be followed by [`Self::take`].
    pub fn clear_wake(&self) {
        // Nothing to read means that the event was not raised, which is fine.
        let _ = self.wake.read();
    }

    /// Takes the jobs that came in.
    pub fn take(&self) -> Vec<Resumed> {
        std::mem::take(&mut lock(&self.resumed))
    }
}

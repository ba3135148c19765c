// SPDX-License-Identifier: GPL-2.0

//! Requests whose first page somebody has to be waited for: a device that reads it, a file system, or a
//! program that resolves faults (userfaultfd). Each waits in a thread of its own, holding no lock, so that
//! the context's other requests go on: those of other threads of the program, and of the very program that
//! is waited for. The thread is ended with the context, whoever it waits for.

use super::{Refusal, Resolver, Scratch, Want};
use crate::{
    kapi::{
        mm,
        thread::{should_stop, Task, Thread},
    },
    wire,
};
use kernel::{prelude::*, sync::Arc};

/// Threads of one context: all the requests that a device may have outstanding.
const MAX_WAITING: usize = wire::MAX_PAGE_REQUESTS as usize;

/// A request that waits.
pub(super) struct Waiting {
    resolver: Arc<Resolver>,
    request: wire::DeviceRequest,
}

impl Task for Waiting {
    fn run(&self) {
        let refusal = match self.answer() {
            // Nobody is there to be answered.
            _ if should_stop() => return,
            Ok(()) => return,
            Err(refusal) => refusal,
        };
        let code = match refusal {
            Refusal::Invalid => wire::RESPONSE_INVALID,
            Refusal::Failure => wire::RESPONSE_FAILURE,
            Refusal::Later | Refusal::Wait => wire::RESPONSE_SUCCESS,
        };
        self.resolver.respond(&self.request, code);
    }
}

impl Waiting {
    fn answer(&self) -> Result<(), Refusal> {
        let mut scratch = Scratch::new()?;
        loop {
            self.wait()?;
            // Not held while waiting, because whoever takes the device out of service waits for it.
            let memory = self.resolver.device.memory()?;
            match self
                .resolver
                .serve(&*memory, &self.request, true, &mut scratch)
            {
                Err(Refusal::Wait) => {}
                served => return served,
            }
        }
    }

    /// Waits until the first page is there.
    fn wait(&self) -> Result {
        let mm = mm::get(self.resolver.notifier.mm()).ok_or(ESRCH)?;
        let _charged = mm::charge_to(&mm);
        let write = Want::of(&self.request).writes();
        let va = self.request.va.get() as usize;
        while !should_stop() {
            match mm::fault_in_waiting(&mm, va, write) {
                Err(error) if error == EAGAIN => {}
                result => return result,
            }
        }
        Err(EINTR)
    }
}

impl Resolver {
    /// Has a request wait in a thread of its own.
    pub(super) fn wait_for(self: &Arc<Self>, request: wire::DeviceRequest) {
        self.device.link.stats.waits.add(1);
        let begun = (|| {
            let mut waiting = self.waiting.lock();
            waiting.retain(|thread| !thread.has_ended());
            if self.mirror.is_closed() {
                // Nobody ends threads that begin now.
                return Err(ENODEV);
            }
            if waiting.len() >= MAX_WAITING {
                self.device.link.stats.device_errors.add(1);
                return Err(EBUSY);
            }
            waiting.reserve(1, GFP_KERNEL)?;
            let resolver = self.clone();
            let thread = Thread::new(c"coax_wait", Waiting { resolver, request })?;
            waiting.push(thread, GFP_KERNEL)?;
            Ok(())
        })();
        if begun.is_err() {
            // The device asks again.
            self.respond(&request, wire::RESPONSE_SUCCESS);
        }
    }

    /// Whether threads wait.
    pub(super) fn is_waiting(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.iter().any(|thread| !thread.has_ended())
    }

    /// Ends all threads that wait.
    pub(super) fn stop_waiting(&self) {
        let threads = core::mem::take(&mut *self.waiting.lock());
        drop(threads);
    }
}

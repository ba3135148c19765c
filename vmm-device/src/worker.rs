// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loop of one engine's thread: takes commands from its queue, runs them in steps, parks
//! those that miss a translation and answers those that end.
//!
//! Commands that can go on take turns, one step each, so that a long command delays others by
//! a step at most; new commands and resumed ones are taken in between.
//!
//! While the front end has the ring stopped, as when the VM is paused, nothing runs; commands
//! and answers are kept until the ring is started again, or dropped when the device is reset.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Mutex;

use coax_abi::wire::{
    self, CommandReply, QUEUE_SIZE, STATUS_ABORTED, STATUS_BAD_CONTEXT, STATUS_BAD_GPA,
    STATUS_BAD_MESSAGE, STATUS_FAULT, STATUS_OK, STATUS_RESPONSE_FAILURE,
};
use vm_memory::GuestAddressSpace;
use zerocopy::IntoBytes;

use crate::command::Request;
use crate::device::Device;
use crate::engine::{Operation, Progress, Step};
use crate::job::{Job, Resumed, Verdict};
use crate::queue::{self, Chain, ReplySlot, Ring};
use crate::sync::lock;

/// Most commands of one engine that are not yet answered. A driver that follows the rules
/// cannot exceed the queue's size.
const MAX_JOBS: usize = QUEUE_SIZE as usize;

/// An engine: its number and the commands that can go on.
#[derive(Debug)]
pub struct Worker {
    engine: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runnable: VecDeque<Box<Job>>,
    parked: usize,
    /// Answers that are to be put into the used ring.
    owed: Vec<(ReplySlot, CommandReply)>,
    /// [`Device::resets`] that the state belongs to.
    resets: u64,
}

/// Why no more commands were taken from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// There are none.
    Drained,
    /// The limit is reached and a command has to end first, or the ring makes no sense and the
    /// driver has to kick again.
    Stopped,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    status: u32,
    fault_va: u64,
    fault_access: u32,
}

impl End {
    fn status(status: u32) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn at(status: u32, fault_va: u64) -> Self {
        Self {
            status,
            fault_va,
            fault_access: 0,
        }
    }
}

impl Worker {
    /// An engine without commands.
    pub fn new(engine: usize) -> Self {
        Self {
            engine,
            state: Mutex::default(),
        }
    }

    /// Waits until the engine neither runs a step nor answers.
    pub fn wait_idle(&self) {
        drop(lock(&self.state));
    }

    /// Runs until there is nothing left to do or the ring is stopped.
    pub fn run(&self, device: &Device, ring: &Ring) {
        let mut state = lock(&self.state);
        let Some(inbox) = device.pri.inbox(self.engine) else {
            return;
        };
        if state.resets != device.resets() {
            state.resets = device.resets();
            state.owed.clear();
        }
        inbox.clear_wake();
        while !device.shutting_down() {
            for resumed in inbox.take() {
                state.parked -= 1;
                self.resume(device, ring, &mut state, resumed);
            }
            let wanted = device.intake.wanted();
            if !queue::started(ring) {
                device.intake.looked(self.engine, wanted);
                self.end_aborted(device, ring, &mut state);
                return;
            }
            state.pay(device, ring);
            let intake = self.take_new(device, ring, &mut state);
            device.intake.looked(self.engine, wanted);
            match (state.runnable.pop_front(), intake) {
                (Some(job), _) => self.advance(device, ring, &mut state, job),
                (None, Intake::Drained) if self.more_came(device, ring) => {}
                (None, _) => return,
            }
        }
        // Nobody waits for the rest: it is dropped, so that contexts count as drained.
        state.runnable.clear();
        inbox.take();
        device.intake.looked(self.engine, device.intake.wanted());
    }

    /// Ends the aborted jobs among those that could go on.
    fn end_aborted(&self, device: &Device, ring: &Ring, state: &mut State) {
        for job in std::mem::take(&mut state.runnable) {
            if job.member.aborted() {
                finish(device, ring, state, *job, End::status(STATUS_ABORTED));
            } else {
                state.runnable.push_back(job);
            }
        }
    }

    /// Asks for kicks; true if commands came in the meantime.
    fn more_came(&self, device: &Device, ring: &Ring) -> bool {
        queue::await_kick(ring, &device.memory.memory()).unwrap_or_else(|error| {
            device.queue_error("command", &error);
            false
        })
    }

    /// Takes commands from the queue.
    fn take_new(&self, device: &Device, ring: &Ring, state: &mut State) -> Intake {
        while state.runnable.len() + state.parked < MAX_JOBS {
            let memory = device.memory.memory();
            match queue::take(
                ring,
                &memory,
                size_of::<wire::Command>(),
                size_of::<CommandReply>(),
            ) {
                Ok(Some(chain)) => self.start(device, ring, state, chain),
                Ok(None) => return Intake::Drained,
                Err(error) => {
                    device.queue_error("command", &error);
                    return Intake::Stopped;
                }
            }
        }
        Intake::Stopped
    }

    /// Starts a command, or answers it at once.
    fn start(&self, device: &Device, ring: &Ring, state: &mut State, chain: Chain) {
        device.stats.commands.bump();
        let request = chain
            .request
            .as_deref()
            .ok_or(STATUS_BAD_MESSAGE)
            .and_then(Request::decode);
        let started = request.and_then(|request| {
            log::trace!("{request:x?}");
            let member = device
                .contexts
                .join(request.context)
                .ok_or(STATUS_BAD_CONTEXT)?;
            Ok((Operation::start(&request.command, &device.tiles)?, member))
        });
        match started {
            Ok((operation, member)) => state.runnable.push_back(Box::new(Job {
                operation,
                reply: chain.reply,
                engine: self.engine,
                page_requests: 0,
                fruitless: 0,
                parked_at: None,
                member,
            })),
            Err(status) => {
                device.guest_error(format_args!("command refused, status {status}"));
                let message = reply(device, End::status(status), &Progress::default(), 0);
                state.owed.push((chain.reply, message));
                state.pay(device, ring);
            }
        }
    }

    /// Goes on with a job that comes back, or ends it.
    fn resume(&self, device: &Device, ring: &Ring, state: &mut State, resumed: Resumed) {
        let goes_on = matches!(resumed.verdict, Verdict::Retry | Verdict::Stepped(_));
        if let Some(asked_at) = resumed.asked_at.filter(|_| goes_on) {
            device.stats.record_fault(asked_at.elapsed());
        }
        let end = match resumed.verdict {
            Verdict::Retry => return state.runnable.push_back(resumed.job),
            Verdict::Stepped(step) => return self.settle(device, ring, state, resumed.job, step),
            Verdict::Fault { va, access } => End {
                status: STATUS_FAULT,
                fault_va: va,
                fault_access: access.wire(),
            },
            Verdict::Failure { va } => End::at(STATUS_RESPONSE_FAILURE, va),
            Verdict::Aborted => End::status(STATUS_ABORTED),
        };
        finish(device, ring, state, *resumed.job, end);
    }

    /// Takes one step of a job.
    fn advance(&self, device: &Device, ring: &Ring, state: &mut State, mut job: Box<Job>) {
        let step = job.step(device);
        self.settle(device, ring, state, job, step);
    }

    /// Goes on with a job after a step.
    fn settle(
        &self,
        device: &Device,
        ring: &Ring,
        state: &mut State,
        mut job: Box<Job>,
        step: Step,
    ) {
        match step {
            Step::More => state.runnable.push_back(job),
            Step::Compute => {
                device.stats.at_work(|| job.operation.compute());
                state.runnable.push_back(job);
            }
            Step::Done(status) => finish(device, ring, state, *job, End::status(status)),
            Step::BadGpa(va) => {
                device.guest_error(format_args!("address {va:#x} is translated to no memory"));
                finish(device, ring, state, *job, End::at(STATUS_BAD_GPA, va));
            }
            Step::Missing(misses) => {
                state.parked += 1;
                device.pri.park(job, misses);
            }
        }
    }
}

/// Answers a command and lets go of it.
fn finish(device: &Device, ring: &Ring, state: &mut State, job: Job, end: End) {
    let message = reply(device, end, &job.operation.progress(), job.page_requests);
    state.owed.push((job.reply, message));
    if queue::started(ring) {
        state.pay(device, ring);
    }
    // The membership ends here, after the answer, unless the ring is stopped.
}

fn reply(device: &Device, end: End, progress: &Progress, page_requests: u64) -> CommandReply {
    if end.status != STATUS_OK {
        device.stats.commands_failed.bump();
    }
    CommandReply {
        status: end.status.into(),
        fault_access: end.fault_access.into(),
        fault_va: end.fault_va.into(),
        bytes_done: progress.bytes_done.into(),
        page_requests: page_requests.into(),
        result: progress.result,
    }
}

impl State {
    /// Puts the answers into the used ring.
    fn pay(&mut self, device: &Device, ring: &Ring) {
        for (slot, message) in self.owed.drain(..) {
            match queue::answer(ring, &device.memory.memory(), &slot, message.as_bytes()) {
                Ok(true) => {}
                Ok(false) => {
                    device.guest_error(format_args!("command queue: no room for the reply"));
                }
                Err(error) => device.queue_error("command", &error),
            }
        }
    }
}

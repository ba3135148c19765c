// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine works through: queues, guest memory, engines' threads, counters.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coax_abi::wire::{
    CommandReply, QUEUE_COMMAND, STATUS_ABORTED, STATUS_BAD_GPA, STATUS_FAULT, STATUS_OK,
    STATUS_RESPONSE_FAILURE,
};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};
use zerocopy::IntoBytes;

use crate::commands::{End, Outcome, Waited};
use crate::deviations::Deviations;
use crate::dma::{regions, DeviceMemory, Window};
use crate::engine::gemm::TilePool;
use crate::engine::{Progress, Step};
use crate::guest_log::GuestLog;
use crate::job::{Job, MAX_FRUITLESS};
use crate::machine::{Outside, Pace};
use crate::resolve::service::TranslationService;
use crate::services::pcie::Pcie;
use crate::services::virtqueue::Requests;
use crate::services::Services;
use crate::stats::Stats;
use crate::sync::lock;
use crate::transport::chain::ReplySlot;
use crate::transport::port::{self, Answered, Port};
use crate::transport::{thread_of, THREAD_ENGINE};

/// Longest step that others wait for: invalidations are behind it.
const BRIEF: Duration = Duration::from_micros(20);

/// What surrounds the machine.
#[derive(Debug)]
pub struct Shell {
    /// Guest memory, replaced whenever the front end sends a new table.
    pub memory: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Where device memory lies.
    pub device_memory: Mutex<DeviceMemory>,
    /// Queues, by number.
    pub ports: Vec<Arc<Port>>,
    /// Held while chains of an engine's queue become commands, so that whoever has had it knows
    /// that what was taken before is known.
    pub intake: Vec<Mutex<()>>,
    /// Buffers that matrix multiplications share.
    pub tiles: TilePool,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Log of guest mistakes.
    pub log: Arc<GuestLog>,
    /// What the device does otherwise.
    pub deviations: Deviations,
    /// Events that have the threads look for work.
    wakers: Vec<EventFd>,
    /// Who translates.
    pub service: Services,
}

impl Shell {
    /// A shell for this many queues.
    pub fn new(queues: u16, deviations: Deviations) -> io::Result<Self> {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let ports: Vec<Arc<Port>> = (0..queues)
            .map(|_| Arc::new(Port::new(memory.clone())))
            .collect();
        let engines = usize::from(queues - QUEUE_COMMAND);
        let wakers = (0..THREAD_ENGINE + engines)
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<io::Result<Vec<_>>>()?;
        let stats = Arc::new(Stats::default());
        let log = Arc::new(GuestLog::default());
        let service = Services {
            virtqueue: Requests::new(&ports, Arc::clone(&stats), Arc::clone(&log), deviations),
            pcie: Pcie::new(Arc::clone(&stats))?,
        };
        Ok(Self {
            memory,
            device_memory: Mutex::default(),
            ports,
            intake: (0..engines).map(|_| Mutex::default()).collect(),
            tiles: TilePool::default(),
            stats,
            log,
            deviations,
            wakers,
            service,
        })
    }

    /// Queue with this number, which exists.
    pub fn port(&self, queue: u16) -> &Port {
        &self.ports[usize::from(queue)]
    }

    /// Command queue of an engine, which exists.
    pub fn command_port(&self, engine: usize) -> &Port {
        &self.ports[usize::from(QUEUE_COMMAND) + engine]
    }

    /// Event that has a thread look for work.
    pub fn wake_fd(&self, thread: usize) -> Option<RawFd> {
        self.wakers.get(thread).map(AsRawFd::as_raw_fd)
    }

    /// The same event, for another to raise.
    pub fn waker(&self, thread: usize) -> Option<EventFd> {
        let waker = self.wakers.get(thread)?.try_clone();
        waker
            .inspect_err(|error| log::error!("cannot share the event of thread {thread}: {error}"))
            .ok()
    }

    /// Resets the event of a thread, which is going to look.
    pub fn clear_wake(&self, thread: usize) {
        if let Some(waker) = self.wakers.get(thread) {
            // Nothing to read means that the event was not raised, which is fine.
            let _ = waker.read();
        }
    }

    /// Has the thread of a queue look for work.
    pub fn wake_queue(&self, queue: u16) {
        self.wake_thread(thread_of(queue));
    }

    /// Has all threads look for work.
    pub fn wake_all(&self) {
        (0..self.wakers.len()).for_each(|thread| self.wake_thread(thread));
    }

    fn wake_thread(&self, thread: usize) {
        let woken = self.wakers.get(thread).map(|waker| waker.write(1));
        if let Some(Err(error)) = woken {
            log::error!("cannot wake thread {thread}: {error}");
        }
    }

    /// Answers a command.
    pub fn reply(&self, engine: usize, reply: ReplySlot, message: &CommandReply) {
        if message.status != STATUS_OK {
            self.stats.commands_failed.bump();
        }
        match self.command_port(engine).answer(reply, message.as_bytes()) {
            Ok(Answered::Delivered) => {}
            Ok(Answered::NoRoom) => {
                self.guest_error(format_args!("command queue: no room for the reply"));
            }
            Err(error) => self.queue_error("command", &error),
        }
    }

    /// Counts and logs a mistake of the guest.
    pub fn guest_error(&self, what: std::fmt::Arguments<'_>) {
        self.stats.guest_errors.bump();
        self.log.warn(what);
    }

    /// Counts and logs the failure of a ring operation.
    pub fn queue_error(&self, queue: &str, error: &port::Error) {
        let mut text = format!("{queue} queue: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        self.guest_error(format_args!("{text}"));
    }

    /// What a step that was taken comes to, in the space where it was.
    fn outcome(&self, job: &mut Job, step: Step, atc: &crate::mmu::atc::Atc) -> Outcome {
        match step {
            Step::More => Outcome::More,
            Step::Compute => {
                job.computes = true;
                Outcome::More
            }
            Step::Done(status) => Outcome::Ended(End::Status(status)),
            Step::BadGpa(va) => {
                self.guest_error(format_args!("address {va:#x} is translated to no memory"));
                Outcome::Ended(End::BadGpa { va })
            }
            Step::Missing(misses) => {
                self.stats.commands_parked.bump();
                let outcome = job.missed(&misses, atc);
                if let Outcome::Ended(End::Failure { va }) = outcome {
                    self.log.warn(format_args!(
                        "address {va:#x} is not translated after {MAX_FRUITLESS} attempts"
                    ));
                }
                outcome
            }
        }
    }
}

impl Outside for Shell {
    type Job = Box<Job>;

    fn step(&self, job: &mut Box<Job>, pace: Pace) -> Outcome {
        if job.computes {
            if pace == Pace::Full {
                self.stats.at_work(|| job.operation.compute());
                job.computes = false;
            }
            return Outcome::More;
        }
        let memory = self.memory.memory();
        let regions = regions(&memory);
        let device_memory = *lock(&self.device_memory);
        let space = Arc::clone(&job.space);
        let inside = space.enter();
        let deadline = (pace == Pace::Brief).then(|| Instant::now() + BRIEF);
        let mut window = Window::new(&inside, &regions, device_memory)
            .counting(space.threshold())
            .interrupted_by(inside.waiting(), deadline);
        let step = self.stats.at_work(|| job.operation.step(&mut window));
        let hot = window.count(&self.stats);
        let outcome = self.outcome(job, step, &inside);
        drop(inside);
        // Before the command is answered, so that who has its answer finds them.
        self.service.virtqueue.tell(space.id(), &hot);
        outcome
    }

    fn steps_at_once(&self, engine: usize, job: &Box<Job>, idle: bool) -> bool {
        let started = self.command_port(engine).life() == Some(job.reply.life());
        started && (idle || job.contends())
    }

    fn waited(&self, job: &mut Box<Job>, waited: &Waited) {
        job.page_requests += waited.page_requests;
        if let Some(since) = waited.since {
            self.stats.record_fault(since.elapsed());
        }
    }

    fn end(&self, engine: usize, job: Box<Job>, end: End) {
        let Progress { bytes_done, result } = job.operation.progress();
        let (status, fault_va, fault_access) = match end {
            End::Status(status) => (status, 0, 0),
            End::BadGpa { va } => (STATUS_BAD_GPA, va, 0),
            End::Fault { va, access } => (STATUS_FAULT, va, access.wire()),
            End::Failure { va } => (STATUS_RESPONSE_FAILURE, va, 0),
            End::Aborted => (STATUS_ABORTED, 0, 0),
        };
        let message = CommandReply {
            status: status.into(),
            fault_access: fault_access.into(),
            fault_va: fault_va.into(),
            bytes_done: bytes_done.into(),
            page_requests: job.page_requests.into(),
            result,
        };
        self.reply(engine, job.reply, &message);
    }

    fn wake(&self, engine: usize) {
        self.wake_thread(THREAD_ENGINE + engine);
    }

    fn service(&self) -> &dyn TranslationService {
        &self.service
    }

    fn deferred(&self, requests: u64) {
        self.stats.requests_deferred.add(requests);
    }

    fn evicted(&self, translations: u64) {
        self.stats.atc_evictions.add(translations);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device between its threads: commands, requests and address spaces, and the order in which
//! they are touched.
//!
//! [`Outside`] is all that it knows of queues, memory and engines, so that every order of events can
//! be tried without any of them: see `tests/model`.
//!
//! Locks: `sending`, then `commands`. The spaces' locks are leaves, and none of the others is held
//! while one is taken. Nothing is done outside with `commands` locked; requests are sent with
//! `sending` locked, so that whoever has had it knows that those given out before are in the queue.
//! [`Machine::invalidate`] takes no lock but a space's.
//!
//! A close, a reset: no command comes any more, those that wait end; the last request that was
//! given out is in the queue; the space is closed, which waits for accesses in progress; the
//! commands that ran a step have ended and been answered; the number is free again. A defect that
//! keeps a command from ending ends the process: nobody is told what is not so.
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::commands::{CommandId, Commands, Effect, End, Held, Outcome, Waited};
use crate::mmu::atc::Translation;
use crate::mmu::{ContextId, Mmu};
use crate::resolve::service::TranslationService;
use crate::resolve::tags::Answered;
use crate::resolve::windows::Want;
use crate::resolve::ResponseCode;
use crate::sync::{lock, wait_for, Condvar, Mutex};

/// How long a step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As long as nobody waits for it.
    Full,
    /// Some microseconds: others wait for the thread that takes it.
    Brief,
}

/// What the machine works through.
pub trait Outside {
    /// What a command is.
    type Job;

    /// Takes a step, inside the command's space.
    fn step(&self, job: &mut Self::Job, pace: Pace) -> Outcome;

    /// Whether a command that can go on takes its next step at once, on the thread that brought
    /// what it waited for; `idle` if its engine has to be woken otherwise.
    fn steps_at_once(&self, engine: usize, job: &Self::Job, idle: bool) -> bool;

    /// Adds to what a command is told that it waited for.
    fn waited(&self, job: &mut Self::Job, waited: &Waited);

    /// Answers a command.
    fn end(&self, engine: usize, job: Self::Job, end: End);

    /// Has an engine's thread look for commands.
    fn wake(&self, engine: usize);

    /// Who translates.
    fn service(&self) -> &dyn TranslationService;

    /// Requests had to wait for the allocation or a share.
    fn deferred(&self, requests: u64);

    /// Translations were given up for others.
    fn evicted(&self, translations: u64);
}

/// The device between its threads.
#[derive(Debug)]
pub struct Machine<O: Outside> {
    commands: Mutex<Commands<O::Job>>,
    drained: Condvar,
    /// [`TranslationService::life`] that requests were sent in.
    sending: Mutex<u64>,
    /// Address spaces.
    pub mmu: Mmu,
    /// What it works through.
    pub outside: O,
}

type Effects<J> = Vec<Effect<J>>;

impl<O: Outside> Machine<O> {
    /// A machine at power-on.
    pub fn new(contexts: u32, engines: usize, requests: u32, outside: O) -> Self {
        Self {
            commands: Mutex::new(Commands::new(engines, requests)),
            drained: Condvar::new(),
            sending: Mutex::new(0),
            mmu: Mmu::new(contexts),
            outside,
        }
    }

    /// Opens a context.
    pub fn open(&self, number: u32) -> Option<ContextId> {
        let id = self.mmu.open(number)?;
        lock(&self.commands).open(id);
        Some(id)
    }

    /// Adds a command from an engine's queue in this life; gives it back if the context is not open.
    pub fn submit(
        &self,
        engine: usize,
        life: u64,
        context: ContextId,
        job: O::Job,
    ) -> Result<(), O::Job> {
        let mut effects = Effects::new();
        let submitted = lock(&self.commands).submit(engine, life, context, job, &mut effects);
        self.perform(effects);
        submitted
    }

    /// Whether an engine may take more commands from its queue.
    pub fn has_room(&self, engine: usize) -> bool {
        lock(&self.commands).has_room(engine)
    }

    /// Takes one step of the next command of an engine whose queue is in this life; false if there
    /// is none.
    pub fn run(&self, engine: usize, life: u64) -> bool {
        let mut effects = Effects::new();
        let taken = lock(&self.commands).take(engine, life, &mut effects);
        self.perform(effects);
        let Some((id, held)) = taken else {
            return false;
        };
        self.step(id, held, Pace::Full);
        true
    }

    /// An engine's thread is at work; [`Self::run`] is to follow.
    pub fn awake(&self, engine: usize) {
        lock(&self.commands).awake(engine);
    }

    /// An engine's thread goes to sleep although there may be commands.
    pub fn rest(&self, engine: usize) {
        lock(&self.commands).rest(engine);
    }

    fn step(&self, id: CommandId, mut held: Held<O::Job>, pace: Pace) {
        let outcome = self.outside.step(&mut held.job, pace);
        self.settle(id, held, outcome);
    }

    fn settle(&self, id: CommandId, held: Held<O::Job>, outcome: Outcome) {
        let mut effects = Effects::new();
        let due = {
            let mut commands = lock(&self.commands);
            commands.settle(id, held, outcome, &mut effects);
            // A step that was aborted may be what somebody waits for.
            self.drained.notify_all();
            commands.resolve.has_due()
        };
        self.perform(effects);
        if due {
            self.send();
        }
    }

    /// Sends the requests that may be sent.
    pub fn send(&self) {
        let service = self.outside.service();
        let mut life = lock(&self.sending);
        if *life != service.life() {
            *life = service.life();
            lock(&self.commands).resolve.resend();
        }
        let mut sent = false;
        let deferred = loop {
            let next = {
                let mut commands = lock(&self.commands);
                let next = commands.request(Instant::now());
                next.ok_or_else(|| commands.resolve.count_deferred())
            };
            match next {
                Ok(request) if service.request(&request) => sent = true,
                Ok(request) => {
                    lock(&self.commands).resolve.unsent(&request);
                    break 0;
                }
                Err(deferred) => break deferred,
            }
        };
        if sent {
            service.flush();
        }
        self.outside.deferred(deferred);
    }

    /// Requests that the driver may still answer.
    pub fn requests_outstanding(&self) -> u32 {
        lock(&self.commands).resolve.outstanding()
    }

    /// Takes the answer to a request; false if there is no such request.
    pub fn answered(
        &self,
        context: ContextId,
        tag: u32,
        code: Option<ResponseCode>,
        entries: &[Translation],
    ) -> bool {
        let mut effects = Effects::new();
        let mut commands = lock(&self.commands);
        let answered = commands.resolve.answer(context, tag);
        if answered == Answered::Orphan && code == Some(ResponseCode::ResponseFailure) {
            // At once, so that no abort comes in between.
            commands.stop(context, &mut effects);
        }
        drop(commands);
        self.perform(effects);
        if answered == Answered::Unknown {
            return false;
        }
        // First of all, so that whoever is resumed finds them. A command may be aborted in between;
        // its context then is not filled if it is closing, and rightly filled if it stays open.
        if matches!(code, None | Some(ResponseCode::Success)) {
            self.fill(context, entries);
        }
        if let Answered::Waiting((id, want)) = answered {
            self.resolved(id, &want, code);
        }
        if lock(&self.commands).resolve.has_due() {
            self.send();
        }
        true
    }

    /// A request of a command that waits was answered, and its translations are there.
    fn resolved(&self, id: CommandId, want: &Want, code: Option<ResponseCode>) {
        let mut effects = Effects::new();
        let mut commands = lock(&self.commands);
        let ready = commands.resolved(id, want, code, &mut effects);
        let idle = ready
            .as_ref()
            .is_some_and(|(_, held, _)| commands.is_idle(held.engine));
        drop(commands);
        self.perform(effects);
        if let Some((id, mut held, waited)) = ready {
            self.outside.waited(&mut held.job, &waited);
            if self.outside.steps_at_once(held.engine, &held.job, idle) {
                self.step(id, held, Pace::Brief);
            } else {
                self.settle(id, held, Outcome::More);
            }
        }
    }

    /// Adds translations to a context; false if it is not there.
    pub fn fill(&self, context: ContextId, entries: &[Translation]) -> bool {
        let Some(space) = self.mmu.get(context) else {
            return false;
        };
        self.outside.evicted(space.fill(entries));
        true
    }

    /// Forgets a range after the accesses in progress; false if the context is not there.
    pub fn invalidate(&self, context: ContextId, vpn: u64, npages: u64) -> bool {
        let Some(space) = self.mmu.get(context) else {
            return false;
        };
        space.invalidate(vpn, npages);
        true
    }

    /// Sets after how many accesses to a window that is told, 0 for never; false if the context is not there.
    pub fn notify(&self, context: ContextId, threshold: u32) -> bool {
        let Some(space) = self.mmu.get(context) else {
            return false;
        };
        space.set_threshold(threshold);
        true
    }

    /// Sets how many requests may be outstanding; false if out of range.
    pub fn set_allocation(&self, requests: u64) -> bool {
        let set = lock(&self.commands).resolve.set_allocation(requests);
        self.send();
        set
    }

    /// The contexts that are open.
    pub fn contexts(&self) -> Vec<ContextId> {
        lock(&self.commands).contexts()
    }

    /// Closes a context; false if it is not open.
    pub fn close(&self, context: ContextId) -> bool {
        let mut effects = Effects::new();
        let open = lock(&self.commands).close(context, &mut effects);
        self.perform(effects);
        if open {
            self.finish(context);
            self.send();
        }
        open
    }

    /// What is left to do when no command of a context comes any more.
    fn finish(&self, context: ContextId) {
        drop(lock(&self.sending));
        if let Some(space) = self.mmu.get(context) {
            space.close();
        }
        self.drain(context);
        lock(&self.commands).closed(context);
        self.mmu.remove(context);
    }

    fn drain(&self, context: ContextId) {
        wait_for(
            &self.drained,
            &self.commands,
            "end of aborted commands",
            |commands| commands.drained(context),
        );
    }

    /// Aborts all commands and drops all translations; contexts stay open.
    pub fn abort_all(&self) {
        let mut effects = Effects::new();
        let contexts = {
            let mut commands = lock(&self.commands);
            let contexts = commands.contexts();
            for &context in &contexts {
                commands.abort(context, &mut effects);
            }
            contexts
        };
        self.perform(effects);
        for context in contexts {
            if let Some(space) = self.mmu.get(context) {
                space.clear();
            }
            self.drain(context);
        }
    }

    /// Returns to the state at power-on. When this returns, no command of before accesses memory
    /// or will be answered.
    pub fn reset(&self) {
        let mut effects = Effects::new();
        let contexts = lock(&self.commands).reset(&mut effects);
        self.perform(effects);
        for context in contexts {
            self.finish(context);
        }
    }

    /// Does what is to be done, with no lock held.
    fn perform(&self, effects: Effects<O::Job>) {
        for effect in effects {
            match effect {
                Effect::Wake(engine) => self.outside.wake(engine),
                Effect::Drop(job) => drop(job),
                Effect::End(held, end, waited) => self.answer(held, end, &waited),
            }
        }
    }

    fn answer(&self, held: Held<O::Job>, end: End, waited: &Waited) {
        let (mut job, rest) = held.split();
        self.outside.waited(&mut job, waited);
        self.outside.end(rest.engine, job, end);
        lock(&self.commands).released(&rest);
        self.drained.notify_all();
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands on their way through the device, and what they wait for.
//!
//! A pure state machine: no thread, no lock, no clock, no queue. Events come in, [`Effect`]s go out;
//! [`crate::machine`] does what they say.
//!
//! ```text
//! submit ─▶ runnable ─take─▶ running ─settle─▶ ended
//!              ▲                │ missing
//!              └──── resolve ── waiting ──refused─▶ ended
//! ```
//!
//! 1. A command belongs to one opening of a context and to the *epoch* that this was in when the
//!    command was submitted. An abort starts a new epoch: what runs no step ends at once, what runs
//!    one ends after it, without another and without a further request.
//! 2. Whoever holds a job outside this file, for a step or to answer it, is counted in its epoch, so
//!    that an abort can wait until nobody does.
//! 3. A command is named by an index and a generation, so that what comes late finds nobody.
//! 4. Contexts take turns on each engine, one step each.
#![forbid(unsafe_code)]

mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Instant;

use crate::access::{Access, Miss};
use crate::fair::Fair;
use crate::mmu::ContextId;
use crate::resolve::windows::Want;
use crate::resolve::{Request, Resolve, ResponseCode};

/// Most commands of one engine that are not yet answered. A driver that follows the rules cannot
/// exceed the queue's size.
pub const MAX_COMMANDS: usize = coax_abi::wire::QUEUE_SIZE as usize;

/// Names a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId {
    index: u32,
    generation: u32,
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this `STATUS_*`.
    Status(u32),
    /// The translation of this address names no memory.
    BadGpa {
        /// Address.
        va: u64,
    },
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
    /// Its context was closed or reset.
    Aborted,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is more to do.
    More,
    /// It cannot go on without these, the first of which is where it is.
    Missing(Vec<Want>),
    /// It is done.
    Ended(End),
}

/// What a command waited for since it was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Requests that became page requests.
    pub page_requests: u64,
    /// When the first request was sent, if any became a page request.
    pub since: Option<Instant>,
}

/// A command that is handed out, for a step or to be answered.
#[derive(Debug)]
pub struct Held<J> {
    /// The job.
    pub job: J,
    /// Whose it is.
    pub context: ContextId,
    /// Engine that it was submitted to.
    pub engine: usize,
    /// Epoch that it is counted in.
    epoch: u64,
}

impl<J> Held<J> {
    /// The job, and what is to be released.
    pub fn split(self) -> (J, Held<()>) {
        let rest = Held {
            job: (),
            context: self.context,
            engine: self.engine,
            epoch: self.epoch,
        };
        (self.job, rest)
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect<J> {
    /// Answer the command, then say so by [`Commands::released`].
    End(Held<J>, End, Waited),
    /// Let go of the command, of which its driver knows nothing any more.
    Drop(J),
    /// Have the engine look for commands.
    Wake(usize),
}

/// All commands that are not yet answered, and their requests.
#[derive(Debug)]
pub struct Commands<J> {
    slots: Vec<Slot<J>>,
    free: Vec<u32>,
    engines: Vec<Engine>,
    contexts: HashMap<ContextId, Context>,
    /// Requests for what commands lack.
    pub resolve: Resolve<CommandId>,
}

#[derive(Debug)]
struct Slot<J> {
    generation: u32,
    command: Option<Command<J>>,
}

#[derive(Debug)]
struct Command<J> {
    engine: usize,
    context: ContextId,
    state: State<J>,
}

#[derive(Debug)]
enum State<J> {
    Runnable(J),
    Running,
    Waiting {
        job: J,
        unanswered: usize,
        /// When the first request was sent.
        since: Option<Instant>,
        page_requests: u64,
    },
}

#[derive(Debug)]
struct Engine {
    runnable: Fair<ContextId, CommandId>,
    /// Commands not yet answered.
    count: usize,
    /// Its thread found nothing to do and has to be woken.
    idle: bool,
    /// Its thread found no room for more commands.
    full: bool,
    /// Life of the queue that the commands came from.
    life: u64,
}

#[derive(Debug, Default)]
struct Context {
    closing: bool,
    epoch: u64,
    /// Commands of this epoch that are held outside.
    held: usize,
    /// Commands of earlier epochs that are held outside.
    held_aborted: usize,
}

impl<J> Commands<J> {
    /// No commands, for `engines` engines; `capacity` requests at most.
    pub fn new(engines: usize, capacity: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            engines: (0..engines)
                .map(|_| Engine {
                    runnable: Fair::default(),
                    count: 0,
                    idle: true,
                    full: false,
                    life: 0,
                })
                .collect(),
            contexts: HashMap::new(),
            resolve: Resolve::new(capacity),
        }
    }

    /// Lets commands of a context come.
    pub fn open(&mut self, context: ContextId) {
        self.contexts.insert(context, Context::default());
    }

    /// Adds a command from a queue in this life; gives it back if the context is not open.
    pub fn submit(
        &mut self,
        engine: usize,
        life: u64,
        context: ContextId,
        job: J,
        effects: &mut Vec<Effect<J>>,
    ) -> Result<(), J> {
        self.renew(engine, life, effects);
        if self.engines[engine].life != life {
            effects.push(Effect::Drop(job));
            return Ok(());
        }
        if self.contexts.get(&context).is_none_or(|open| open.closing) {
            return Err(job);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                command: None,
            });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.command = Some(Command {
            engine,
            context,
            state: State::Runnable(job),
        });
        let id = CommandId {
            index,
            generation: slot.generation,
        };
        self.engines[engine].count += 1;
        self.enqueue(engine, context, id, effects);
        Ok(())
    }

    /// Whether an engine may take more commands from its queue. If not, it is woken when it may.
    pub fn has_room(&mut self, engine: usize) -> bool {
        let engine = &mut self.engines[engine];
        engine.full = engine.count >= MAX_COMMANDS;
        !engine.full
    }

    /// Takes the next command of an engine whose queue is in this life, for a step. The engine is
    /// woken when there is one again.
    pub fn take(
        &mut self,
        engine: usize,
        life: u64,
        effects: &mut Vec<Effect<J>>,
    ) -> Option<(CommandId, Held<J>)> {
        self.renew(engine, life, effects);
        if self.engines[engine].life != life {
            return None;
        }
        let taken = self.engines[engine].runnable.pop(|_| true);
        self.engines[engine].idle = taken.is_none();
        let (_, id) = taken?;
        Some((id, self.hold(id)?))
    }

    /// The engine's thread is at work: it needs no waking until it finds nothing to do.
    pub fn awake(&mut self, engine: usize) {
        self.engines[engine].idle = false;
    }

    /// The engine's thread goes to sleep with commands that it may not run.
    pub fn rest(&mut self, engine: usize) {
        self.engines[engine].idle = true;
    }

    /// Whether the engine's thread has to be woken.
    pub fn is_idle(&self, engine: usize) -> bool {
        self.engines[engine].idle
    }

    /// A command comes back from its step.
    pub fn settle(
        &mut self,
        id: CommandId,
        held: Held<J>,
        outcome: Outcome,
        effects: &mut Vec<Effect<J>>,
    ) {
        let Some(command) = self.get(id) else {
            // Its queue began another life, or the device was reset.
            self.release(held.context, held.epoch);
            return effects.push(Effect::Drop(held.job));
        };
        let (engine, context) = (command.engine, command.context);
        let open = self.contexts.get(&context);
        let aborted = open.is_none_or(|open| open.epoch != held.epoch);
        let end = match outcome {
            Outcome::Ended(end) => end,
            _ if aborted => End::Aborted,
            Outcome::More => {
                self.set(id, State::Runnable(held.job));
                self.release(context, held.epoch);
                return self.enqueue(engine, context, id, effects);
            }
            Outcome::Missing(wants) => {
                let va = wants.first().map_or(0, |want| want.miss.va);
                if !wants.is_empty() && self.resolve.add(context, id, &wants) {
                    let state = State::Waiting {
                        job: held.job,
                        unanswered: wants.len(),
                        since: None,
                        page_requests: 0,
                    };
                    self.set(id, state);
                    return self.release(context, held.epoch);
                }
                End::Failure { va }
            }
        };
        self.remove(id, effects);
        effects.push(Effect::End(held, end, Waited::default()));
    }

    /// The next request that may be sent; `now` is when.
    pub fn request(&mut self, now: Instant) -> Option<Request> {
        let (id, request) = self.resolve.take()?;
        if let Some(State::Waiting { since, .. }) = self.get(id).map(|command| &mut command.state) {
            since.get_or_insert(now);
        }
        Some(request)
    }

    /// A request of a command was answered; the answer's translations can be used already. Hands
    /// the command out for a step if that was the last one.
    pub fn resolved(
        &mut self,
        id: CommandId,
        want: &Want,
        code: Option<ResponseCode>,
        effects: &mut Vec<Effect<J>>,
    ) -> Option<(CommandId, Held<J>, Waited)> {
        let Miss { va, access, .. } = want.miss;
        let context = self.get(id)?.context;
        if let State::Waiting {
            unanswered,
            page_requests,
            ..
        } = &mut self.get(id)?.state
        {
            *unanswered -= 1;
            *page_requests += u64::from(code.is_some());
            let last = *unanswered == 0;
            match code {
                Some(ResponseCode::ResponseFailure) => {
                    self.end(id, End::Failure { va }, effects);
                    self.stop(context, effects);
                }
                Some(ResponseCode::InvalidRequest) if !want.ahead => {
                    self.end(id, End::Fault { va, access }, effects);
                }
                _ if last => {
                    let waited = self.waited(id);
                    return Some((id, self.hold(id)?, waited));
                }
                _ => {}
            }
        }
        None
    }

    /// Response Failure was answered in a context: it makes no request any more, and those of its commands
    /// end that have not made theirs.
    pub fn stop(&mut self, context: ContextId, effects: &mut Vec<Effect<J>>) {
        for (id, want) in self.resolve.stop(context) {
            let va = want.miss.va;
            self.end(id, End::Failure { va }, effects);
        }
    }

    /// Ends the commands of a context, except those that are submitted after this. Those that run a
    /// step end when they come back from it: see [`Self::drained`].
    pub fn abort(&mut self, context: ContextId, effects: &mut Vec<Effect<J>>) {
        for id in self.ids(|command| command.context == context) {
            self.end(id, End::Aborted, effects);
        }
        self.new_epoch(context);
    }

    /// Lets no command of a context come any more and ends those that are there; false if it is
    /// not open.
    pub fn close(&mut self, context: ContextId, effects: &mut Vec<Effect<J>>) -> bool {
        match self.contexts.get_mut(&context) {
            Some(open) if !open.closing => open.closing = true,
            _ => return false,
        }
        self.abort(context, effects);
        true
    }

    /// Whether everything that was aborted in a context has ended and been answered.
    pub fn drained(&self, context: ContextId) -> bool {
        let open = self.contexts.get(&context);
        open.is_none_or(|open| open.held_aborted == 0)
    }

    /// Forgets a context that was closed and is drained.
    pub fn closed(&mut self, context: ContextId) {
        self.contexts.remove(&context);
        self.resolve.forget(context);
    }

    /// Closes all contexts without answering their commands; returns them.
    pub fn reset(&mut self, effects: &mut Vec<Effect<J>>) -> Vec<ContextId> {
        for id in self.ids(|_| true) {
            self.discard(id, effects);
        }
        let contexts: Vec<ContextId> = self.contexts.keys().copied().collect();
        for &context in &contexts {
            if let Some(open) = self.contexts.get_mut(&context) {
                open.closing = true;
            }
            self.new_epoch(context);
        }
        self.resolve.reset();
        contexts
    }

    /// Contexts whose commands may come.
    pub fn contexts(&self) -> Vec<ContextId> {
        let open = self.contexts.iter().filter(|(_, open)| !open.closing);
        open.map(|(&context, _)| context).collect()
    }

    /// A command that was handed out to be answered has been.
    pub fn released(&mut self, held: &Held<()>) {
        self.release(held.context, held.epoch);
    }
}

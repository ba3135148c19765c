// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tables behind [`Commands`]: what is where, and what a change in one means for the others.
#![forbid(unsafe_code)]

use super::{Command, CommandId, Commands, Effect, End, Held, State, Waited};
use crate::mmu::ContextId;

impl<J> Commands<J> {
    pub(super) fn release(&mut self, context: ContextId, epoch: u64) {
        if let Some(open) = self.contexts.get_mut(&context) {
            if open.epoch == epoch {
                open.held -= 1;
            } else {
                open.held_aborted -= 1;
            }
        }
    }

    pub(super) fn new_epoch(&mut self, context: ContextId) {
        if let Some(open) = self.contexts.get_mut(&context) {
            open.epoch += 1;
            open.held_aborted += std::mem::take(&mut open.held);
        }
        self.resolve.restart(context);
    }

    /// Forgets the commands of an engine whose queue was started anew elsewhere.
    pub(super) fn renew(&mut self, engine: usize, life: u64, effects: &mut Vec<Effect<J>>) {
        if self.engines[engine].life < life {
            self.engines[engine].life = life;
            for id in self.ids(|command| command.engine == engine) {
                self.discard(id, effects);
            }
        }
    }

    pub(super) fn get(&mut self, id: CommandId) -> Option<&mut Command<J>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.command
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }

    pub(super) fn set(&mut self, id: CommandId, state: State<J>) {
        if let Some(command) = self.get(id) {
            command.state = state;
        }
    }

    pub(super) fn ids(&self, wanted: impl Fn(&Command<J>) -> bool) -> Vec<CommandId> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.command.as_ref().is_some_and(&wanted))
            .map(|(index, slot)| CommandId {
                index,
                generation: slot.generation,
            })
            .collect()
    }

    /// Makes a command runnable that was put into its slot as such.
    pub(super) fn enqueue(
        &mut self,
        engine: usize,
        context: ContextId,
        id: CommandId,
        effects: &mut Vec<Effect<J>>,
    ) {
        let engine_state = &mut self.engines[engine];
        engine_state.runnable.push(context, id);
        if std::mem::take(&mut engine_state.idle) {
            effects.push(Effect::Wake(engine));
        }
    }

    /// Hands a command out that runs no step.
    pub(super) fn hold(&mut self, id: CommandId) -> Option<Held<J>> {
        let &mut Command {
            engine, context, ..
        } = self.get(id)?;
        let open = self.contexts.get_mut(&context)?;
        let epoch = open.epoch;
        let command = self.slots.get_mut(id.index as usize)?.command.as_mut()?;
        let job = match std::mem::replace(&mut command.state, State::Running) {
            State::Runnable(job) | State::Waiting { job, .. } => job,
            State::Running => return None,
        };
        // A command that runs no step is of this epoch: an abort would have ended it.
        open.held += 1;
        Some(Held {
            job,
            context,
            engine,
            epoch,
        })
    }

    pub(super) fn waited(&mut self, id: CommandId) -> Waited {
        match self.get(id).map(|command| &command.state) {
            Some(&State::Waiting {
                since,
                page_requests,
                ..
            }) => Waited {
                page_requests,
                since: since.filter(|_| page_requests > 0),
            },
            _ => Waited::default(),
        }
    }

    /// Ends a command, unless it runs a step.
    pub(super) fn end(&mut self, id: CommandId, end: End, effects: &mut Vec<Effect<J>>) {
        let waited = self.waited(id);
        let state = self.get(id).map(|command| &command.state);
        let waits = matches!(state, Some(State::Waiting { .. }));
        if let Some(held) = self.hold(id) {
            if waits {
                self.resolve.cancel(held.context, id);
            }
            self.remove(id, effects);
            effects.push(Effect::End(held, end, waited));
        }
    }

    /// Lets go of a command without an answer.
    pub(super) fn discard(&mut self, id: CommandId, effects: &mut Vec<Effect<J>>) {
        match self.remove(id, effects) {
            Some(State::Runnable(job) | State::Waiting { job, .. }) => {
                effects.push(Effect::Drop(job));
            }
            Some(State::Running) | None => {}
        }
    }

    /// Takes a command out of all tables.
    pub(super) fn remove(
        &mut self,
        id: CommandId,
        effects: &mut Vec<Effect<J>>,
    ) -> Option<State<J>> {
        self.get(id)?;
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let Command {
            engine,
            context,
            state,
        } = slot.command.take()?;
        self.free.push(id.index);
        if matches!(state, State::Waiting { .. }) {
            self.resolve.cancel(context, id);
        }
        let engine_state = &mut self.engines[engine];
        engine_state.runnable.remove(context, |&other| other == id);
        engine_state.count -= 1;
        if std::mem::take(&mut engine_state.full) {
            effects.push(Effect::Wake(engine));
        }
        Some(state)
    }
}

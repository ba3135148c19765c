// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is true in the model, whatever the device believes.
//!
//! Each page that the driver grants has a place of its own, which belongs to one opening of a
//! context until the invalidation that takes it back is answered, or the close of the context is.
//! Using a place that does not belong to the command's context ends the run. So does missing a page
//! whose translation the device has taken, and which nothing has taken away since; and a command that
//! is answered twice, or after the close of its context was answered, or never, or is lost although
//! its queue is in the same life and the device was not reset.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use crate::commands::End;
use crate::mmu::ContextId;
use crate::sync::{lock, wait_for, Condvar, Mutex};

/// What is known of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was submitted.
    Running,
    /// It was answered.
    Ended(End),
    /// It was refused, its queue began another life, or the device was reset.
    Forgotten,
}

/// How often spaces had been emptied when a fill began; `None` while one is.
#[derive(Clone, Copy, Debug)]
pub struct Filling(Option<usize>);

/// What is true.
#[derive(Debug, Default)]
pub struct Ledger {
    /// No lock of the model: looking at the truth is no event.
    truth: std::sync::Mutex<Truth>,
    open: Mutex<usize>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Truth {
    /// Whose each place is.
    places: HashMap<u64, ContextId>,
    last_place: u64,
    commands: Vec<(ContextId, Known)>,
    closed: HashSet<ContextId>,
    /// Pages that commands have to find.
    filled: HashSet<(ContextId, u64)>,
    /// Times that spaces began to be emptied, and that they were.
    emptying: usize,
    emptied: usize,
    resetting: bool,
    /// Commands that were submitted before the end of a reset.
    reset_until: usize,
}

impl Ledger {
    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a place for a page of a context.
    pub fn grant(&self, context: ContextId) -> u64 {
        let mut truth = self.truth();
        truth.last_place += crate::world::PAGE;
        let place = truth.last_place;
        truth.places.insert(place, context);
        place
    }

    /// Translations are given to the device from now on.
    pub fn filling(&self) -> Filling {
        let truth = self.truth();
        Filling((truth.emptying == truth.emptied).then_some(truth.emptying))
    }

    /// The device has taken the translation of a page.
    pub fn filled(&self, since: Filling, context: ContextId, vpn: u64) {
        let mut truth = self.truth();
        // Otherwise a space may have been emptied after it was filled.
        if since.0 == Some(truth.emptying) {
            truth.filled.insert((context, vpn));
        }
    }

    /// An invalidation of a page begins.
    pub fn taking_back(&self, context: ContextId, vpn: u64) {
        self.truth().filled.remove(&(context, vpn));
    }

    /// Does what empties spaces.
    pub fn empties<R>(&self, what: impl FnOnce() -> R) -> R {
        {
            let mut truth = self.truth();
            truth.emptying += 1;
            truth.filled.clear();
        }
        let result = what();
        self.truth().emptied += 1;
        result
    }

    /// Does what resets the device.
    pub fn resets<R>(&self, what: impl FnOnce() -> R) -> R {
        self.truth().resetting = true;
        let result = self.empties(what);
        let mut truth = self.truth();
        truth.resetting = false;
        truth.reset_until = truth.commands.len();
        result
    }

    /// A command does not find a page.
    pub fn missed(&self, context: ContextId, vpn: u64) {
        let filled = self.truth().filled.contains(&(context, vpn));
        assert!(
            !filled,
            "page {vpn} of {context} is missing although filled"
        );
    }

    /// The invalidation of a place was answered.
    pub fn taken_back(&self, place: u64) {
        self.truth().places.remove(&place);
    }

    /// A command of a context uses a place.
    pub fn used(&self, context: ContextId, place: u64) {
        let truth = self.truth();
        let owner = truth.places.get(&place);
        assert_eq!(owner, Some(&context), "stale use of a place");
        assert!(!truth.closed.contains(&context), "use after the close");
    }

    /// A command comes; returns its name.
    pub fn submitted(&self, context: ContextId) -> usize {
        *lock(&self.open) += 1;
        let mut truth = self.truth();
        truth.commands.push((context, Known::Running));
        truth.commands.len() - 1
    }

    /// A command is answered.
    pub fn ended(&self, name: usize, known: Known) {
        {
            let mut truth = self.truth();
            let (context, before) = truth.commands[name];
            assert_eq!(before, Known::Running, "command {name} ends twice");
            let late = truth.closed.contains(&context) && matches!(known, Known::Ended(_));
            assert!(!late, "command {name} is answered after the close");
            truth.commands[name].1 = known;
        }
        *lock(&self.open) -= 1;
        self.changed.notify_all();
    }

    /// All queues begin another life: their driver knows nothing of the commands in them.
    pub fn forget_all(&self) {
        let mut count = 0;
        for (_, known) in &mut self.truth().commands {
            if *known == Known::Running {
                *known = Known::Forgotten;
                count += 1;
            }
        }
        *lock(&self.open) -= count;
        self.changed.notify_all();
    }

    /// A command is refused, unless it is of no concern any more.
    pub fn refused(&self, name: usize) {
        if self.truth().commands[name].1 == Known::Running {
            self.ended(name, Known::Forgotten);
        }
    }

    /// A command is dropped, after its answer or without one.
    pub fn dropped(&self, name: usize) {
        let truth = self.truth();
        let running = truth.commands[name].1 == Known::Running;
        let reset = truth.resetting || name < truth.reset_until;
        drop(truth);
        // A run that fails is unwound in the middle.
        if running && !std::thread::panicking() {
            assert!(reset, "command {name} is lost");
            self.ended(name, Known::Forgotten);
        }
    }

    /// The close of a context was answered.
    pub fn closed(&self, context: ContextId) {
        let mut truth = self.truth();
        truth.places.retain(|_, owner| *owner != context);
        truth.closed.insert(context);
        drop(truth);
        self.none_running(self.submitted_so_far(), |owner| owner == context);
    }

    /// Commands submitted so far.
    pub fn submitted_so_far(&self) -> usize {
        self.truth().commands.len()
    }

    /// None of the first commands, of some contexts, is on its way any more; one that a reset has taken may
    /// be about to be dropped, which nobody waits for.
    pub fn none_running(&self, count: usize, of: impl Fn(ContextId) -> bool) {
        let truth = self.truth();
        for (name, &(context, known)) in truth.commands.iter().take(count).enumerate() {
            let reset = truth.resetting || name < truth.reset_until;
            let running = of(context) && known == Known::Running && !reset;
            assert!(!running, "command {name} has not ended");
        }
    }

    /// How many commands were answered otherwise than by an abort.
    pub fn completed(&self) -> usize {
        let truth = self.truth();
        let done = |known: &Known| matches!(known, Known::Ended(end) if *end != End::Aborted);
        truth
            .commands
            .iter()
            .filter(|(_, known)| done(known))
            .count()
    }

    /// Waits until no command is on its way. The checker finds a wait that never ends.
    pub fn all_ended(&self) {
        wait_for(&self.changed, &self.open, "commands", |open| *open == 0);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Contexts: address spaces in which commands run.
//!
//! Rules that keep accesses, invalidations and aborts right:
//!
//! 1. An engine accesses memory only under the read lock of the context's ATC, for one bounded
//!    step. Taking the write lock therefore waits for accesses in progress, and for nothing
//!    else: no engine keeps the lock while its command is parked.
//! 2. A command belongs to the *epoch* in which it was taken from its queue. Aborting starts a
//!    new epoch; commands of an earlier one make no further request and end with
//!    `STATUS_ABORTED`. Their translations that are still on the way are not filled.
//! 3. A context stays in the table until its last command has ended, so that an invalidation
//!    during a close still finds the accesses that it has to wait for. Meanwhile it is *closing*:
//!    no command joins it and nobody opens its number.
//! 4. Each opening has a *generation*, which is never given out again. What names a context names
//!    its generation, and finds nothing if that is not the one that is open.
//!
//! Locks of this file are leaves: nothing else is locked while one is held.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::atc::{Atc, LeafBudget, Translation};
use crate::sync::{lock, read, wait_until, write};

/// Longest wait for aborted commands to end, 10 s. They end after a step of some milliseconds;
/// the limit only keeps a defect from taking the control queue with it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// One opening of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextId {
    /// Number, which is used again.
    pub number: u32,
    /// Generation, which is not; never 0.
    pub generation: u32,
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of generation {}", self.number, self.generation)
    }
}

/// One address space.
#[derive(Debug)]
pub struct Context {
    id: ContextId,
    atc: RwLock<Atc>,
    epoch: AtomicU64,
    /// Set by Response Failure: the context makes no further page requests in this epoch.
    requests_stopped: AtomicBool,
    running: Mutex<Running>,
    drained: Condvar,
}

/// Commands that have not ended.
#[derive(Debug, Default)]
struct Running {
    epoch: u64,
    current: usize,
    aborted: usize,
}

/// A command's membership in a context; dropping it ends the command.
#[derive(Debug)]
pub struct Membership {
    context: Arc<Context>,
    epoch: u64,
}

impl Context {
    fn new(id: ContextId, budget: Arc<LeafBudget>) -> Self {
        Self {
            id,
            atc: RwLock::new(Atc::new(budget)),
            epoch: AtomicU64::new(0),
            requests_stopped: AtomicBool::new(false),
            running: Mutex::default(),
            drained: Condvar::new(),
        }
    }

    /// What the guest knows the context by.
    pub fn id(&self) -> ContextId {
        self.id
    }

    /// Translations, for one step of accesses.
    pub fn atc(&self) -> RwLockReadGuard<'_, Atc> {
        read(&self.atc)
    }

    /// Adds translations on nobody's behalf; returns how many others were given up for them.
    pub fn fill(&self, translations: &[Translation]) -> u64 {
        let mut atc = write(&self.atc);
        translations.iter().map(|&run| atc.fill(run)).sum()
    }

    /// Forgets a range after the accesses in progress.
    pub fn invalidate(&self, vpn: u64, npages: u64) {
        write(&self.atc).invalidate(vpn, npages);
    }

    /// Starts a command.
    pub fn join(self: &Arc<Self>) -> Membership {
        let mut running = lock(&self.running);
        running.current += 1;
        Membership {
            context: Arc::clone(self),
            epoch: running.epoch,
        }
    }

    /// Aborts the commands of the current epoch and starts a new one.
    fn next_epoch(&self) {
        let mut running = lock(&self.running);
        running.epoch += 1;
        running.aborted += std::mem::take(&mut running.current);
        self.epoch.store(running.epoch, Ordering::Release);
        self.requests_stopped.store(false, Ordering::Release);
    }

    /// Waits for the aborted commands to end.
    fn wait_drained(&self) {
        if !wait_until(&self.drained, &self.running, DRAIN_TIMEOUT, |running| {
            running.aborted == 0
        }) {
            log::error!("context {}: aborted commands do not end", self.id);
        }
    }
}

impl Membership {
    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Whether the command has to end with `STATUS_ABORTED`.
    pub fn aborted(&self) -> bool {
        self.context.epoch.load(Ordering::Acquire) != self.epoch
    }

    /// The right to fill the context's ATC on behalf of the command.
    pub fn fill(&self) -> Fill {
        Fill {
            context: Arc::clone(&self.context),
            epoch: self.epoch,
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut running = lock(&self.context.running);
        if running.epoch == self.epoch {
            running.current -= 1;
        } else {
            running.aborted -= 1;
            self.context.drained.notify_all();
        }
    }
}

/// The right to add translations to a context as long as its epoch lasts.
#[derive(Debug)]
pub struct Fill {
    context: Arc<Context>,
    epoch: u64,
}

impl Fill {
    /// Makes no further page requests, as long as the epoch lasts.
    pub fn stop_requests(&self) {
        let running = lock(&self.context.running);
        if running.epoch == self.epoch {
            self.context.requests_stopped.store(true, Ordering::Release);
        }
    }

    /// Whether Response Failure was answered in this epoch.
    pub fn requests_stopped(&self) -> bool {
        self.context.requests_stopped.load(Ordering::Acquire)
    }

    /// Adds translations; returns how many others were given up for them.
    pub fn fill(&self, translations: &[Translation]) -> u64 {
        let mut atc = write(&self.context.atc);
        // An abort changes the epoch first and clears the cache then: what is filled before
        // that is cleared, what comes after is kept out here.
        if self.context.epoch.load(Ordering::Acquire) != self.epoch {
            return 0;
        }
        translations.iter().map(|&run| atc.fill(run)).sum()
    }
}

/// Table of contexts, as large as the device announces.
#[derive(Debug)]
pub struct Contexts {
    table: Mutex<Table>,
    budget: Arc<LeafBudget>,
}

#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
    /// Generation that each number was opened with last, 0 before the first time.
    latest: Vec<u32>,
    /// Generation given out last, 0 before the first.
    generation: u32,
}

#[derive(Debug)]
enum Slot {
    Free,
    Open(Arc<Context>),
    Closing(Arc<Context>),
}

impl Table {
    fn slot(&self, id: ContextId) -> Option<&Slot> {
        self.slots.get(id.number as usize)
    }
}

impl Contexts {
    /// A table of `count` closed contexts.
    pub fn new(count: u32) -> Self {
        Self {
            table: Mutex::new(Table {
                slots: (0..count).map(|_| Slot::Free).collect(),
                latest: vec![0; count as usize],
                generation: 0,
            }),
            budget: Arc::default(),
        }
    }

    /// Opens a context and returns the generation; `None` if the number is too large, the context
    /// open, or no generation left.
    pub fn open(&self, number: u32) -> Option<u32> {
        let mut table = lock(&self.table);
        let generation = table.generation.checked_add(1)?;
        match table.slots.get_mut(number as usize) {
            Some(slot @ Slot::Free) => {
                let id = ContextId { number, generation };
                *slot = Slot::Open(Arc::new(Context::new(id, Arc::clone(&self.budget))));
                table.latest[number as usize] = generation;
                table.generation = generation;
                Some(generation)
            }
            _ => None,
        }
    }

    /// A context that is open, or closing.
    pub fn get(&self, id: ContextId) -> Option<Arc<Context>> {
        match lock(&self.table).slot(id)? {
            Slot::Open(context) | Slot::Closing(context) if context.id == id => {
                Some(Arc::clone(context))
            }
            _ => None,
        }
    }

    /// Whether the number was opened with the generation or a later one, so that what names it is
    /// late at worst.
    pub fn known(&self, id: ContextId) -> bool {
        let table = lock(&self.table);
        let latest = table.latest.get(id.number as usize).copied().unwrap_or(0);
        (1..=latest).contains(&id.generation)
    }

    /// Starts a command in an open context.
    pub fn join(&self, id: ContextId) -> Option<Membership> {
        // The table stays locked so that a close either sees the command or refuses it.
        match lock(&self.table).slot(id)? {
            Slot::Open(context) if context.id == id => Some(context.join()),
            _ => None,
        }
    }

    /// All open contexts.
    pub fn all(&self) -> Vec<Arc<Context>> {
        let table = lock(&self.table);
        let open = table.slots.iter().filter_map(|slot| match slot {
            Slot::Open(context) => Some(Arc::clone(context)),
            _ => None,
        });
        open.collect()
    }

    /// Aborts the commands of these contexts, drops their translations, and waits for the
    /// commands to end. `abort_parked` must hand every parked command of an earlier epoch back
    /// to its engine.
    pub fn abort(&self, contexts: &[Arc<Context>], abort_parked: impl Fn()) {
        for context in contexts {
            context.next_epoch();
        }
        abort_parked();
        for context in contexts {
            write(&context.atc).clear();
            context.wait_drained();
        }
    }

    /// Aborts a context's commands and closes it; false if it is not open.
    pub fn close(&self, id: ContextId, abort_parked: impl Fn()) -> bool {
        let context = {
            let mut table = lock(&self.table);
            match table.slots.get_mut(id.number as usize) {
                Some(slot) => match slot {
                    Slot::Open(context) if context.id == id => {
                        let context = Arc::clone(context);
                        *slot = Slot::Closing(Arc::clone(&context));
                        context
                    }
                    _ => return false,
                },
                None => return false,
            }
        };
        self.abort(&[context], abort_parked);
        if let Some(slot) = lock(&self.table).slots.get_mut(id.number as usize) {
            *slot = Slot::Free;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn run() -> Translation {
        Translation {
            vpn: 1,
            gpa: 0x1000,
            npages: 1,
            access: Access::READ,
        }
    }

    fn id(number: u32, generation: u32) -> ContextId {
        ContextId { number, generation }
    }

    #[test]
    fn numbers_out_of_range_and_open_contexts_cannot_be_opened() {
        let contexts = Contexts::new(2);
        assert_eq!(contexts.open(1), Some(1));
        for number in [1, 2, u32::MAX] {
            assert_eq!(contexts.open(number), None);
        }
        assert!(contexts.join(id(0, 1)).is_none());
        assert!(!contexts.close(id(0, 1), || ()));
        assert_eq!(contexts.open(0), Some(2));
    }

    #[test]
    fn closed_context_can_be_opened_again_and_is_empty() {
        let contexts = Contexts::new(1);
        assert_eq!(contexts.open(0), Some(1));
        let member = contexts.join(id(0, 1));
        member.as_ref().map(|m| m.fill().fill(&[run()]));
        drop(member);
        assert!(contexts.close(id(0, 1), || ()));
        assert!(contexts.get(id(0, 1)).is_none());
        assert_eq!(contexts.open(0), Some(2));
        let context = contexts.get(id(0, 2));
        assert!(context.is_some_and(|c| c.atc().leaf(1).is_none()));
    }

    #[test]
    fn nothing_names_an_opening_by_another_generation() {
        let contexts = Contexts::new(1);
        assert_eq!(contexts.open(0), Some(1));
        assert!(contexts.close(id(0, 1), || ()));
        assert_eq!(contexts.open(0), Some(2));
        for generation in [0, 1, 3] {
            let other = id(0, generation);
            assert!(contexts.get(other).is_none());
            assert!(contexts.join(other).is_none());
            assert!(!contexts.close(other, || ()));
        }
        assert!(contexts.known(id(0, 1)) && contexts.known(id(0, 2)));
        for other in [id(0, 0), id(0, 3), id(1, 1), id(u32::MAX, 1)] {
            assert!(!contexts.known(other));
        }
    }

    #[test]
    fn closing_context_is_found_by_invalidations_and_by_nobody_else() {
        let contexts = Contexts::new(1);
        assert_eq!(contexts.open(0), Some(1));
        let running = Mutex::new(contexts.join(id(0, 1)));
        assert!(contexts.close(id(0, 1), || {
            assert!(contexts.get(id(0, 1)).is_some());
            assert!(contexts.join(id(0, 1)).is_none());
            assert_eq!(contexts.open(0), None);
            assert!(!contexts.close(id(0, 1), || ()));
            drop(lock(&running).take());
        }));
        assert!(contexts.get(id(0, 1)).is_none());
    }

    #[test]
    fn last_generation_is_not_followed_by_the_first() {
        let contexts = Contexts::new(2);
        lock(&contexts.table).generation = u32::MAX - 1;
        assert_eq!(contexts.open(0), Some(u32::MAX));
        assert_eq!(contexts.open(1), None);
    }

    #[test]
    fn abort_ends_old_commands_and_leaves_new_ones() {
        let contexts = Contexts::new(1);
        assert_eq!(contexts.open(0), Some(1));
        let old = Mutex::new(contexts.join(id(0, 1)));
        contexts.abort(&contexts.all(), || {
            let member = lock(&old).take();
            assert!(member.as_ref().is_some_and(Membership::aborted));
            // Late translations of an aborted command do not get in.
            assert_eq!(member.map(|m| m.fill().fill(&[run()])), Some(0));
        });
        let new = contexts.join(id(0, 1));
        assert!(new.as_ref().is_some_and(|m| !m.aborted()));
        let context = contexts.get(id(0, 1));
        assert!(context.is_some_and(|c| c.atc().leaf(1).is_none()));
    }
}

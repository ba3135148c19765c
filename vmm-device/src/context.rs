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
//!    during a close still finds the accesses that it has to wait for.
//!
//! Locks of this file are leaves: nothing else is locked while one is held.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::atc::{Atc, LeafBudget, Translation};
use crate::fail_stop;
use crate::sync::{lock, read, wait_until, write};

/// Longest wait for aborted commands to end. They end after a step of some milliseconds; if they
/// do not, nobody can be told that they did.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// One address space.
#[derive(Debug)]
pub struct Context {
    number: u32,
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
    fn new(number: u32, budget: Arc<LeafBudget>) -> Self {
        Self {
            number,
            atc: RwLock::new(Atc::new(budget)),
            epoch: AtomicU64::new(0),
            requests_stopped: AtomicBool::new(false),
            running: Mutex::default(),
            drained: Condvar::new(),
        }
    }

    /// Number that the guest knows the context by.
    pub fn number(&self) -> u32 {
        self.number
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
            fail_stop::end_process(format_args!(
                "the aborted commands of context {} do not end within {DRAIN_TIMEOUT:?}",
                self.number
            ));
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
    slots: Mutex<Vec<Option<Arc<Context>>>>,
    budget: Arc<LeafBudget>,
}

impl Contexts {
    /// A table of `count` closed contexts.
    pub fn new(count: u32) -> Self {
        Self {
            slots: Mutex::new((0..count).map(|_| None).collect()),
            budget: Arc::default(),
        }
    }

    /// Opens a context; false if the number is too large or the context open.
    pub fn open(&self, number: u32) -> bool {
        let mut slots = lock(&self.slots);
        match slots.get_mut(number as usize) {
            Some(slot @ None) => {
                *slot = Some(Arc::new(Context::new(number, Arc::clone(&self.budget))));
                true
            }
            _ => false,
        }
    }

    /// An open context.
    pub fn get(&self, number: u32) -> Option<Arc<Context>> {
        lock(&self.slots).get(number as usize)?.clone()
    }

    /// Starts a command in an open context.
    pub fn join(&self, number: u32) -> Option<Membership> {
        // The table stays locked so that a close either sees the command or refuses it.
        Some(lock(&self.slots).get(number as usize)?.as_ref()?.join())
    }

    /// All open contexts.
    pub fn all(&self) -> Vec<Arc<Context>> {
        lock(&self.slots).iter().flatten().cloned().collect()
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
    pub fn close(&self, number: u32, abort_parked: impl Fn()) -> bool {
        let Some(context) = self.get(number) else {
            return false;
        };
        self.abort(&[Arc::clone(&context)], &abort_parked);
        // Commands that were started after the abort end the same way.
        {
            let mut slots = lock(&self.slots);
            context.next_epoch();
            if let Some(slot) = slots.get_mut(number as usize) {
                *slot = None;
            }
        }
        abort_parked();
        write(&context.atc).clear();
        context.wait_drained();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::fail_stop::tests::said_at_the_end;

    fn run() -> Translation {
        Translation {
            vpn: 1,
            gpa: 0x1000,
            npages: 1,
            access: Access::READ,
        }
    }

    #[test]
    fn numbers_out_of_range_and_open_contexts_cannot_be_opened() {
        let contexts = Contexts::new(2);
        assert!(contexts.open(1));
        assert!(!contexts.open(1));
        assert!(!contexts.open(2));
        assert!(!contexts.open(u32::MAX));
        assert!(contexts.join(0).is_none());
        assert!(!contexts.close(0, || ()));
    }

    #[test]
    fn closed_context_can_be_opened_again_and_is_empty() {
        let contexts = Contexts::new(1);
        assert!(contexts.open(0));
        let member = contexts.join(0);
        member.as_ref().map(|m| m.fill().fill(&[run()]));
        drop(member);
        assert!(contexts.close(0, || ()));
        assert!(contexts.get(0).is_none());
        assert!(contexts.open(0));
        let context = contexts.get(0);
        assert!(context.is_some_and(|c| c.atc().leaf(1).is_none()));
    }

    #[test]
    fn command_that_does_not_end_ends_the_process() {
        let said = said_at_the_end(
            "context::tests::command_that_does_not_end_ends_the_process",
            || {
                let contexts = Contexts::new(1);
                assert!(contexts.open(0));
                let _member = contexts.join(0);
                contexts.close(0, || ());
            },
        );
        assert!(said.contains("commands of context 0 do not end"), "{said}");
    }

    #[test]
    fn abort_ends_old_commands_and_leaves_new_ones() {
        let contexts = Contexts::new(1);
        assert!(contexts.open(0));
        let old = Mutex::new(contexts.join(0));
        contexts.abort(&contexts.all(), || {
            let member = lock(&old).take();
            assert!(member.as_ref().is_some_and(Membership::aborted));
            // Late translations of an aborted command do not get in.
            assert_eq!(member.map(|m| m.fill().fill(&[run()])), Some(0));
        });
        let new = contexts.join(0);
        assert!(new.as_ref().is_some_and(|m| !m.aborted()));
        assert!(contexts.get(0).is_some_and(|c| c.atc().leaf(1).is_none()));
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What the device may have cached of one process, kept true while its mappings change.
//!
//! The rules that keep it correct:
//!
//! 1. Completions, responses and invalidations go through one ordered queue and are posted under
//!    [`Mirror::lock`], which the notifier takes too. A stale completion can therefore never
//!    follow its invalidation: either it is posted before, and the invalidation removes it, or
//!    the look at the page table that it rests on is found outdated.
//! 2. A range stays recorded until the device has answered its invalidation, so that a second
//!    change of the same range does not pass while the device still finishes accesses.
//! 3. An invalidation waits for the device to finish accesses in progress, outside the lock. The
//!    device answers it without waiting for any fault, command, copy or lock of ours.
//!
//! Lock order: mmap lock (and what the memory manager holds around notifiers: rmap and folio
//! locks) → `Mirror::lock` → queue locks. Under `Mirror::lock` no memory is allocated in a way that
//! reclaims, because reclaim calls the notifier.

use crate::{
    context_table::ContextId,
    kapi::{
        notifier::{Invalidate, Invalidation},
        trace,
    },
    link::{new_message, put, CallRequest, Link},
    policy::{Policies, Rule},
    range_set::RangeSet,
    stats::ContextStats,
    wire,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{lock::mutex::MutexGuard, Arc, Mutex},
    time::{delay::fsleep, Delta},
};

/// Pause before an invalidation tries again to get memory for its message.
const NO_MEMORY_PAUSE: Delta = Delta::from_millis(1);

/// One context's mirror.
#[pin_data]
pub(crate) struct Mirror {
    link: Arc<Link>,
    id: ContextId,
    /// Counters of the context.
    pub(crate) stats: ContextStats,
    /// When pages move. Here because the notifier takes advice back.
    #[pin]
    pub(crate) policies: Policies,
    #[pin]
    state: Mutex<State>,
}

struct State {
    /// What the device may have cached.
    cached: RangeSet,
    /// What of it the device may have exclusively.
    exclusive: RangeSet,
    /// What is being invalidated: empty when nothing is in flight, else at least that.
    leaving: RangeSet,
    in_flight: u32,
}

/// The mirror held still: no invalidation passes.
pub(crate) struct Held<'a> {
    mirror: &'a Mirror,
    state: MutexGuard<'a, State>,
}

impl Mirror {
    /// A mirror of which the device has cached nothing.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(link: Arc<Link>, id: ContextId, rule: Rule) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                link,
                id,
                stats: ContextStats::new(),
                policies <- Policies::new(rule),
                state <- new_mutex!(
                    State {
                        cached: RangeSet::new(),
                        exclusive: RangeSet::new(),
                        leaving: RangeSet::new(),
                        in_flight: 0,
                    },
                    "coax_mirror"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// The context.
    pub(crate) fn id(&self) -> ContextId {
        self.id
    }

    /// Keeps invalidations out while the result is alive.
    pub(crate) fn lock(&self) -> Held<'_> {
        Held {
            mirror: self,
            state: self.state.lock(),
        }
    }

    fn message(&self, start: u64, end: u64) -> Result<KBox<CallRequest>> {
        let mut message = new_message(
            size_of::<wire::TranslationMessage>(),
            size_of::<wire::InvalidateReply>(),
            GFP_ATOMIC,
        )?;
        let first = start & !(wire::PAGE_SIZE - 1);
        put(
            &mut message,
            0,
            &wire::TranslationMessage {
                kind: wire::MSG_INVALIDATE.into(),
                context: self.id.number.into(),
                generation: self.id.generation.into(),
                tag: 0.into(),
                code: 0.into(),
                count: 0.into(),
                va: first.into(),
                npages: (end - first).div_ceil(wire::PAGE_SIZE).into(),
            },
        )?;
        Ok(message)
    }
}

impl Held<'_> {
    /// Posts an answer whose entries speak of `start` … `end`.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken.
    pub(crate) fn post(&mut self, message: KBox<CallRequest>, start: u64, end: u64) -> Result {
        self.state.cached.insert(start, end);
        self.mirror.link.post_translation(message)
    }

    /// Records that what was posted of `start` … `end` was posted as the device's alone.
    pub(crate) fn set_exclusive(&mut self, start: u64, end: u64) {
        self.state.exclusive.insert(start, end);
    }

    /// Whether the device may have something of `start` … `end` for itself.
    pub(crate) fn is_exclusive(&self, start: u64, end: u64) -> bool {
        self.state.exclusive.overlaps(start, end)
    }
}

impl Invalidate for Mirror {
    fn invalidate(&self, range: &Invalidation<'_>) -> bool {
        if range.is_exclusive_for(self) {
            // The page is being taken from the CPUs for this very device, whose translations of it stay
            // true. Were this a change like others, a look would never be found up to date.
            return true;
        }
        let (start, end) = (range.start(), range.end());
        if range.is_unmap() {
            self.policies.forget(start, end);
        }
        let state = if range.may_block() {
            self.state.lock()
        } else {
            match self.state.try_lock() {
                Some(state) => state,
                None => return false,
            }
        };
        let concerned = (state.cached.overlaps(start, end) || state.leaving.overlaps(start, end))
            && !self.link.is_broken();
        if concerned && !range.may_block() {
            // The answer of the device must be waited for.
            return false;
        }
        range.begin();
        if concerned {
            self.drop_range(state, start, end);
        }
        true
    }
}

impl Mirror {
    /// Has the device drop what it has cached of `start` … `end`, at once instead of window by window,
    /// before all of it is going to change.
    pub(crate) fn forget(&self, start: u64, end: u64) {
        let state = self.state.lock();
        if state.cached.overlaps(start, end) && !self.link.is_broken() {
            self.drop_range(state, start, end);
        }
    }

    fn drop_range(&self, mut state: MutexGuard<'_, State>, start: u64, end: u64) {
        let pending = loop {
            match self
                .message(start, end)
                .and_then(|m| self.link.begin_invalidation(m))
            {
                Err(error) if error == ENOMEM => fsleep(NO_MEMORY_PAUSE),
                result => break result,
            }
        };
        state.cached.remove(start, end);
        state.exclusive.remove(start, end);
        state.leaving.insert(start, end);
        state.in_flight += 1;
        drop(state);
        trace::invalidate(self.id.number, start, end);
        self.stats.invalidations.add(1);
        self.link.stats.invalidations.add(1);
        if let Ok(pending) = pending {
            // A device that does not answer is broken, and nothing more can be done about it here.
            let _ = self.link.finish_invalidation(pending);
        }
        let mut state = self.state.lock();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            state.leaving.clear();
        }
    }
}

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
//! 3. An invalidation waits for the device to finish accesses in progress, outside the lock, until the
//!    device has answered or a fence has passed (`lifetime`). The device answers it without waiting for any
//!    fault, command, copy or lock of ours.
//!
//! Lock order: mmap lock (and what the memory manager holds around notifiers: rmap and folio
//! locks) → `Mirror::lock` → queue locks. Under `Mirror::lock` no memory is allocated in a way that
//! reclaims, because reclaim calls the notifier.

use crate::{
    call::{new_message, put, Call, CallRequest},
    charges::Share,
    context_table::ContextId,
    kapi::{
        misc::user,
        notifier::{IntervalNotifier, Invalidate, Invalidation},
        trace,
    },
    link::Link,
    looks::{Looks, Ticket},
    policy::{Policies, Rule},
    range_set::RangeSet,
    stats::ContextStats,
    wire,
};
use core::ops::Range;
use kernel::{
    alloc::{flags, Flags},
    new_condvar, new_mutex,
    prelude::*,
    sync::{lock::mutex::MutexGuard, Arc, CondVar, Mutex},
};
use zerocopy::FromZeros;

/// One context's mirror.
#[pin_data]
pub(crate) struct Mirror {
    link: Arc<Link>,
    id: ContextId,
    /// Whether the IOMMU translates the context: the device caches what that says, and is told nothing here.
    pub(crate) by_iommu: bool,
    /// Whose pages the device moves.
    share: Share,
    /// Counters of the context.
    pub(crate) stats: ContextStats,
    /// When pages move. Here because the notifier takes advice back.
    #[pin]
    pub(crate) policies: Policies,
    #[pin]
    state: Mutex<State>,
    /// A message for an invalidation that finds no memory for its own, while no other uses it.
    #[pin]
    reserve: Mutex<Option<Call>>,
    #[pin]
    returned: CondVar,
}

struct State {
    /// The device has closed the context: it has cached nothing, and is told nothing more.
    closed: bool,
    /// What is being looked at.
    looks: Looks,
    /// What the device may have cached.
    cached: RangeSet,
    /// What of it the device may have exclusively.
    exclusive: RangeSet,
    /// What is being invalidated: empty when nothing is in flight, else at least that.
    leaving: RangeSet,
    in_flight: u32,
}

/// A look at some of the mappings, which changes of others do not make outdated.
pub(crate) struct Look<'a> {
    mirror: &'a Mirror,
    /// The mirror's.
    pub(crate) notifier: &'a IntervalNotifier<Mirror>,
    ticket: Ticket,
    /// When it began, as the notifier counts.
    pub(crate) seq: u64,
}

impl<'a> Look<'a> {
    /// Begins anew.
    pub(crate) fn again(&mut self) {
        self.seq = self.notifier.read_begin();
    }

    /// Begins anew, because mappings changed meanwhile.
    pub(crate) fn outdated(&mut self) {
        self.mirror.link.stats.retries.add(1);
        self.again();
    }

    /// Holds the mirror still, if what was seen still holds: until the result is dropped it will.
    pub(crate) fn hold(&self) -> Option<Held<'a>> {
        let held = self.mirror.lock();
        (!self.notifier.retry(self.seq)).then_some(held)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.mirror.state.lock().looks.end(self.ticket);
    }
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
    /// `ENOMEM`: no memory. Those of [`Share::of_caller`].
    pub(crate) fn new(
        link: Arc<Link>,
        id: ContextId,
        rule: Rule,
        by_iommu: bool,
    ) -> Result<Arc<Self>> {
        let reserve = Some(new_call(GFP_KERNEL_ACCOUNT)?);
        let share = Share::of_caller(user(), link.clone())?;
        Arc::pin_init(
            pin_init!(Self {
                link,
                id,
                by_iommu,
                share,
                reserve <- new_mutex!(reserve, "coax_mirror_reserve"),
                returned <- new_condvar!("coax_mirror_returned"),
                stats: ContextStats::new(),
                policies <- Policies::new(rule),
                state <- new_mutex!(
                    State {
                        closed: false,
                        looks: Looks::new(),
                        cached: RangeSet::new(),
                        exclusive: RangeSet::new(),
                        leaving: RangeSet::new(),
                        in_flight: 0,
                    },
                    "coax_mirror"
                ),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// The context.
    pub(crate) fn id(&self) -> ContextId {
        self.id
    }

    /// The place, among the users of the device memory, of the one who opened the context.
    pub(crate) fn user(&self) -> u16 {
        self.share.place()
    }

    /// Begins to look at the mappings of `range`: waits for changes of it in progress. `notifier` is the
    /// one that this mirror is the target of.
    pub(crate) fn look<'a>(
        &'a self,
        notifier: &'a IntervalNotifier<Self>,
        range: Range<u64>,
    ) -> Look<'a> {
        let mut state = self.state.lock();
        let (ticket, changing) = state.looks.begin(range);
        if let Some(number) = changing {
            notifier.outdate(number);
        }
        drop(state);
        Look {
            mirror: self,
            notifier,
            ticket,
            seq: notifier.read_begin(),
        }
    }

    /// Keeps invalidations out while the result is alive.
    pub(crate) fn lock(&self) -> Held<'_> {
        Held {
            mirror: self,
            state: self.state.lock(),
        }
    }

    /// The device has closed the context: nothing more is posted or invalidated.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.cached.clear();
        state.exclusive.clear();
    }

    /// Whether the device has closed the context.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// An invalidation of `start` … `end`. Where memory is short it is the one that was put by: that is
    /// waited for, which the device's answer ends.
    fn invalidation(&self, start: u64, end: u64) -> Result<Call> {
        let mut call = match new_call(GFP_ATOMIC | flags::__GFP_NOWARN) {
            Ok(call) => call,
            Err(_) => {
                let mut reserve = self.reserve.lock();
                loop {
                    match reserve.take() {
                        Some(call) => break call,
                        None => self.returned.wait(&mut reserve),
                    }
                }
            }
        };
        let first = start & !(wire::PAGE_SIZE - 1);
        let head = wire::TranslationMessage {
            kind: wire::MSG_INVALIDATE.into(),
            context: self.id.number.into(),
            generation: self.id.generation.into(),
            va: first.into(),
            npages: (end - first).div_ceil(wire::PAGE_SIZE).into(),
            ..wire::TranslationMessage::new_zeroed()
        };
        put(&mut call.message, 0, &head)?;
        Ok(call)
    }

    /// Puts a message by, if none is.
    fn put_by(&self, call: Call) {
        let mut reserve = self.reserve.lock();
        if reserve.is_none() {
            *reserve = Some(call);
            self.returned.notify_one();
        }
    }
}

/// Room for an invalidation and the wait for its answer.
fn new_call(flags: Flags) -> Result<Call> {
    let readable = size_of::<wire::TranslationMessage>();
    let message = new_message(readable, size_of::<wire::InvalidateReply>(), flags)?;
    Call::new(message, flags)
}

impl Held<'_> {
    /// Posts an answer whose entries speak of `start` … `end`.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is silent. `ENODEV`: it has closed the context.
    pub(crate) fn post(&mut self, message: KBox<CallRequest>, start: u64, end: u64) -> Result {
        if self.state.closed {
            return Err(ENODEV);
        }
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
        let mut state = if range.may_block() {
            self.state.lock()
        } else {
            match self.state.try_lock() {
                Some(state) => state,
                None => return false,
            }
        };
        let concerned = (state.cached.overlaps(start, end) || state.leaving.overlaps(start, end))
            && !self.link.lifetime.is_silent();
        if concerned && !range.may_block() {
            // The answer of the device must be waited for.
            return false;
        }
        if state.looks.change(start..end, range.number()) {
            range.begin();
        }
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
        if state.cached.overlaps(start, end) && !self.link.lifetime.is_silent() {
            self.drop_range(state, start, end);
        }
    }

    fn drop_range(&self, mut state: MutexGuard<'_, State>, start: u64, end: u64) {
        let sent = self
            .invalidation(start, end)
            .and_then(|call| self.link.begin_invalidation(call));
        state.cached.remove(start, end);
        state.exclusive.remove(start, end);
        state.leaving.insert(start, end);
        state.in_flight += 1;
        drop(state);
        trace::invalidate(self.id.number, start, end);
        self.stats.invalidations.add(1);
        self.link.stats.invalidations.add(1);
        // What cannot be sent is not needed: the device is silent.
        if let Ok(pending) = sent {
            self.put_by(self.link.finish_invalidation(pending));
        }
        let mut state = self.state.lock();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            state.leaving.clear();
        }
    }
}

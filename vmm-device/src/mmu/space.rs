// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One address space: its translations, and who is inside.
#![forbid(unsafe_code)]

use std::ops::Deref;

use super::atc::{Atc, LeafBudget, Translation};
use super::ContextId;
use crate::sync::{
    give_way, processor, read, write_soon, Arc, AtomicBool, AtomicU32, AtomicUsize, Ordering,
    RwLock, RwLockReadGuard,
};

/// One address space.
#[derive(Debug)]
pub struct Space {
    id: ContextId,
    atc: RwLock<Atc>,
    /// How many wait for those inside to leave.
    waiting: AtomicU32,
    /// Processor of the last who went inside.
    processor: AtomicUsize,
    /// Set once, with the lock held for writing.
    closed: AtomicBool,
    /// Accesses to a window after which that is told; 0 for never.
    threshold: AtomicU32,
}

/// An engine's stay in a space, for one step of accesses.
#[derive(Debug)]
pub struct Guard<'s> {
    atc: RwLockReadGuard<'s, Atc>,
    waiting: &'s AtomicU32,
}

impl Space {
    pub(super) fn new(id: ContextId, budget: Arc<LeafBudget>) -> Self {
        Self {
            id,
            atc: RwLock::new(Atc::new(budget)),
            waiting: AtomicU32::new(0),
            processor: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            threshold: AtomicU32::new(0),
        }
    }

    /// What the guest knows it by.
    pub fn id(&self) -> ContextId {
        self.id
    }

    /// Sets after how many accesses to a window that is told, 0 for never. Steps in progress may not see it.
    pub fn set_threshold(&self, accesses: u32) {
        self.threshold.store(accesses, Ordering::Relaxed);
    }

    /// Accesses to a window after which that is told; 0 for never.
    pub fn threshold(&self) -> u32 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Enters for one step, behind those who wait for others to leave.
    pub fn enter(&self) -> Guard<'_> {
        give_way(&self.waiting);
        let atc = read(&self.atc);
        self.processor.store(processor(), Ordering::Relaxed);
        Guard {
            atc,
            waiting: &self.waiting,
        }
    }

    /// Changes translations when nobody is inside.
    fn alone<R>(&self, change: impl FnOnce(&mut Atc) -> R) -> R {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut atc = write_soon(&self.atc, self.processor.load(Ordering::Relaxed));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        change(&mut atc)
    }

    /// Adds translations, unless the space was closed; returns how many others were given up.
    pub fn fill(&self, translations: &[Translation]) -> u64 {
        self.alone(|atc| {
            if self.closed.load(Ordering::Relaxed) {
                return 0;
            }
            translations.iter().map(|&run| atc.fill(run)).sum()
        })
    }

    /// Forgets a range after the accesses in progress.
    pub fn invalidate(&self, vpn: u64, npages: u64) {
        self.alone(|atc| atc.invalidate(vpn, npages));
    }

    /// Forgets everything after the accesses in progress.
    pub fn clear(&self) {
        self.alone(Atc::clear);
    }

    /// Forgets everything for ever: there is no access after this.
    pub fn close(&self) {
        self.alone(|atc| {
            self.closed.store(true, Ordering::Relaxed);
            atc.clear();
        });
    }
}

impl Guard<'_> {
    /// How many wait for the stay to end.
    pub fn waiting(&self) -> &AtomicU32 {
        self.waiting
    }
}

impl Deref for Guard<'_> {
    type Target = Atc;

    fn deref(&self) -> &Atc {
        &self.atc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    const RUN: Translation = Translation {
        vpn: 1,
        gpa: 0x1000,
        npages: 1,
        access: Access::READ,
    };

    fn space() -> Space {
        let id = ContextId {
            number: 0,
            generation: 1,
        };
        Space::new(id, Arc::default())
    }

    #[test]
    fn closed_space_is_empty_and_not_filled() {
        let space = space();
        space.fill(&[RUN]);
        assert!(space.enter().leaf(1).is_some());
        space.close();
        assert!(space.enter().leaf(1).is_none());
        space.fill(&[RUN]);
        assert!(space.enter().leaf(1).is_none());
    }

    #[test]
    fn who_is_inside_learns_that_others_wait() {
        let space = space();
        std::thread::scope(|scope| {
            let inside = space.enter();
            assert_eq!(inside.waiting().load(Ordering::Relaxed), 0);
            scope.spawn(|| space.invalidate(0, 1));
            while inside.waiting().load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
        });
        assert_eq!(space.enter().waiting().load(Ordering::Relaxed), 0);
    }
}

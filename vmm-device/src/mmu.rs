// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Address spaces: what invalidations touch, and nothing else.
//!
//! 1. An engine accesses memory only inside [`Space::enter`], for one bounded step; it leaves early
//!    when [`Guard::waiting`] says so. Everything that changes translations waits for the accesses
//!    in progress, and for nothing else: nobody is inside while his command waits for a page.
//! 2. A space is found by what names it, number and *generation*. A generation is never given out
//!    again, so that nothing sent for one opening reaches the next.
//! 3. A space that is closing stays in the table until its last command has ended, so that an
//!    invalidation finds the accesses that it has to wait for. It is not filled any more.
//!
//! Locks of this file are leaves: nothing else is locked while one is held.
#![forbid(unsafe_code)]

pub mod atc;
mod space;

use std::fmt;

use crate::sync::{lock, Arc, Mutex};
use atc::LeafBudget;
pub use space::{Guard, Space};

/// One opening of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Table of address spaces, as large as the device announces.
#[derive(Debug)]
pub struct Mmu {
    table: Mutex<Table>,
    budget: Arc<LeafBudget>,
}

#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
    /// Generation given out last, 0 before the first.
    generation: u32,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    space: Option<Arc<Space>>,
    /// Generation of the last opening, 0 before the first.
    latest: u32,
}

impl Table {
    fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize)
    }
}

impl Mmu {
    /// A table without spaces, with room for `count`.
    pub fn new(count: u32) -> Self {
        Self {
            table: Mutex::new(Table {
                slots: vec![Slot::default(); count as usize],
                generation: 0,
            }),
            budget: Arc::default(),
        }
    }

    /// Makes a space; `None` if the number is too large or in use, or no generation is left.
    pub fn open(&self, number: u32) -> Option<ContextId> {
        let mut table = lock(&self.table);
        let generation = table.generation.checked_add(1)?;
        let slot = table.slot(number)?;
        if slot.space.is_some() {
            return None;
        }
        let id = ContextId { number, generation };
        *slot = Slot {
            space: Some(Arc::new(Space::new(id, Arc::clone(&self.budget)))),
            latest: generation,
        };
        table.generation = generation;
        Some(id)
    }

    /// A space that is open, or closing.
    pub fn get(&self, id: ContextId) -> Option<Arc<Space>> {
        let mut table = lock(&self.table);
        let space = table.slot(id.number)?.space.as_ref()?;
        (space.id() == id).then(|| Arc::clone(space))
    }

    /// Whether the number was opened with the generation or a later one, so that what names it is
    /// late at worst.
    pub fn known(&self, id: ContextId) -> bool {
        let mut table = lock(&self.table);
        let latest = table.slot(id.number).map_or(0, |slot| slot.latest);
        (1..=latest).contains(&id.generation)
    }

    /// Removes a space that was closed.
    pub fn remove(&self, id: ContextId) {
        if let Some(slot) = lock(&self.table).slot(id.number) {
            slot.space.take_if(|space| space.id() == id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32, generation: u32) -> ContextId {
        ContextId { number, generation }
    }

    #[test]
    fn numbers_out_of_range_and_open_ones_cannot_be_opened() {
        let mmu = Mmu::new(2);
        assert_eq!(mmu.open(1), Some(id(1, 1)));
        for number in [1, 2, u32::MAX] {
            assert_eq!(mmu.open(number), None);
        }
        assert_eq!(mmu.open(0), Some(id(0, 2)));
    }

    #[test]
    fn nothing_names_an_opening_by_another_generation() {
        let mmu = Mmu::new(1);
        assert_eq!(mmu.open(0), Some(id(0, 1)));
        mmu.remove(id(0, 1));
        assert_eq!(mmu.open(0), Some(id(0, 2)));
        for generation in [0, 1, 3] {
            mmu.remove(id(0, generation));
            assert!(mmu.get(id(0, generation)).is_none());
        }
        assert!(mmu.get(id(0, 2)).is_some());
        assert!(mmu.known(id(0, 1)) && mmu.known(id(0, 2)));
        for other in [id(0, 0), id(0, 3), id(1, 1), id(u32::MAX, 1)] {
            assert!(!mmu.known(other));
        }
    }

    #[test]
    fn last_generation_is_not_followed_by_the_first() {
        let mmu = Mmu::new(2);
        lock(&mmu.table).generation = u32::MAX - 1;
        assert_eq!(mmu.open(0), Some(id(0, u32::MAX)));
        assert_eq!(mmu.open(1), None);
    }
}

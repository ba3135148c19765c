// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Address translation cache (ATC) of one context.
//!
//! Translations are kept as a page-table page would keep them: a *leaf* holds the 512 pages of
//! an aligned 2 MiB window, one word a page. A look-up is a search for the leaf and an index;
//! an invalidation clears words and drops leaves that become empty.
//!
//! Leaves are what is bounded. All contexts of a device share one [`LeafBudget`], of which each may
//! have as many as are still free; a context that needs one more gives up one of its own, going round
//! by address. [`MIN_LEAVES`] leaves are granted to every context beyond the budget, so that others
//! cannot starve it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use coax_abi::wire::PAGE_SIZE;

use crate::access::Access;
use crate::sync::{Arc, AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Pages in a leaf.
pub const LEAF_PAGES: u64 = 512;
/// Leaves that all contexts share: 24 MiB of memory. One context alone gets half of them, 6 GiB of densely
/// used address space.
pub const SHARED_LEAVES: usize = 6144;
/// Leaves that each context may have in any case: 128 KiB of memory. Several commands of one
/// context can make progress with them, even if each touches pages far apart.
pub const MIN_LEAVES: usize = 32;

/// Bits of a word that hold the rights; the rest is the page's guest physical address.
const RIGHTS: u64 = PAGE_SIZE - 1;

/// Leaves in use by all contexts of a device.
#[derive(Debug, Default)]
pub struct LeafBudget(AtomicUsize);

/// Translation of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Guest physical address of the page.
    pub gpa: u64,
    /// Rights granted.
    pub access: Access,
}

/// Pages of one aligned 2 MiB window.
#[derive(Debug)]
pub struct Leaf {
    /// `gpa | rights`, 0 where there is no translation.
    words: Box<[u64; LEAF_PAGES as usize]>,
    used: u32,
    /// Accesses to those of its pages that are in system memory, of contexts that are told of them.
    accesses: AtomicU32,
}

impl Leaf {
    fn new() -> Self {
        Self {
            words: Box::new([0; LEAF_PAGES as usize]),
            used: 0,
            accesses: AtomicU32::new(0),
        }
    }

    /// Counts accesses; whether they are `threshold` now, or a power of two times as many, and were not before.
    /// The count is gone with the leaf, and begins anew after 2^32.
    pub fn count(&self, accesses: u32, threshold: u32) -> bool {
        let before = self.accesses.fetch_add(accesses, Relaxed);
        let now = before.wrapping_add(accesses);
        let step = |count: u32| count.checked_div(threshold)?.checked_ilog2();
        now < before || step(now) > step(before)
    }

    /// Translation of the page with this number, which must lie in the leaf's window.
    pub fn page(&self, vpn: u64) -> Option<Page> {
        let word = self.words[index(vpn)];
        (word != 0).then_some(Page {
            gpa: word & !RIGHTS,
            access: Access::from_bits(word & RIGHTS),
        })
    }

    fn set(&mut self, vpn: u64, word: u64) {
        let slot = &mut self.words[index(vpn)];
        self.used += u32::from(*slot == 0);
        *slot = word;
    }

    fn clear(&mut self, vpn: u64) {
        let slot = &mut self.words[index(vpn)];
        self.used -= u32::from(*slot != 0);
        *slot = 0;
    }
}

/// Place of a page in its leaf.
fn index(vpn: u64) -> usize {
    (vpn % LEAF_PAGES) as usize
}

/// A run of pages with the same rights, as completions and responses carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Number of the first page.
    pub vpn: u64,
    /// Guest physical address of the first page.
    pub gpa: u64,
    /// Pages.
    pub npages: u64,
    /// Rights granted.
    pub access: Access,
}

/// Translations of one context.
///
/// # Invariants
///
/// `leaves` has no empty leaf, and `budget` counts each of its leaves once.
#[derive(Debug)]
pub struct Atc {
    leaves: BTreeMap<u64, Leaf>,
    /// Leaf from which on the next one is given up.
    hand: u64,
    budget: Arc<LeafBudget>,
}

impl Atc {
    /// An empty cache.
    pub fn new(budget: Arc<LeafBudget>) -> Self {
        Self {
            leaves: BTreeMap::new(),
            hand: 0,
            budget,
        }
    }

    /// The leaf that holds a page.
    pub fn leaf(&self, vpn: u64) -> Option<&Leaf> {
        self.leaves.get(&(vpn / LEAF_PAGES))
    }

    /// Leaves that can be added without giving one up, as things stand.
    pub fn room(&self) -> usize {
        let free = SHARED_LEAVES.saturating_sub(self.budget.0.load(Relaxed));
        // Each leaf taken is one less that is free.
        let shared = free.saturating_sub(self.leaves.len()).div_ceil(2);
        shared.max(MIN_LEAVES.saturating_sub(self.leaves.len()))
    }

    /// Adds a run and returns the number of translations given up for it.
    ///
    /// The run must not reach beyond the last page number and have at least one right.
    pub fn fill(&mut self, run: Translation) -> u64 {
        let mut evicted = 0;
        let mut done = 0;
        while done < run.npages {
            let vpn = run.vpn + done;
            let key = vpn / LEAF_PAGES;
            if !self.leaves.contains_key(&key) {
                evicted += self.make_room();
                self.budget.0.fetch_add(1, Relaxed);
            }
            let leaf = self.leaves.entry(key).or_insert_with(Leaf::new);
            let count = (LEAF_PAGES - vpn % LEAF_PAGES).min(run.npages - done);
            for n in done..done + count {
                leaf.set(run.vpn + n, (run.gpa + n * PAGE_SIZE) | run.access.bits());
            }
            done += count;
        }
        evicted
    }

    /// Forgets the pages `vpn` … `vpn + npages`.
    pub fn invalidate(&mut self, vpn: u64, npages: u64) {
        let Some(last) = npages.checked_sub(1).map(|n| vpn.saturating_add(n)) else {
            return;
        };
        let mut empty = Vec::new();
        for (&key, leaf) in self.leaves.range_mut(vpn / LEAF_PAGES..=last / LEAF_PAGES) {
            let first_page = key * LEAF_PAGES;
            let from = vpn.max(first_page);
            let to = last.min(first_page + (LEAF_PAGES - 1));
            for page in from..=to {
                leaf.clear(page);
            }
            if leaf.used == 0 {
                empty.push(key);
            }
        }
        for key in empty {
            self.remove(key);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.budget.0.fetch_sub(self.leaves.len(), Relaxed);
        self.leaves.clear();
    }

    /// Gives up a leaf if there is no budget for another one; returns its translations.
    fn make_room(&mut self) -> u64 {
        if self.room() > 0 {
            return 0;
        }
        let victim = self
            .leaves
            .range(self.hand..)
            .next()
            .or_else(|| self.leaves.iter().next())
            .map(|(&key, leaf)| (key, leaf.used));
        let Some((key, used)) = victim else {
            return 0;
        };
        self.hand = key + 1;
        self.remove(key);
        u64::from(used)
    }

    fn remove(&mut self, key: u64) {
        if self.leaves.remove(&key).is_some() {
            self.budget.0.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Atc {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atc() -> Atc {
        Atc::new(Arc::default())
    }

    fn run(vpn: u64, gpa: u64, npages: u64) -> Translation {
        Translation {
            vpn,
            gpa,
            npages,
            access: Access::READ,
        }
    }

    fn gpa(atc: &Atc, vpn: u64) -> Option<u64> {
        atc.leaf(vpn)?.page(vpn).map(|page| page.gpa)
    }

    #[test]
    fn filled_pages_are_found_across_leaves() {
        let mut atc = atc();
        // 510 … 513 spans the border between two leaves.
        assert_eq!(atc.fill(run(510, 0x10000, 4)), 0);
        assert_eq!(gpa(&atc, 509), None);
        assert_eq!(gpa(&atc, 510), Some(0x10000));
        assert_eq!(gpa(&atc, 513), Some(0x13000));
        assert_eq!(gpa(&atc, 514), None);
    }

    #[test]
    fn accesses_are_told_of_at_the_threshold_and_each_time_they_have_doubled() {
        let leaf = Leaf::new();
        let told: Vec<u32> = (1..=100).filter(|_| leaf.count(1, 10)).collect();
        assert_eq!(told, [10, 20, 40, 80]);
        // Many at once are told of once, and beyond the last number they begin anew.
        assert!(leaf.count(1000, 10) && !leaf.count(1, 10));
        assert!(leaf.count(u32::MAX - 1000, 10));
        assert!(!Leaf::new().count(1, 0), "never");
    }

    #[test]
    fn accesses_are_forgotten_with_the_translations() {
        let mut atc = atc();
        let count = |atc: &Atc| atc.leaf(1).map(|leaf| leaf.count(9, 10));
        atc.fill(run(1, 0x1000, 2));
        assert_eq!(count(&atc), Some(false));
        atc.invalidate(1, 1);
        assert_eq!(count(&atc), Some(true));
        atc.invalidate(2, 1);
        atc.fill(run(1, 0x1000, 2));
        assert_eq!(count(&atc), Some(false));
    }

    #[test]
    fn page_at_guest_physical_zero_is_a_translation() {
        let mut atc = atc();
        atc.fill(run(1, 0, 1));
        assert_eq!(gpa(&atc, 1), Some(0));
    }

    #[test]
    fn refilled_page_has_the_new_address_and_rights() {
        let mut atc = atc();
        atc.fill(run(1, 0x1000, 1));
        atc.fill(Translation {
            access: Access::WRITE,
            ..run(1, 0x2000, 1)
        });
        let page = atc.leaf(1).and_then(|leaf| leaf.page(1));
        assert_eq!(
            page,
            Some(Page {
                gpa: 0x2000,
                access: Access::WRITE
            })
        );
    }

    #[test]
    fn invalidation_removes_exactly_its_range() {
        let mut atc = atc();
        atc.fill(run(0, 0, 2048));
        atc.invalidate(511, 514);
        assert_eq!(gpa(&atc, 510), Some(510 << 12));
        assert_eq!(gpa(&atc, 511), None);
        assert_eq!(gpa(&atc, 1024), None);
        assert_eq!(gpa(&atc, 1025), Some(1025 << 12));
        assert_eq!(atc.leaves.len(), 3);
    }

    #[test]
    fn invalidation_of_all_addresses_and_of_none_is_accepted() {
        let mut atc = atc();
        atc.fill(run(0, 0, 1024));
        atc.invalidate(3, 0);
        assert_eq!(gpa(&atc, 3), Some(3 << 12));
        atc.invalidate(0, u64::MAX);
        assert!(atc.leaves.is_empty());
        assert_eq!(atc.budget.0.load(Relaxed), 0);
    }

    #[test]
    fn leaves_stay_within_the_budget_and_are_given_up_in_turn() {
        let mut atc = atc();
        let mut evicted = 0;
        // One alone gets half.
        let most = SHARED_LEAVES as u64 / 2;
        for n in 0..=most {
            evicted += atc.fill(run(n * LEAF_PAGES, 0, 1));
        }
        assert_eq!(evicted, 1);
        assert_eq!(atc.leaves.len() as u64, most);
        assert_eq!(gpa(&atc, 0), None);
        atc.fill(run((most + 1) * LEAF_PAGES, 0, 1));
        assert_eq!(gpa(&atc, LEAF_PAGES), None);
    }

    #[test]
    fn context_that_takes_all_it_can_leaves_as_much_to_the_next() {
        let budget = Arc::default();
        let mut greedy = Atc::new(Arc::clone(&budget));
        greedy.fill(run(0, 0, SHARED_LEAVES as u64 * LEAF_PAGES));
        let mut other = Atc::new(budget);
        assert_eq!(other.room(), SHARED_LEAVES / 4);
        other.fill(run(0, 0, SHARED_LEAVES as u64 * LEAF_PAGES));
        assert_eq!(other.leaves.len(), SHARED_LEAVES / 4);
    }

    #[test]
    fn every_context_gets_its_minimum_when_the_budget_is_used_up() {
        let budget = Arc::new(LeafBudget(AtomicUsize::new(SHARED_LEAVES)));
        let mut atc = Atc::new(budget);
        for n in 0..=MIN_LEAVES as u64 {
            atc.fill(run(n * LEAF_PAGES, 0, 1));
        }
        assert_eq!(atc.leaves.len(), MIN_LEAVES);
        assert_eq!(atc.room(), 0);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Which pages of the device memory are in use: a bitmap that hands out runs.
//!
//! Pages are numbered from 0. The lowest free ones are given out first: what was used and given back is
//! used again before what never was. The host has memory behind it already, and it may still be in caches.
//! No kernel imports: `make test` runs the tests below on the host.

use core::ops::DerefMut;

/// The bitmap over storage `S`, one bit a page, set where in use.
pub(crate) struct PageMap<S> {
    words: S,
    pages: usize,
    free: usize,
    /// No page below is free.
    lowest: usize,
    /// No block of [`BLOCK`] pages that begins below is free.
    lowest_block: usize,
}

/// Pages of a block: as many as a 2 MiB folio has.
pub(crate) const BLOCK: usize = 512;
const BLOCK_WORDS: usize = BLOCK / 64;

/// Words of storage for a number of pages.
pub(crate) const fn words_for(pages: usize) -> usize {
    pages.div_ceil(64)
}

impl<S: DerefMut<Target = [u64]>> PageMap<S> {
    /// A map of `pages` free pages; `words` must have [`words_for`] zeroed words.
    pub(crate) fn new(words: S, pages: usize) -> Self {
        debug_assert!(words.len() >= words_for(pages));
        PageMap {
            words,
            pages,
            free: pages,
            lowest: 0,
            lowest_block: 0,
        }
    }

    /// Pages not in use.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Whether `page` is in use.
    pub(crate) fn is_used(&self, page: usize) -> bool {
        self.words
            .get(page / 64)
            .is_some_and(|w| w >> (page % 64) & 1 == 1)
    }

    /// Takes up to `want` consecutive pages; returns the first and how many, or `None` when
    /// nothing is free or nothing is wanted.
    pub(crate) fn take(&mut self, want: usize) -> Option<(usize, usize)> {
        if self.free == 0 || want == 0 {
            return None;
        }
        let first = self.next_free(self.lowest)?;
        let mut count = 0;
        while count < want && first + count < self.pages && !self.is_used(first + count) {
            self.words[(first + count) / 64] |= 1 << ((first + count) % 64);
            count += 1;
        }
        self.free -= count;
        self.lowest = first + count;
        Some((first, count))
    }

    /// Takes [`BLOCK`] consecutive pages that begin at a multiple of as many.
    pub(crate) fn take_block(&mut self) -> Option<usize> {
        let blocks = self.pages / BLOCK;
        let words = |block: usize| block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS;
        let from = self.lowest_block / BLOCK;
        let found =
            (from..blocks).find(|&block| self.words[words(block)].iter().all(|&word| word == 0));
        self.lowest_block = found.map_or(blocks, |block| block + 1) * BLOCK;
        let block = found?;
        self.words[words(block)].fill(u64::MAX);
        self.free -= BLOCK;
        Some(block * BLOCK)
    }

    /// Gives the `count` pages from `first` on back; returns how many of them were in use.
    pub(crate) fn give(&mut self, first: usize, count: usize) -> usize {
        let before = self.free;
        let end = (first + count).min(self.pages);
        if first < end {
            self.lowest = self.lowest.min(first);
            self.lowest_block = self.lowest_block.min(first - first % BLOCK);
        }
        let mut page = first;
        while page < end {
            // The part of the range in one word.
            let bits = (64 - page % 64).min(end - page);
            let mask = (u64::MAX >> (64 - bits)) << (page % 64);
            let word = &mut self.words[page / 64];
            self.free += (*word & mask).count_ones() as usize;
            *word &= !mask;
            page += bits;
        }
        self.free - before
    }

    /// First free page at or after `from`.
    fn next_free(&self, from: usize) -> Option<usize> {
        let mut page = from;
        while page < self.pages {
            let free = !self.words[page / 64] >> (page % 64);
            if free != 0 {
                page += free.trailing_zeros() as usize;
                return (page < self.pages).then_some(page);
            }
            page = (page / 64 + 1) * 64;
        }
        None
    }

    /// First page in use at or after `from`, and how many in use follow without a gap, at most
    /// `most`.
    pub(crate) fn used_run(&self, from: usize, most: usize) -> Option<(usize, usize)> {
        let mut page = from;
        while page < self.pages {
            let used = self.words[page / 64] >> (page % 64);
            if used != 0 {
                page += used.trailing_zeros() as usize;
                let count = (page..self.pages)
                    .take(most)
                    .take_while(|&p| self.is_used(p))
                    .count();
                return (count > 0).then_some((page, count));
            }
            page = (page / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pages: usize) -> PageMap<Vec<u64>> {
        PageMap::new(vec![0; words_for(pages)], pages)
    }

    #[test]
    fn hands_out_every_page_once() {
        let mut m = map(130);
        let mut seen = vec![false; 130];
        while let Some((first, count)) = m.take(7) {
            for p in first..first + count {
                assert!(!seen[p]);
                seen[p] = true;
            }
        }
        assert!(seen.iter().all(|&s| s) && m.free() == 0);
    }

    #[test]
    fn runs_end_at_used_pages() {
        let mut m = map(256);
        assert_eq!(m.take(256), Some((0, 256)));
        for p in [3, 4, 5, 100] {
            assert_eq!(m.give(p, 1), 1);
        }
        assert_eq!(m.take(10), Some((3, 3)));
        assert_eq!(m.take(10), Some((100, 1)));
        assert_eq!(m.take(1), None);
    }

    #[test]
    fn giving_twice_is_refused() {
        let mut m = map(10);
        assert_eq!(m.take(1), Some((0, 1)));
        assert_eq!(m.give(0, 1), 1);
        assert_eq!(m.give(0, 1) + m.give(9, 1) + m.give(10_000, 1), 0);
        assert_eq!(m.free(), 10);
    }

    #[test]
    fn blocks_are_aligned_and_skip_what_is_in_use() {
        let mut m = map(3 * BLOCK + 5);
        assert_eq!(m.take(1), Some((0, 1)));
        assert_eq!(m.take_block(), Some(BLOCK));
        assert_eq!(m.take_block(), Some(2 * BLOCK));
        assert_eq!(m.take_block(), None);
        assert_eq!(m.give(0, 1), 1);
        assert_eq!(m.take_block(), Some(0));
        assert_eq!(m.take_block(), None);
        assert_eq!(m.free(), 5);
    }

    #[test]
    fn what_was_given_back_is_used_before_what_never_was() {
        let mut m = map(4 * BLOCK);
        assert_eq!(m.take(10), Some((0, 10)));
        assert_eq!(m.take_block(), Some(BLOCK));
        m.give(BLOCK, BLOCK);
        assert_eq!(m.take_block(), Some(BLOCK));
        m.give(3, 4);
        assert_eq!(m.take(10), Some((3, 4)));
        assert_eq!(m.take(10), Some((10, 10)));
        m.give(BLOCK, BLOCK);
        m.give(0, 20);
        assert_eq!(m.take_block(), Some(0));
        assert_eq!(m.take(BLOCK), Some((BLOCK, BLOCK)));
    }

    #[test]
    fn pages_around_blocks_in_use_are_found() {
        let mut m = map(3 * BLOCK);
        assert_eq!(m.take_block(), Some(0));
        assert_eq!(m.take(3 * BLOCK), Some((BLOCK, 2 * BLOCK)));
        m.give(BLOCK + 7, 1);
        assert_eq!(m.take_block(), None);
        assert_eq!(m.take(5), Some((BLOCK + 7, 1)));
        m.give(2 * BLOCK, BLOCK);
        assert_eq!(m.take_block(), Some(2 * BLOCK));
        assert_eq!(m.take(1), None);
    }

    #[test]
    fn runs_are_given_back_across_words() {
        let mut m = map(300);
        m.take(300);
        assert_eq!(m.give(60, 140), 140);
        assert_eq!(m.give(50, 100), 10);
        assert_eq!(m.free(), 150);
        assert!(m.is_used(49) && !m.is_used(50) && !m.is_used(199) && m.is_used(200));
    }

    #[test]
    fn used_runs_are_found_in_order() {
        let mut m = map(200);
        m.take(150);
        m.give(10, 130);
        assert_eq!(m.used_run(0, 512), Some((0, 10)));
        assert_eq!(m.used_run(10, 4), Some((140, 4)));
        assert_eq!(m.used_run(150, 4), None);
    }
}

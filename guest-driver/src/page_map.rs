// SPDX-License-Identifier: GPL-2.0

//! Which pages of the device memory are in use, and by whom: a bitmap that hands out runs.
//!
//! Pages are numbered from 0. The lowest free ones are given out first: what was used and given back is
//! used again before what never was. The host has memory behind it already, and it may still be in caches.
//! A search passes by whole blocks that cannot have what is looked for: it looks at one number for each
//! 2 MiB, and at pages of one block.
//! No kernel imports: `make test` runs the tests below on the host.

use core::ops::{DerefMut, Range};

/// The bitmap: `words` has a bit a page, set where in use; `counts` how many of each block are; `holders`
/// for each page in use who uses it.
pub(crate) struct PageMap<W, N> {
    words: W,
    counts: N,
    holders: N,
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

/// Blocks, the last of which may be a part, of a number of pages.
pub(crate) const fn blocks_for(pages: usize) -> usize {
    pages.div_ceil(BLOCK)
}

impl<W: DerefMut<Target = [u64]>, N: DerefMut<Target = [u16]>> PageMap<W, N> {
    /// A map of `pages` free pages; there must be [`words_for`] words, [`blocks_for`] counts and one holder a
    /// page, all zeroed.
    pub(crate) fn new(words: W, counts: N, holders: N, pages: usize) -> Self {
        debug_assert!(words.len() >= words_for(pages) && counts.len() >= blocks_for(pages));
        debug_assert!(holders.len() >= pages);
        PageMap {
            words,
            counts,
            holders,
            pages,
            free: pages,
            lowest: 0,
            lowest_block: 0,
        }
    }

    /// Pages.
    pub(crate) fn pages(&self) -> usize {
        self.pages
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

    /// Takes up to `want` consecutive pages for `holder`; returns the first and how many, or `None` when
    /// nothing is free or nothing is wanted.
    pub(crate) fn take(&mut self, want: usize, holder: u16) -> Option<(usize, usize)> {
        if self.free == 0 || want == 0 {
            return None;
        }
        let first = self.next_free(self.lowest)?;
        let mut count = 0;
        while count < want && first + count < self.pages && !self.is_used(first + count) {
            let page = first + count;
            self.words[page / 64] |= 1 << (page % 64);
            self.counts[page / BLOCK] += 1;
            self.holders[page] = holder;
            count += 1;
        }
        self.free -= count;
        self.lowest = first + count;
        Some((first, count))
    }

    /// Takes [`BLOCK`] consecutive pages that begin at a multiple of as many.
    pub(crate) fn take_block(&mut self, holder: u16) -> Option<usize> {
        let blocks = self.pages / BLOCK;
        let from = self.lowest_block / BLOCK;
        let found = (from..blocks).find(|&block| self.counts[block] == 0);
        self.lowest_block = found.map_or(blocks, |block| block + 1) * BLOCK;
        let block = found?;
        self.words[block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS].fill(u64::MAX);
        self.holders[block * BLOCK..(block + 1) * BLOCK].fill(holder);
        self.counts[block] = BLOCK as u16;
        self.free -= BLOCK;
        Some(block * BLOCK)
    }

    /// Makes `page`, which is in use, that of `holder`.
    pub(crate) fn hand_over(&mut self, page: usize, holder: u16) {
        if self.is_used(page) {
            self.holders[page] = holder;
        }
    }

    /// Gives the `count` pages from `first` on back and tells for each that was in use by whom; returns how
    /// many were.
    pub(crate) fn give(&mut self, first: usize, count: usize, mut gave: impl FnMut(u16)) -> usize {
        let end = first.saturating_add(count).min(self.pages);
        if first >= end {
            return 0;
        }
        self.lowest = self.lowest.min(first);
        self.lowest_block = self.lowest_block.min(first - first % BLOCK);
        let before = self.free;
        for page in first..end {
            if self.is_used(page) {
                self.words[page / 64] &= !(1 << (page % 64));
                self.counts[page / BLOCK] -= 1;
                self.free += 1;
                gave(self.holders[page]);
            }
        }
        self.free - before
    }

    /// First free page at or after `from`.
    fn next_free(&self, from: usize) -> Option<usize> {
        let has = |block: usize, used: u16| {
            let pages = BLOCK.min(self.pages - block * BLOCK);
            (used as usize) < pages
        };
        self.find(from..self.pages, has, |page| !self.is_used(page))
    }

    /// First page of `among` in use, by `holder` if one is named, and how many such follow without a gap, at
    /// most `most` and not beyond the page's block, so that they are whole folios.
    pub(crate) fn used_run(
        &self,
        among: Range<usize>,
        most: usize,
        holder: Option<u16>,
    ) -> Option<(usize, usize)> {
        let is_meant =
            |page: usize| self.is_used(page) && holder.is_none_or(|h| self.holders[page] == h);
        let first = self.find(among, |_, used| used > 0, is_meant)?;
        let end = (first - first % BLOCK + BLOCK).min(self.pages);
        let count = (first..end)
            .take(most)
            .take_while(|&page| is_meant(page))
            .count();
        Some((first, count))
    }

    /// First page of `among` that `is_meant`, of the blocks that, by their number and their pages in use, may
    /// have one.
    fn find(
        &self,
        among: Range<usize>,
        may_have: impl Fn(usize, u16) -> bool,
        is_meant: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let end = among.end.min(self.pages);
        (among.start / BLOCK..blocks_for(end))
            .filter(|&block| may_have(block, self.counts[block]))
            .find_map(|block| {
                let pages = block * BLOCK..((block + 1) * BLOCK).min(end);
                (pages.start.max(among.start)..pages.end).find(|&page| is_meant(page))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pages: usize) -> Map {
        let (words, counts) = (vec![0; words_for(pages)], vec![0; blocks_for(pages)]);
        Map(PageMap::new(words, counts, vec![0; pages], pages))
    }

    /// A map all of whose pages are one holder's.
    struct Map(PageMap<Vec<u64>, Vec<u16>>);

    const HOLDER: u16 = 7;

    impl Map {
        fn take(&mut self, want: usize) -> Option<(usize, usize)> {
            self.0.take(want, HOLDER)
        }
        fn take_block(&mut self) -> Option<usize> {
            self.0.take_block(HOLDER)
        }
        fn give(&mut self, first: usize, count: usize) -> usize {
            self.0
                .give(first, count, |holder| assert_eq!(holder, HOLDER))
        }
        fn used_run(&self, from: usize, most: usize) -> Option<(usize, usize)> {
            self.0.used_run(from..usize::MAX, most, None)
        }
        fn is_used(&self, page: usize) -> bool {
            self.0.is_used(page)
        }
        fn free(&self) -> usize {
            self.0.free()
        }
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

    #[test]
    fn runs_are_one_holders_and_of_one_block() {
        let mut m = map(3 * BLOCK).0;
        assert_eq!(m.take(10, 1), Some((0, 10)));
        assert_eq!(m.take(2 * BLOCK, 2), Some((10, 2 * BLOCK)));
        assert_eq!(m.take(5, 1), Some((2 * BLOCK + 10, 5)));
        m.hand_over(3, 2);
        m.hand_over(3 * BLOCK - 1, 2);
        assert_eq!(m.used_run(0..usize::MAX, 512, Some(1)), Some((0, 3)));
        assert_eq!(m.used_run(3..usize::MAX, 512, Some(1)), Some((4, 6)));
        assert_eq!(
            m.used_run(10..usize::MAX, 512, Some(1)),
            Some((2 * BLOCK + 10, 5))
        );
        assert_eq!(
            m.used_run(4..usize::MAX, 512, Some(2)),
            Some((10, BLOCK - 10))
        );
        assert_eq!(
            m.used_run(BLOCK..usize::MAX, 512, Some(2)),
            Some((BLOCK, BLOCK))
        );
        assert_eq!(m.used_run(2 * BLOCK + 10..usize::MAX, 512, Some(2)), None);
        assert_eq!(m.used_run(0..2 * BLOCK, 512, Some(1)), Some((0, 3)));
        assert_eq!(m.used_run(10..2 * BLOCK, 512, Some(1)), None);
        let mut gave = [0; 3];
        assert_eq!(m.give(0, 20, |holder| gave[holder as usize] += 1), 20);
        assert_eq!(gave, [0, 9, 11]);
    }

    #[test]
    fn full_blocks_are_passed_by() {
        let mut m = map(5 * BLOCK + 3);
        assert_eq!(m.take(5 * BLOCK + 3), Some((0, 5 * BLOCK + 3)));
        assert_eq!(m.take(1), None);
        m.give(4 * BLOCK + 9, 1);
        m.give(5 * BLOCK + 2, 1);
        m.0.lowest = 0;
        assert_eq!(m.take(9), Some((4 * BLOCK + 9, 1)));
        assert_eq!(m.take(9), Some((5 * BLOCK + 2, 1)));
        assert_eq!(m.free(), 0);
    }
}

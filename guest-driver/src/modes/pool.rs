// SPDX-License-Identifier: GPL-2.0

//! The pages that the driver gives out: which are in use, and whose.
//!
//! A few are cleared ahead of need, so that a device's fault on memory never touched does not wait for a copy
//! message.
//!
//! The lock is taken in `folio_free`, with spinlocks held and from reclaim; under it only that of the users is
//! taken, and under that one that of what is charged, which is a leaf.

use crate::{
    copy::CopyBatch,
    kapi::{frames::Frames, irqlock::IrqSpinLock, page::PMD_PAGES},
    link::Link,
    new_irqlock,
    page_map::{blocks_for, words_for, PageMap},
    users::NOBODY,
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// Pages cleared ahead of need: 256 KiB, which one message clears while the device is at work on the
/// pages of the faults before.
const CLEARED: usize = 64;

/// Blocks that one search for pages of a user looks at: a bound for the time with interrupts disabled.
const SEARCHED_BLOCKS: usize = 16;

/// Which pages are in use.
struct Pages {
    map: PageMap<KVVec<u64>, KVVec<u16>>,
    /// Pages that count as used in `map`, hold zeros and are nobody's.
    cleared: KVec<usize>,
    /// Where the next search for pages that are to make room begins, so that it is not always the same ones.
    hand: usize,
}

impl Pages {
    fn run_of(&self, user: u16, from: usize) -> (Option<Range<usize>>, usize) {
        let end = from + SEARCHED_BLOCKS * PMD_PAGES;
        match self.map.used_run(from..end, PMD_PAGES, Some(user)) {
            Some((first, count)) => (Some(first..first + count), first + count),
            None => (None, end),
        }
    }
}

/// Pages by their index in the device memory.
#[pin_data]
pub(super) struct Pool {
    link: Arc<Link>,
    #[pin]
    pages: IrqSpinLock<Pages>,
    accepting: Atomic<bool>,
}

impl Pool {
    /// `pages` pages, all free.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(super) fn new(link: Arc<Link>, pages: usize) -> Result<impl PinInit<Self>> {
        let (mut words, mut counts, mut holders) = (KVVec::new(), KVVec::new(), KVVec::new());
        words.resize(words_for(pages), 0, GFP_KERNEL)?;
        counts.resize(blocks_for(pages), 0, GFP_KERNEL)?;
        holders.resize(pages, NOBODY, GFP_KERNEL)?;
        let pages = Pages {
            map: PageMap::new(words, counts, holders, pages),
            cleared: KVec::with_capacity(CLEARED, GFP_KERNEL)?,
            hand: 0,
        };
        Ok(pin_init!(Self {
            link,
            pages <- new_irqlock!(pages, "coax_pages"),
            accepting: Atomic::new(true),
        }))
    }

    /// The device.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Pages not in use.
    pub(super) fn free_pages(&self) -> u64 {
        let pages = self.pages.lock();
        (pages.map.free() + pages.cleared.len()) as u64
    }

    /// Whether a page can be had.
    pub(super) fn has_room(&self) -> bool {
        self.is_accepting() && self.free_pages() > 0
    }

    /// Whether pages are given out.
    fn is_accepting(&self) -> bool {
        self.accepting.load(Relaxed) && self.link.lifetime.is_live()
    }

    /// Whether pages are to be given out; taken pages stay.
    pub(super) fn set_accepting(&self, accepting: bool) {
        let mut pages = self.pages.lock();
        self.accepting.store(accepting, Relaxed);
        if !accepting {
            while let Some(index) = pages.cleared.pop() {
                self.give_back(&mut pages, index..index + 1);
            }
        }
    }

    /// Up to `want` consecutive free pages for `user`; of those cleared if there are no others.
    pub(super) fn take(&self, want: usize, user: u16) -> Option<(usize, usize)> {
        let mut pages = self.pages.lock();
        if !self.is_accepting() {
            return None;
        }
        if let Some((first, count)) = pages.map.take(want, user) {
            self.link.users.lock().took(user, count);
            return Some((first, count));
        }
        self.hand_over_cleared(&mut pages, user)
            .map(|index| (index, 1))
    }

    /// A page that holds zeros, from now on `user`'s.
    fn hand_over_cleared(&self, pages: &mut Pages, user: u16) -> Option<usize> {
        let index = pages.cleared.pop()?;
        pages.map.hand_over(index, user);
        let mut users = self.link.users.lock();
        // Nobody's pages are not charged.
        users.gave(NOBODY);
        users.took(user, 1);
        Some(index)
    }

    /// Gives pages back; returns how many were in use.
    fn give_back(&self, pages: &mut Pages, run: Range<usize>) -> usize {
        let mut users = self.link.users.lock();
        pages.map.give(run.start, run.len(), |user| {
            let units = users.gave(user);
            self.link.charges.give_back(user, units);
        })
    }

    /// The pages of a 2 MiB folio, if there are [`PMD_PAGES`] free ones in place.
    pub(super) fn take_large(&self, user: u16) -> Option<usize> {
        let mut pages = self.pages.lock();
        if !self.is_accepting() {
            return None;
        }
        let first = pages.map.take_block(user)?;
        self.link.users.lock().took(user, PMD_PAGES);
        Some(first)
    }

    /// A page that holds zeros, if one was cleared ahead.
    pub(super) fn take_cleared(&self, user: u16) -> Option<usize> {
        self.hand_over_cleared(&mut self.pages.lock(), user)
    }

    /// Puts by pages that hold zeros, or gives them back where they are not wanted.
    fn put_by(&self, run: Range<usize>) {
        let mut pages = self.pages.lock();
        for index in run {
            if !self.is_accepting() || pages.cleared.push_within_capacity(index).is_err() {
                self.give_back(&mut pages, index..index + 1);
            }
        }
    }

    /// Gives pages back; returns how many were in use.
    pub(super) fn give(&self, run: Range<usize>) -> usize {
        self.give_back(&mut self.pages.lock(), run)
    }

    /// The next run of pages in use from `from` on, within one block of [`PMD_PAGES`], so that it
    /// holds whole folios.
    pub(super) fn used_run(&self, from: usize) -> Option<Range<usize>> {
        let (first, count) = self
            .pages
            .lock()
            .map
            .used_run(from..usize::MAX, PMD_PAGES, None)?;
        Some(first..first + count)
    }

    /// Whose pages are to make room for `user`, who wants `want`, and how many at most; none if there is room,
    /// or nobody has to give way.
    pub(super) fn gives_way(&self, user: u16, want: usize) -> Option<(u16, usize)> {
        if !self.is_accepting() || self.free_pages() >= want as u64 {
            return None;
        }
        let total = self.pages.lock().map.pages();
        self.link.users.lock().gives_way(user, total)
    }

    /// The next run of pages that `user` has, within one block; it may have to be searched for again.
    pub(super) fn next_of(&self, user: u16) -> Option<Range<usize>> {
        let mut pages = self.pages.lock();
        let (found, next) = pages.run_of(user, pages.hand);
        pages.hand = if next < pages.map.pages() { next } else { 0 };
        found
    }

    /// The next run of pages that `user` has from `from` on, within one block; and where to search on, also if none
    /// was found.
    pub(super) fn run_of(&self, user: u16, from: usize) -> (Option<Range<usize>>, usize) {
        self.pages.lock().run_of(user, from)
    }

    /// Clears pages ahead of need if few are left; `frames` are those of these pages.
    pub(super) fn clear_ahead(&self, frames: &Frames) {
        let cleared = self.pages.lock().cleared.len();
        if cleared >= CLEARED / 2 {
            return;
        }
        let Some((first, count)) = self.take(CLEARED - cleared, NOBODY) else {
            return;
        };
        let mut batch = CopyBatch::new(1);
        let pushed = batch.push(None, frames.address_at(first), count as u32);
        let done = pushed.and_then(|()| batch.run(&self.link));
        match done {
            Ok(()) => self.put_by(first..first + count),
            Err(_) => {
                self.give(first..first + count);
            }
        }
    }
}

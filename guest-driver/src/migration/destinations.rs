// SPDX-License-Identifier: GPL-2.0

//! Device memory for the pages of one window.

use crate::{
    kapi::{
        migrate::{Migration, Source},
        page::{LockedFolio, PMD_PAGES},
    },
    link::Pending,
    memory::{CopyBatch, DeviceMemory},
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

const PAGE_SIZE: u64 = crate::wire::PAGE_SIZE;

/// Pages up to which a window uses those cleared ahead; more come in one piece and are cleared then.
const FEW_PAGES: usize = 16;

/// Gives pages destinations and collects the copies; what it took and did not use it gives back.
pub(super) struct Destinations<'a> {
    memory: &'a DeviceMemory,
    /// Whose the pages are to be.
    user: u16,
    batch: CopyBatch,
    /// Pages taken and not used.
    run: Range<usize>,
    /// Pages wanted and not given.
    left: usize,
    few: bool,
    fail: Option<&'a Atomic<bool>>,
}

impl<'a> Destinations<'a> {
    /// For `wanted` pages of `user` in so many pieces; the next allocation fails if `fail` says so.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(super) fn new(
        memory: &'a DeviceMemory,
        user: u16,
        wanted: usize,
        pieces: usize,
        fail: Option<&'a Atomic<bool>>,
    ) -> Result<Self> {
        Ok(Destinations {
            memory,
            user,
            batch: CopyBatch::new(pieces)?,
            run: 0..0,
            left: wanted,
            few: wanted <= FEW_PAGES,
            fail,
        })
    }

    /// Whether the allocation at hand is to fail.
    fn fails(&self) -> bool {
        match self.fail {
            Some(fail) if fail.load(Relaxed) => {
                fail.store(false, Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Gives page `i`, or the folio that begins there, a destination: a large source a large one if
    /// `whole`, and else small ones. False if the device memory is full.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(super) fn add(
        &mut self,
        migration: &mut Migration<'_>,
        i: usize,
        source: Source,
        whole: bool,
    ) -> Result<bool> {
        if source.order == 0 {
            return self.add_page(migration, i, source);
        }
        let large = if whole {
            self.large(source.order)
        } else {
            None
        };
        if let Some(folio) = large {
            let from = source.page.map(|page| self.memory.address_of(page));
            let to = self.memory.address_of(folio.head());
            self.batch.push(from, to, 1 << source.order)?;
            migration.set_destination(i, folio);
            self.left = self.left.saturating_sub(PMD_PAGES);
            return Ok(true);
        }
        // The kernel fills 2 MiB that were never touched whole or not at all.
        if source.page.is_none() && self.memory.data().free_pages() < PMD_PAGES as u64 {
            return Ok(false);
        }
        let from = source.page.map(|page| self.memory.address_of(page));
        let mark = self.batch.mark();
        for part in 0..PMD_PAGES {
            let from = from.map(|from| from + part as u64 * PAGE_SIZE);
            if !self.add_from(migration, i + part, from)? {
                if from.is_none() {
                    self.batch.back_to(mark);
                    (i..i + part).for_each(|i| migration.clear_destination(i));
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add_page(
        &mut self,
        migration: &mut Migration<'_>,
        i: usize,
        source: Source,
    ) -> Result<bool> {
        if self.few && source.page.is_none() {
            let data = self.memory.data();
            let cleared = data.take_cleared(self.user);
            if let Some(folio) = cleared.and_then(|index| self.memory.init_folio(index, 0)) {
                self.left = self.left.saturating_sub(1);
                migration.set_destination(i, folio);
                return Ok(true);
            }
        }
        let from = source.page.map(|page| self.memory.address_of(page));
        self.add_from(migration, i, from)
    }

    fn add_from(
        &mut self,
        migration: &mut Migration<'_>,
        i: usize,
        from: Option<u64>,
    ) -> Result<bool> {
        let Some(folio) = self.small() else {
            return Ok(false);
        };
        self.left = self.left.saturating_sub(1);
        let to = self.memory.address_of(folio.head());
        self.batch.push(from, to, 1)?;
        migration.set_destination(i, folio);
        Ok(true)
    }

    fn large(&mut self, order: u32) -> Option<LockedFolio> {
        if self.fails() {
            return None;
        }
        let data = self.memory.data();
        match data.node() {
            Some(node) => LockedFolio::alloc_on(node, order),
            None => self.memory.init_folio(data.take_large(self.user)?, order),
        }
    }

    fn small(&mut self) -> Option<LockedFolio> {
        if let Some(node) = self.memory.data().node() {
            let folio = LockedFolio::alloc_on(node, 0);
            if folio.is_none() {
                self.count_full();
            }
            return folio;
        }
        if self.run.is_empty() && !self.refill() {
            return None;
        }
        let folio = self.memory.init_folio(self.run.start, 0)?;
        self.run.start += 1;
        Some(folio)
    }

    /// Records that there was no room for the pages left.
    fn count_full(&self) {
        let stats = &self.memory.data().link.stats;
        stats.device_full.add(self.left as u64);
    }

    /// Takes a run of pages for those left.
    fn refill(&mut self) -> bool {
        // A failure is one of the long run; shorter ones follow, down to none.
        let want = if self.fails() {
            self.left / 2
        } else {
            self.left
        };
        match self.memory.data().take(want, self.user) {
            Some((first, count)) => {
                self.run = first..first + count;
                true
            }
            None => {
                self.count_full();
                false
            }
        }
    }

    /// Has the device begin with the copies; `None` if there are none.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken. `ENOMEM`.
    pub(super) fn begin_copy(mut self) -> Result<Option<Pending>> {
        let empty = CopyBatch::new(0)?;
        core::mem::replace(&mut self.batch, empty).begin(&self.memory.data().link)
    }
}

impl Drop for Destinations<'_> {
    fn drop(&mut self) {
        self.memory.data().give(self.run.clone());
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Device memory for the pages of one window.

use super::fails;
use crate::{
    copy::CopyBatch,
    kapi::{
        migrate::{Migration, Source},
        page::{LockedFolio, PMD_PAGES},
    },
    link::Pending,
    memory::DeviceMemory,
};
use core::ops::Range;
use kernel::{prelude::*, sync::atomic::Atomic};

const PAGE_SIZE: u64 = crate::wire::PAGE_SIZE;

/// Pages up to which a window uses those cleared ahead; more come in one piece and are cleared then.
const FEW_PAGES: usize = 16;

/// Gives pages destinations and collects the copies; what it took and did not use it gives back.
pub(super) struct Destinations<'a> {
    memory: &'a dyn DeviceMemory,
    /// Whose the pages are to be.
    user: u16,
    batch: CopyBatch,
    /// Pages taken and not used.
    ahead: Range<usize>,
    /// Pages reserved and not given.
    left: usize,
    few: bool,
    fail: Option<&'a Atomic<bool>>,
}

impl<'a> Destinations<'a> {
    /// For `wanted` pages of `user` in so many pieces; the next allocation fails if `fail` says so.
    pub(super) fn new(
        memory: &'a dyn DeviceMemory,
        user: u16,
        wanted: usize,
        pieces: usize,
        fail: Option<&'a Atomic<bool>>,
    ) -> Self {
        let left = memory.reserve(user, wanted);
        let stats = &memory.link().stats;
        stats.device_full.add((wanted - left) as u64);
        Destinations {
            memory,
            user,
            batch: CopyBatch::new(pieces),
            ahead: 0..0,
            left,
            few: wanted <= FEW_PAGES,
            fail,
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
        let large = match whole && self.left >= PMD_PAGES && !fails(self.fail) {
            true => self.memory.large_folio(source.order, self.user),
            false => None,
        };
        if let Some(folio) = large {
            let from = source
                .page
                .map(|page| self.memory.frames().address_of(page));
            let to = self.memory.frames().address_of(folio.head());
            self.batch.push(from, to, 1 << source.order)?;
            migration.set_destination(i, folio);
            self.left = self.left.saturating_sub(PMD_PAGES);
            return Ok(true);
        }
        // The kernel fills 2 MiB that were never touched whole or not at all.
        let room = self.memory.free_pages().min(self.left as u64);
        if source.page.is_none() && room < PMD_PAGES as u64 {
            return Ok(false);
        }
        let from = source
            .page
            .map(|page| self.memory.frames().address_of(page));
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
        if self.few && self.left > 0 && source.page.is_none() {
            if let Some(folio) = self.memory.cleared_page(self.user) {
                self.left = self.left.saturating_sub(1);
                migration.set_destination(i, folio);
                return Ok(true);
            }
        }
        let from = source
            .page
            .map(|page| self.memory.frames().address_of(page));
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
        let to = self.memory.frames().address_of(folio.head());
        self.batch.push(from, to, 1)?;
        migration.set_destination(i, folio);
        Ok(true)
    }

    /// A page for one of those left.
    fn small(&mut self) -> Option<LockedFolio> {
        if self.left == 0 {
            return None;
        }
        // A failure is one of the long run; shorter ones follow, down to none.
        let want = match self.ahead.is_empty() && fails(self.fail) {
            true => self.left / 2,
            false => self.left,
        };
        let folio = self.memory.page(&mut self.ahead, want, self.user);
        if folio.is_none() {
            let stats = &self.memory.link().stats;
            stats.device_full.add(self.left as u64);
        }
        folio
    }

    /// Has the device begin with the copies; `None` if there are none.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken. `ENOMEM`.
    pub(super) fn begin_copy(mut self) -> Result<Option<Pending>> {
        let empty = CopyBatch::new(0);
        core::mem::replace(&mut self.batch, empty).begin(self.memory.link())
    }
}

impl Drop for Destinations<'_> {
    fn drop(&mut self) {
        // What was taken ahead is reserved no more.
        let reserved = self.left.saturating_sub(self.ahead.len());
        self.memory.release(self.user, reserved);
        self.memory.give_back(self.ahead.clone());
    }
}

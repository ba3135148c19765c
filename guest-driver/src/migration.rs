// SPDX-License-Identifier: GPL-2.0

//! Moving pages to device memory or back, a window at a time.
//!
//! Partial success is normal: pages that are pinned, shared in a way that the memory manager does
//! not move, file-backed, or for which there is no memory, stay where they are and stay usable.
//! 2 MiB folios move whole where both sides have one ([`DeviceMemory::has_large_folios`]); where
//! only the source has, it is split.
//!
//! The device copies. A range of several windows is pipelined: while the device copies one window the
//! next ones are unmapped. When the device no longer answers, what is in its memory is brought back
//! by the CPU, so that the loss of the back end loses no data.
//!
//! Windows in flight hold their folios locked and unmapped everywhere. Nothing here waits for a folio lock, and
//! the memory manager waits for one only to split a folio that is mapped (`migrate_vma_split_folio()`), which
//! none in flight is; copies wait for nothing. So several windows in flight block nobody but the users of
//! their pages.

mod cpu_fault;
mod destinations;
mod evict;
mod make_room;
mod pipeline;
mod turns;

pub(crate) use cpu_fault::on_cpu_fault;
pub(crate) use evict::evict_all;
pub(crate) use make_room::make_room;
pub(crate) use pipeline::{Direction, Pipeline};

use crate::{
    kapi::{
        migrate::{Migration, PageArrays, Select, Source},
        misc::boottime_ns,
        mm,
        page::{LockedFolio, PagePtr, PMD_PAGES},
    },
    link::Pending,
    memory::{CopyBatch, DeviceMemory},
};
use core::ops::Range;
use destinations::Destinations;
use kernel::{
    mm::virt::{flags, VmaRef},
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// Most pages moved at a time: 2 MiB, what one copy message holds.
pub(crate) const WINDOW_PAGES: usize = PMD_PAGES;

const PAGE_SIZE: usize = crate::wire::PAGE_SIZE as usize;

/// Causes in the tracepoint `to_system`.
const CAUSE_FAULT: u32 = 0;
const CAUSE_REQUEST: u32 = 1;
const CAUSE_EVICT: u32 = 2;
const CAUSE_SHARE: u32 = 3;

/// What is wanted of a move to device memory.
pub(crate) struct Wish<'a> {
    /// Whose the pages are to be.
    pub(crate) user: u16,
    /// Pages never touched are made in device memory if they lie here, else left alone.
    pub(crate) fill: Range<usize>,
    /// 2 MiB never touched at all may be made as one, even if `fill` is only part of it.
    pub(crate) fill_large: bool,
    /// Makes the next allocation fail, once.
    pub(crate) fail_alloc: Option<&'a Atomic<bool>>,
}

/// A window whose pages are unmapped and on their way.
pub(crate) struct InFlight<'a> {
    migration: Migration<'a>,
    copy: Option<Pending>,
    /// Memory never touched is among what moves.
    untouched: bool,
    start: usize,
}

/// Takes the anonymous pages of `window` in `vma` on their way to device memory.
///
/// # Errors
///
/// `EINVAL`: `window` is not in `vma`, or `vma` does not migrate. `ENOMEM`. `EIO`: the device is
/// broken; nothing moved.
fn depart<'a>(
    memory: &DeviceMemory,
    vma: &'a VmaRef,
    window: Range<usize>,
    wish: &Wish<'_>,
    arrays: PageArrays,
) -> Result<InFlight<'a>> {
    let start = window.start;
    let covered = wish.fill.start <= window.start && window.end <= wish.fill.end;
    // Where memory was never touched at all, the kernel takes 2 MiB as a whole or not.
    let large = memory.has_large_folios()
        && vma.flags() & flags::NOHUGEPAGE == 0
        && (wish.fill.is_empty() || covered || wish.fill_large);
    let mut migration = Migration::of_range(
        vma,
        window,
        (Select::System, large),
        memory.owner(),
        None,
        arrays,
    )?;
    let hugepage = vma.flags() & flags::HUGEPAGE != 0;
    // Of these mappings each page has to be looked at.
    let mixed = !mm::is_anonymous(vma) || vma.flags() & flags::MERGEABLE != 0;
    // To the kernel pages of a node are system memory wherever they are, and may be in the swap cache.
    let of_node = memory.data().node().is_some();
    let moves = |page: PagePtr| memory.index_of(page).is_none() && !page.is_under_writeback();
    let is_wanted = |i: usize, source: Source| match source.page {
        Some(page) => (!mixed || page.is_plain_anon()) && (!of_node || moves(page)),
        None if source.order > 0 => covered || wish.fill_large && hugepage,
        None => wish.fill.contains(&(start + i * PAGE_SIZE)),
    };
    let (mut wanted, mut pieces, mut untouched) = (0, 0, false);
    let mut next = 0;
    while let Some((i, source)) = migration.source_from(next) {
        next = i + (1 << source.order);
        if is_wanted(i, source) {
            wanted += 1 << source.order;
            pieces += 1;
            untouched |= source.page.is_none();
        }
    }
    let mut destinations = Destinations::new(memory, wish.user, wanted, pieces, wish.fail_alloc)?;
    next = 0;
    while let Some((i, source)) = migration.source_from(next) {
        next = i + (1 << source.order);
        if !is_wanted(i, source) {
            continue;
        }
        let whole = source.page.is_some() || hugepage;
        if !destinations.add(&mut migration, i, source, whole)? {
            break;
        }
    }
    let copy = destinations.begin_copy()?;
    Ok(InFlight {
        migration,
        copy,
        untouched,
        start,
    })
}

impl InFlight<'_> {
    /// Puts the pages in place in device memory; returns how many moved.
    fn arrive(mut self, memory: &DeviceMemory) -> (u64, PageArrays) {
        let moved = self.put_in_place(memory);
        count_first(memory, moved);
        (moved, self.migration.finish())
    }

    /// Puts the pages in place and returns how many moved; they are mapped when the migration is finished.
    fn put_in_place(&mut self, memory: &DeviceMemory) -> u64 {
        if self.untouched {
            self.finish_copy(memory);
            self.migration.commit();
        } else {
            // The CPU has its own to do while the device copies.
            self.migration.commit();
            self.finish_copy(memory);
        }
        self.migration.count_moved()
    }

    /// Waits for the copies. If the device is gone, its memory is not, and the CPU copies.
    fn finish_copy(&mut self, memory: &DeviceMemory) {
        if let Some(copy) = self.copy.take() {
            if memory.data().link.finish_copy(copy).is_err() {
                self.migration.copy_by_cpu(memory);
            }
        }
    }
}

/// Moves the anonymous pages of `window` in `vma` to device memory and returns how many moved, and
/// the arrays.
///
/// # Errors
///
/// Those of [`depart`].
pub(crate) fn to_device(
    memory: &DeviceMemory,
    vma: &VmaRef,
    window: Range<usize>,
    wish: &Wish<'_>,
    arrays: PageArrays,
) -> Result<(u64, PageArrays)> {
    Ok(depart(memory, vma, window, wish, arrays)?.arrive(memory))
}

/// Records that pages moved to device memory.
fn count_first(memory: &DeviceMemory, moved: u64) {
    let first = &memory.data().link.stats.first_migration_ns;
    if moved > 0 && first.get() == 0 {
        first.set_once(boottime_ns());
    }
}

/// Gives each page of `migration` system memory from `alloc`, which is told page and order, and
/// has the device begin to copy; without memory for the message the CPU copies. Pages for which there is
/// no memory stay.
fn depart_home<'a>(
    memory: &DeviceMemory,
    mut migration: Migration<'a>,
    start: usize,
    fail_alloc: Option<&Atomic<bool>>,
    mut alloc: impl FnMut(usize, u32) -> Option<LockedFolio>,
) -> InFlight<'a> {
    let mut alloc = |i, order| match fail_alloc {
        Some(fail) if fail.load(Relaxed) => {
            fail.store(false, Relaxed);
            None
        }
        _ => alloc(i, order),
    };
    let mut batch = CopyBatch::new(0);
    let mut next = 0;
    while let Some((i, source)) = migration.source_from(next) {
        next = i + (1 << source.order);
        let Some(page) = source.page else { continue };
        let from = memory.address_of(page);
        if let Some(folio) = alloc(i, source.order) {
            push(&mut batch, from, &folio);
            migration.set_destination(i, folio);
            continue;
        }
        if source.order == 0 || !migration.splits() {
            continue;
        }
        for part in 0..1usize << source.order {
            let Some(folio) = alloc(i + part, 0) else {
                break;
            };
            push(&mut batch, from + (part * PAGE_SIZE) as u64, &folio);
            migration.set_destination(i + part, folio);
        }
    }
    let copy = batch
        .and_then(|batch| batch.begin(&memory.data().link))
        .unwrap_or_else(|_| {
            migration.copy_by_cpu(memory);
            None
        });
    InFlight {
        migration,
        copy,
        untouched: false,
        start,
    }
}

/// Adds the copy from `from` to `folio`; a batch that has no room any more is given up.
fn push(batch: &mut Result<CopyBatch>, from: u64, folio: &LockedFolio) {
    let to = folio.head().pfn() * PAGE_SIZE as u64;
    let pushed = match batch {
        Ok(batch) => batch.push(Some(from), to, 1 << folio.order()),
        Err(_) => return,
    };
    if let Err(error) = pushed {
        *batch = Err(error);
    }
}

/// Takes the device pages of `window` in `vma` on their way back.
///
/// # Errors
///
/// `EINVAL`: `window` is not in `vma`, or `vma` does not migrate. `ENOMEM`.
fn depart_range_home<'a>(
    memory: &DeviceMemory,
    vma: &'a VmaRef,
    window: Range<usize>,
    fail_alloc: Option<&Atomic<bool>>,
    arrays: PageArrays,
) -> Result<InFlight<'a>> {
    let start = window.start;
    let migration = Migration::of_range(
        vma,
        window,
        (Select::Device, memory.has_large_folios()),
        memory.owner(),
        None,
        arrays,
    )?;
    let alloc = |i, order| LockedFolio::alloc(vma, start + i * PAGE_SIZE, order);
    Ok(depart_home(memory, migration, start, fail_alloc, alloc))
}

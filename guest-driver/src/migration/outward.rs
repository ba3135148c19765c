// SPDX-License-Identifier: GPL-2.0

//! A window on its way to device memory.

use super::{destinations::Destinations, Cause, InFlight, PAGE_SIZE};
use crate::{
    kapi::{
        migrate::{Migration, PageArrays, Select, Source},
        mm,
    },
    memory::DeviceMemory,
};
use core::ops::Range;
use kernel::{
    mm::virt::{flags, VmaRef},
    prelude::*,
    sync::atomic::Atomic,
};

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
    /// Why.
    pub(crate) cause: Cause,
}

/// Moves the anonymous pages of `window` in `vma` to device memory and returns how many moved, and
/// the arrays.
///
/// # Errors
///
/// Those of [`depart`].
pub(crate) fn to_device(
    memory: &dyn DeviceMemory,
    vma: &VmaRef,
    window: Range<usize>,
    wish: &Wish<'_>,
    arrays: PageArrays,
) -> Result<(u64, PageArrays)> {
    Ok(depart(memory, vma, window, wish, arrays)?.land())
}

/// Takes the anonymous pages of `window` in `vma` on their way to device memory.
///
/// # Errors
///
/// `EINVAL`: `window` is not in `vma`, or `vma` does not migrate. `ENOMEM`. `EIO`: the device is
/// broken; nothing moved.
pub(super) fn depart<'a>(
    memory: &'a dyn DeviceMemory,
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
        memory.frames(),
        None,
        arrays,
    )?;
    let hugepage = vma.flags() & flags::HUGEPAGE != 0;
    // Of these mappings each page has to be looked at.
    let mixed = !mm::is_anonymous(vma) || vma.flags() & flags::MERGEABLE != 0;
    let is_wanted = |i: usize, source: Source| match source.page {
        Some(page) => (!mixed || page.is_plain_anon()) && memory.takes(page),
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
    let mut destinations = Destinations::new(memory, wish.user, wanted, pieces, wish.fail_alloc);
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
        memory,
        migration,
        copy,
        untouched,
        start,
        cause: wish.cause,
    })
}

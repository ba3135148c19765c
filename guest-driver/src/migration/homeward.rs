// SPDX-License-Identifier: GPL-2.0

//! A window on its way to system memory.

use super::{Cause, InFlight, PAGE_SIZE};
use crate::{
    copy::CopyBatch,
    kapi::{
        migrate::{Fault, Migration, PageArrays, Select},
        page::LockedFolio,
    },
    memory::DeviceMemory,
};
use core::ops::Range;
use kernel::{mm::virt::VmaRef, prelude::*};

/// Ranges that a message has room for at first: what a CPU's fault brings home in small pages.
const FEW_RANGES: usize = 16;

/// Brings the pages with the indices `run` home, which holds whole folios, wherever they are mapped; returns how
/// many came, and the arrays.
///
/// # Errors
///
/// `ENOMEM`: no memory.
pub(crate) fn bring_home(
    memory: &dyn DeviceMemory,
    run: Range<usize>,
    cause: Cause,
    arrays: PageArrays,
) -> Result<(u64, PageArrays)> {
    let first = memory.frames().first_pfn() + run.start as u64;
    let migration = Migration::of_device(first, run.len(), arrays)?;
    let alloc = |_, order| LockedFolio::alloc_any(order);
    Ok(depart(memory, migration, 0, cause, alloc).land())
}

/// Takes the device pages of `window` in `vma`, where `fault` is if there is one, on their way back to memory from
/// `alloc`, which is told page and order; with `large` 2 MiB folios as one.
///
/// # Errors
///
/// `EINVAL`: `window` is not in `vma`, or `vma` does not migrate. `ENOMEM`.
pub(super) fn depart_range<'a>(
    memory: &'a dyn DeviceMemory,
    vma: &'a VmaRef,
    window: Range<usize>,
    (fault, large): (Option<&Fault<'_>>, bool),
    cause: Cause,
    arrays: PageArrays,
    alloc: impl FnMut(usize, u32) -> Option<LockedFolio>,
) -> Result<InFlight<'a>> {
    let (start, frames) = (window.start, memory.frames());
    let select = (Select::Device, large);
    let migration = Migration::of_range(vma, window, select, frames, fault, arrays)?;
    Ok(depart(memory, migration, start, cause, alloc))
}

/// Gives each page of `migration` system memory from `alloc`, which is told page and order, and
/// has the device begin to copy; without memory for the message the CPU copies. Pages for which there is
/// no memory stay.
fn depart<'a>(
    memory: &'a dyn DeviceMemory,
    mut migration: Migration<'a>,
    start: usize,
    cause: Cause,
    mut alloc: impl FnMut(usize, u32) -> Option<LockedFolio>,
) -> InFlight<'a> {
    let frames = memory.frames();
    let mut batch = Ok(CopyBatch::new(FEW_RANGES));
    let mut next = 0;
    while let Some((i, source)) = migration.source_from(next) {
        next = i + (1 << source.order);
        let Some(page) = source.page else { continue };
        let from = frames.address_of(page);
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
        .and_then(|batch| batch.begin(memory.link()))
        .unwrap_or_else(|_| {
            migration.copy_by_cpu(frames);
            None
        });
    InFlight {
        memory,
        migration,
        copy,
        untouched: false,
        start,
        cause,
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

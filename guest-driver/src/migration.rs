// SPDX-License-Identifier: GPL-2.0

//! Moving a window of pages to device memory or back.
//!
//! Partial success is normal: pages that are pinned, shared in a way that the memory manager does
//! not move, file-backed, or for which there is no memory, stay where they are and stay usable.
//!
//! The device copies. When it no longer answers, what is in its memory is brought back by the CPU,
//! so that the loss of the back end loses no data.
//!
//! [`on_cpu_fault`] takes no lock of the driver but that of the page map and the queues', both
//! leaves: a lock shared with the device's faults would livelock with them
//! (`Documentation/gpu/rfc/gpusvm.rst`).

use crate::{
    kapi::{
        migrate::{Fault, Migration, PageArrays, Select, Source},
        misc::boottime_ns,
        page::LockedPage,
        pagemap::FaultError,
        trace,
    },
    memory::{CopyBatch, DeviceMemory},
};
use core::ops::Range;
use kernel::{
    mm::virt::VmaRef,
    prelude::*,
    time::{delay::fsleep, Delta, Instant, Monotonic},
};

/// Most pages moved at a time: 2 MiB, what one copy message holds.
pub(crate) const WINDOW_PAGES: usize = 512;
/// Pages up to which a window uses those cleared ahead; more come in one piece and are cleared then.
const FEW_PAGES: usize = 16;
/// Pages brought back around a CPU's fault: 64 KiB, enough that a pass over memory is not one
/// fault a page, little enough that a stray access does not take from the device what it uses.
const CPU_FAULT_AROUND: usize = 16;
/// Longest attempt to empty the device memory; what is still held then stays.
const EVICT_LIMIT: Delta = Delta::from_secs(10);
/// Pause before pages that something held are tried again.
const EVICT_PAUSE: Delta = Delta::from_millis(2);

const PAGE_SIZE: usize = crate::wire::PAGE_SIZE as usize;

/// Causes in the tracepoint `to_system`.
const CAUSE_FAULT: u32 = 0;
const CAUSE_REQUEST: u32 = 1;
const CAUSE_EVICT: u32 = 2;

/// Moves the anonymous pages of `window` in `vma` to device memory and returns how many moved.
/// Pages never touched are made in device memory if they lie in `fill`, else left alone.
///
/// # Errors
///
/// `EINVAL`: `window` is not in `vma`, or `vma` does not migrate. `ENOMEM`. `EIO`: the device is
/// broken; nothing moved.
pub(crate) fn to_device(
    memory: &DeviceMemory,
    vma: &VmaRef,
    window: Range<usize>,
    fill: Range<usize>,
    arrays: &mut PageArrays,
) -> Result<u64> {
    let mut batch = CopyBatch::new(window.len() / PAGE_SIZE)?;
    let start = window.start;
    let mut migration = Migration::of_range(
        vma,
        start,
        window.end,
        Select::System,
        memory.owner(),
        None,
        arrays,
    )?;
    let movable = |migration: &Migration<'_>, i: usize| match migration.source(i) {
        Some(Source::Hole) if !fill.contains(&(start + i * PAGE_SIZE)) => None,
        // Merged pages are mapped many times; the device reads them where they are.
        Some(Source::Page(page)) if page.is_ksm() => None,
        source => source,
    };
    let mut left = (0..migration.len())
        .filter(|&i| movable(&migration, i).is_some())
        .count();
    let few = left <= FEW_PAGES;
    let mut run = 0..0;
    for i in 0..migration.len() {
        let Some(source) = movable(&migration, i) else {
            continue;
        };
        if few && matches!(source, Source::Hole) {
            if let Some(page) = memory
                .data()
                .take_cleared()
                .and_then(|i| memory.init_page(i))
            {
                left -= 1;
                migration.set_destination(i, page);
                continue;
            }
        }
        if run.is_empty() {
            let Some((first, count)) = memory.data().take(left) else {
                memory.data().link.stats.device_full.add(left as u64);
                break;
            };
            run = first..first + count;
        }
        let Some(page) = run.next().and_then(|index| memory.init_page(index)) else {
            break;
        };
        left -= 1;
        let from = match source {
            Source::Hole => None,
            Source::Page(page) => Some(memory.address_of(page)),
        };
        batch.push(from, memory.address_of(page.page()))?;
        migration.set_destination(i, page);
    }
    for index in run {
        memory.data().give(index);
    }
    batch.run(&memory.data().link)?;
    migration.commit();
    Ok(migration.count_moved())
}

/// Records that pages moved to device memory.
pub(crate) fn count_first(memory: &DeviceMemory, moved: u64) {
    if moved > 0 && memory.data().link.stats.first_migration_ns.get() == 0 {
        memory
            .data()
            .link
            .stats
            .first_migration_ns
            .set_once(boottime_ns());
    }
}

/// Gives each page of `migration` a system page from `alloc`, has it copied there and puts it in
/// place. Pages for which there is no memory stay.
fn to_system<'a>(
    memory: &DeviceMemory,
    mut migration: Migration<'a>,
    mut batch: CopyBatch,
    mut alloc: impl FnMut(usize) -> Option<LockedPage>,
) -> Result<Migration<'a>> {
    for i in 0..migration.len() {
        let Some(Source::Page(source)) = migration.source(i) else {
            continue;
        };
        let Some(page) = alloc(i) else {
            continue;
        };
        batch.push(
            Some(memory.address_of(source)),
            memory.address_of(page.page()),
        )?;
        migration.set_destination(i, page);
    }
    if batch.run(&memory.data().link).is_err() {
        // The device is gone, its memory is not.
        migration.copy_by_cpu(memory)?;
    }
    migration.commit();
    Ok(migration)
}

/// Brings the device pages of `window` in `vma` back and returns how many moved.
///
/// # Errors
///
/// `EINVAL`: `window` is not in `vma`, or `vma` does not migrate. `ENOMEM`.
pub(crate) fn range_to_system(
    memory: &DeviceMemory,
    vma: &VmaRef,
    window: Range<usize>,
    arrays: &mut PageArrays,
) -> Result<u64> {
    let batch = CopyBatch::new(window.len() / PAGE_SIZE)?;
    let start = window.start;
    let migration = Migration::of_range(
        vma,
        start,
        window.end,
        Select::Device,
        memory.owner(),
        None,
        arrays,
    )?;
    let moved = to_system(memory, migration, batch, |i| {
        LockedPage::alloc(vma, start + i * PAGE_SIZE)
    })?
    .count_moved();
    if moved > 0 {
        memory.data().link.stats.to_system_request.add(moved);
        trace::to_system(start as u64, moved, CAUSE_REQUEST);
    }
    Ok(moved)
}

/// A CPU touched a private page: brings it and its neighbours back, or it alone where the same
/// page is mapped more than once around it, so that it cannot move with them.
pub(crate) fn on_cpu_fault(memory: &DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError> {
    let vma = fault.vma();
    let page = fault.address() & !(PAGE_SIZE - 1);
    let block = CPU_FAULT_AROUND * PAGE_SIZE;
    let start = page & !(block - 1);
    let around = start.max(vma.start())..(start + block).min(vma.end());
    if !bring_back(memory, fault, around)? {
        // If it does not move now, something holds it for a moment, and the CPU faults again.
        bring_back(memory, fault, page..page + PAGE_SIZE)?;
    }
    Ok(())
}

/// Brings `window` back; returns whether the page touched moved.
fn bring_back(
    memory: &DeviceMemory,
    fault: &Fault<'_>,
    window: Range<usize>,
) -> Result<bool, FaultError> {
    let no_memory = |_| FaultError::NoMemory;
    let vma = fault.vma();
    let start = window.start;
    let pages = window.len() / PAGE_SIZE;
    let mut arrays = PageArrays::new(pages).map_err(no_memory)?;
    let batch = CopyBatch::new(pages).map_err(no_memory)?;
    let migration = Migration::of_range(
        vma,
        start,
        window.end,
        Select::Device,
        memory.owner(),
        Some(fault),
        &mut arrays,
    )
    .map_err(|_| FaultError::Lost)?;
    let at_fault = (fault.address() - start) / PAGE_SIZE;
    let mut fault_page_missing = false;
    let migration = to_system(memory, migration, batch, |i| {
        let page = LockedPage::alloc(vma, start + i * PAGE_SIZE);
        fault_page_missing |= page.is_none() && i == at_fault;
        page
    })
    .map_err(|_| FaultError::Lost)?;
    let moved = migration.count_moved();
    if moved > 0 {
        memory.data().link.stats.to_system_fault.add(moved);
        trace::to_system(start as u64, moved, CAUSE_FAULT);
    }
    if fault_page_missing {
        return Err(FaultError::NoMemory);
    }
    Ok(migration.moved(at_fault))
}

/// Brings all pages back, wherever they are mapped, and returns how many are still held by
/// something after [`EVICT_LIMIT`]. No page may be given out meanwhile.
///
/// # Errors
///
/// `ENOMEM`: no memory.
pub(crate) fn evict_all(memory: &DeviceMemory) -> Result<u64> {
    let mut arrays = PageArrays::new(WINDOW_PAGES)?;
    let began = Instant::<Monotonic>::now();
    loop {
        let mut from = 0;
        while let Some((first, count)) = memory.data().used_run(from, WINDOW_PAGES) {
            from = first + count;
            let batch = CopyBatch::new(count)?;
            let migration =
                Migration::of_device(memory.first_pfn() + first as u64, count, &mut arrays)?;
            let moved =
                to_system(memory, migration, batch, |_| LockedPage::alloc_any())?.count_moved();
            memory.data().link.stats.to_system_evict.add(moved);
            trace::to_system(0, moved, CAUSE_EVICT);
        }
        let held = memory.pages() as u64 - memory.data().free_pages();
        if held == 0 || began.elapsed().as_millis() > EVICT_LIMIT.as_millis() {
            return Ok(held);
        }
        fsleep(EVICT_PAUSE);
    }
}

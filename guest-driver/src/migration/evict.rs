// SPDX-License-Identifier: GPL-2.0

//! Emptying the device memory, wherever its pages are mapped.

use super::{depart_home, CAUSE_EVICT};
use crate::{
    kapi::{
        migrate::{Migration, PageArrays},
        page::LockedFolio,
        trace,
    },
    memory::DeviceMemory,
};
use core::ops::Range;
use kernel::{
    prelude::*,
    time::{delay::fsleep, Delta, Instant, Monotonic},
};

/// Longest attempt to empty the device memory; what is still held then stays.
const EVICT_LIMIT: Delta = Delta::from_secs(10);
/// Pause before pages that something held are tried again.
const EVICT_PAUSE: Delta = Delta::from_millis(2);

/// Brings all pages back and returns how many are still held by something after [`EVICT_LIMIT`].
/// No page may be given out meanwhile.
///
/// A 2 MiB folio comes back whole: by page frame number the kernel cannot split it, so that without
/// 2 MiB of system memory in one piece it counts as held.
///
/// # Errors
///
/// `ENOMEM`: no memory.
pub(crate) fn evict_all(memory: &DeviceMemory) -> Result<u64> {
    let mut arrays = PageArrays::default();
    let began = Instant::<Monotonic>::now();
    loop {
        let mut from = 0;
        while let Some(run) = memory.data().used_run(from) {
            from = run.end;
            let moved;
            (moved, arrays) = bring_home(memory, run, arrays)?;
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

/// Brings the pages of `run` home, which holds whole folios, wherever they are mapped; returns how many came.
///
/// # Errors
///
/// `ENOMEM`: no memory.
pub(super) fn bring_home(
    memory: &DeviceMemory,
    run: Range<usize>,
    arrays: PageArrays,
) -> Result<(u64, PageArrays)> {
    let first = memory.first_pfn() + run.start as u64;
    let migration = Migration::of_device(first, run.len(), arrays)?;
    let alloc = |_, order| LockedFolio::alloc_any(order);
    let mut window = depart_home(memory, migration, 0, None, alloc);
    let moved = window.put_in_place(memory);
    Ok((moved, window.migration.finish()))
}

// SPDX-License-Identifier: GPL-2.0

//! Moving pages to device memory or back, a window at a time.
//!
//! Whoever has pages moved, the mover is the same: a window is taken on its way (`outward`, `homeward`), and put
//! in place when its pages are copied ([`InFlight`]). What differs is where the windows come from:
//!
//! | who | windows |
//! |---|---|
//! | a call, by `range` | a range of addresses, mapping by mapping, several windows at once (`pipeline`) |
//! | a device's fault | the one around what is asked for ([`to_device`]) |
//! | a CPU's fault | the one around what is touched (`cpu_fault`) |
//! | who empties device memory, or makes room in it | page frames, wherever they are mapped ([`bring_home`]) |
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
mod homeward;
mod outward;
mod pipeline;
mod range;
mod turns;

pub(crate) use cpu_fault::on_cpu_fault;
pub(crate) use homeward::bring_home;
pub(crate) use outward::{to_device, Wish};
pub(crate) use pipeline::Direction;
pub(crate) use range::{chunks, RangeMove, Unfit};

use crate::{
    kapi::{
        migrate::{Migration, PageArrays},
        misc::boottime_ns,
        page::PMD_PAGES,
        trace,
    },
    link::{Link, Pending},
    memory::DeviceMemory,
};
use kernel::sync::atomic::{Atomic, Relaxed};

/// Most pages moved at a time: 2 MiB, what one copy message holds.
pub(crate) const WINDOW_PAGES: usize = PMD_PAGES;

const PAGE_SIZE: usize = crate::wire::PAGE_SIZE as usize;

/// Why pages move, which is what they are counted under.
#[derive(Clone, Copy)]
pub(crate) enum Cause {
    /// To device memory, because the device touched them for this context.
    DeviceFault(u32),
    /// To device memory, because a program asked this context to.
    ToDevice(u32),
    /// To system memory, because a CPU touched them.
    CpuFault,
    /// To system memory, because a program asked for it.
    ToSystem,
    /// To system memory, because device memory is emptied.
    Evict,
    /// To system memory, because another user has less than the fair share.
    Share,
    /// To system memory, because a limit was lowered.
    Limit,
}

impl Cause {
    /// Records that so many pages moved, those of a range from `start` on.
    fn record(self, link: &Link, start: usize, moved: u64) {
        if moved == 0 {
            return;
        }
        let (stats, start) = (&link.stats, start as u64);
        if let Cause::DeviceFault(context) | Cause::ToDevice(context) = self {
            if stats.first_migration_ns.get() == 0 {
                stats.first_migration_ns.set_once(boottime_ns());
            }
            trace::to_device(context, start, moved);
        }
        // The numbers are those of the tracepoint.
        let (counter, number) = match self {
            Cause::DeviceFault(_) => return stats.to_device_fault.add(moved),
            Cause::ToDevice(_) => return stats.to_device_request.add(moved),
            Cause::CpuFault => (&stats.to_system_fault, 0),
            Cause::ToSystem => (&stats.to_system_request, 1),
            Cause::Evict => (&stats.to_system_evict, 2),
            Cause::Share => (&stats.to_system_share, 3),
            Cause::Limit => (&stats.to_system_limit, 4),
        };
        counter.add(moved);
        trace::to_system(start, moved, number);
    }
}

/// A window whose pages are unmapped and on their way.
struct InFlight<'a> {
    memory: &'a dyn DeviceMemory,
    migration: Migration<'a>,
    copy: Option<Pending>,
    /// Memory never touched is among what moves.
    untouched: bool,
    /// The first address, or 0.
    start: usize,
    cause: Cause,
}

impl InFlight<'_> {
    /// Puts the pages in place; returns how many moved, and the arrays.
    fn land(mut self) -> (u64, PageArrays) {
        let moved = self.put_in_place();
        (moved, self.migration.finish())
    }

    /// Puts the pages in place and returns how many moved; they are mapped when the migration is finished.
    fn put_in_place(&mut self) -> u64 {
        if self.untouched {
            self.finish_copy();
            self.migration.commit();
        } else {
            // The CPU has its own to do while the device copies.
            self.migration.commit();
            self.finish_copy();
        }
        let moved = self.migration.count_moved();
        self.cause.record(self.memory.link(), self.start, moved);
        moved
    }

    /// Waits for the copies. If the device is gone, its memory is not, and the CPU copies.
    fn finish_copy(&mut self) {
        if let Some(copy) = self.copy.take() {
            if self.memory.link().finish_copy(copy).is_err() {
                self.migration.copy_by_cpu(self.memory.frames());
            }
        }
    }
}

/// Whether the allocation at hand is to fail, which `fail` says once.
fn fails(fail: Option<&Atomic<bool>>) -> bool {
    match fail {
        Some(fail) if fail.load(Relaxed) => {
            fail.store(false, Relaxed);
            true
        }
        _ => false,
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Several windows of a range on their way at once.

use super::{
    depart, depart_range_home, InFlight, PageArrays, Wish, CAUSE_REQUEST, PAGE_SIZE, WINDOW_PAGES,
};
use crate::{kapi::trace, memory::DeviceMemory};
use core::ops::Range;
use kernel::{mm::virt::VmaRef, prelude::*, sync::atomic::Atomic};

/// Windows on their way at once: while the device copies one, two more wait for it or are unmapped,
/// so that neither side waits for the other. More only keep more pages locked.
const DEPTH: usize = 3;

/// Where a range goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To device memory; with `fill` also pages never touched.
    ToDevice {
        /// Whether pages never touched are made in device memory.
        fill: bool,
    },
    /// To system memory.
    ToSystem,
}

/// Moves ranges and counts; for one call, whose mmap lock is held while a range is on its way.
pub(crate) struct Pipeline<'m> {
    memory: &'m DeviceMemory,
    direction: Direction,
    fail_alloc: Option<&'m Atomic<bool>>,
    spare: [PageArrays; DEPTH],
}

impl<'m> Pipeline<'m> {
    /// Moves in `direction`; the next allocation fails if `fail_alloc` says so.
    pub(crate) fn new(
        memory: &'m DeviceMemory,
        direction: Direction,
        fail_alloc: Option<&'m Atomic<bool>>,
    ) -> Self {
        Pipeline {
            memory,
            direction,
            fail_alloc,
            spare: Default::default(),
        }
    }

    /// Moves the pages of `range` in `vma`, and returns how many moved, when all are in place.
    /// `context` is whom the tracepoint names.
    ///
    /// # Errors
    ///
    /// `EINVAL`: `range` is not in `vma`, or `vma` does not migrate. `ENOMEM`. `EIO`: the device is
    /// broken and took nothing more.
    pub(crate) fn run(&mut self, vma: &VmaRef, range: Range<usize>, context: u32) -> Result<u64> {
        let mut on_way: [Option<InFlight<'_>>; DEPTH] = Default::default();
        let (mut moved, mut failed) = (0, None);
        let mut at = range.start;
        let mut turn = 0;
        // Once round more, to land those that are still on their way.
        let mut landing = 0;
        while landing < DEPTH {
            let slot = turn % DEPTH;
            turn += 1;
            if let Some(window) = on_way[slot].take() {
                match self.land(window, slot, context) {
                    Ok(pages) => moved += pages,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if at >= range.end || failed.is_some() || self.is_full() {
                landing += 1;
                continue;
            }
            landing = 0;
            // Windows end at multiples of their size, as page tables do.
            let bytes = WINDOW_PAGES * PAGE_SIZE;
            let end = (at - at % bytes + bytes).min(range.end);
            match self.depart(vma, at..end, slot) {
                Ok(window) => on_way[slot] = Some(window),
                Err(error) => failed = Some(error),
            }
            at = end;
        }
        match failed {
            Some(error) => Err(error),
            None => {
                let left = range.end.saturating_sub(at) / PAGE_SIZE;
                let stats = &self.memory.data().link.stats;
                stats.device_full.add(left as u64);
                Ok(moved)
            }
        }
    }

    /// Whether pages would be unmapped, and 2 MiB folios split, for nothing.
    fn is_full(&self) -> bool {
        self.direction != Direction::ToSystem && self.memory.data().free_pages() == 0
    }

    fn depart<'a>(
        &mut self,
        vma: &'a VmaRef,
        window: Range<usize>,
        slot: usize,
    ) -> Result<InFlight<'a>> {
        let arrays = core::mem::take(&mut self.spare[slot]);
        match self.direction {
            Direction::ToDevice { fill } => {
                let wish = Wish {
                    fill: if fill { window.clone() } else { 0..0 },
                    fill_large: false,
                    fail_alloc: self.fail_alloc,
                };
                depart(self.memory, vma, window, &wish, arrays)
            }
            Direction::ToSystem => {
                depart_range_home(self.memory, vma, window, self.fail_alloc, arrays)
            }
        }
    }

    fn land(&mut self, mut window: InFlight<'_>, slot: usize, context: u32) -> Result<u64> {
        let (start, stats) = (window.start as u64, &self.memory.data().link.stats);
        let moved = match self.direction {
            Direction::ToDevice { .. } => {
                let (moved, arrays) = window.arrive(self.memory)?;
                self.spare[slot] = arrays;
                if moved > 0 {
                    stats.to_device_request.add(moved);
                    trace::to_device(context, start, moved);
                }
                moved
            }
            Direction::ToSystem => {
                let moved = window.return_home(self.memory)?;
                self.spare[slot] = window.migration.finish();
                if moved > 0 {
                    stats.to_system_request.add(moved);
                    trace::to_system(start, moved, CAUSE_REQUEST);
                }
                moved
            }
        };
        Ok(moved)
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Several windows of a range on their way at once.
//!
//! Small pages keep the CPU busy, 2 MiB folios the device. So where pages are small, workers move the
//! windows, on all CPUs that are free, and the caller waits. It does not take part: `migrate_vma_setup`
//! flushes the TLB for each exclusive page (`migrate_vma_collect_pmd()`), which interrupts every CPU that
//! has the address space loaded, and where none has, costs nothing.
//!
//! The caller holds the mmap lock meanwhile. So workers only try to take it: when somebody waits to
//! change the mappings, they leave the rest to the caller.

use super::{
    fails, homeward, outward,
    turns::{Turns, MIN_SHARED, MIN_TURN},
    Cause, InFlight, PageArrays, Wish, PAGE_SIZE, WINDOW_PAGES,
};
use crate::{
    kapi::{
        migrate::drain_this_cpu,
        misc::{online_cpus, online_nodes},
        mm,
        page::LockedFolio,
        work,
    },
    memory::DeviceMemory,
    mirror::Mirror,
};
use core::ops::Range;
use kernel::{
    mm::virt::VmaRef,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// Windows of a thread on their way at once: while the device copies one, two more wait for it or are
/// unmapped, so that neither side waits for the other. More only keep more pages locked.
const DEPTH: usize = 3;

/// Workers for a range; what more of them would gain is not known.
const MAX_WORKERS: usize = 4;

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
pub(super) struct Pipeline<'m> {
    job: Job<'m>,
    spare: Spare,
}

/// What is to be done, by whichever thread.
struct Job<'m> {
    memory: &'m dyn DeviceMemory,
    direction: Direction,
    fail_alloc: Option<&'m Atomic<bool>>,
    /// Whom the tracepoint names.
    context: u32,
    /// Whose the pages are.
    user: u16,
}

/// Arrays that a thread uses again.
type Spare = [PageArrays; DEPTH];

impl<'m> Pipeline<'m> {
    /// Moves in `direction` for the context of `mirror`; the next allocation fails if `fail_alloc` says so.
    pub(super) fn new(
        memory: &'m dyn DeviceMemory,
        direction: Direction,
        fail_alloc: Option<&'m Atomic<bool>>,
        mirror: &Mirror,
    ) -> Self {
        Pipeline {
            job: Job {
                memory,
                direction,
                fail_alloc,
                context: mirror.id().number,
                user: mirror.user(),
            },
            spare: Spare::default(),
        }
    }

    /// Moves the pages of `range` in `vma`, and returns how many moved, when all are in place.
    ///
    /// # Errors
    ///
    /// `EINVAL`: `range` is not in `vma`, or `vma` does not migrate. `ENOMEM`. `EIO`: the device is
    /// broken and took nothing more.
    pub(super) fn run(&mut self, vma: &VmaRef, range: Range<usize>) -> Result<u64> {
        let (job, spare) = (&self.job, &mut self.spare);
        let workers = job.workers(vma, &range);
        let mut turns = Turns::new(&range, workers > 0);
        let mut moved = 0;
        if workers > 0 {
            let (mm, start) = (vma.mm(), range.start);
            let by_workers = Atomic::new(0u64);
            drain_this_cpu();
            work::run_on_workers(workers, &|| {
                let Some(guard) = mm.mmap_read_trylock() else {
                    return;
                };
                if let Some(vma) = guard.vma_lookup(start) {
                    let moved = job.take_turns(&turns, vma, &mut Spare::default());
                    by_workers.fetch_add(moved, Relaxed);
                    drain_this_cpu();
                }
            });
            moved = by_workers.load(Relaxed);
        }
        moved += job.take_turns(&turns, vma, spare);
        let pages = range.len() / PAGE_SIZE;
        if workers > 0 && turns.result().is_ok() && moved < pages as u64 {
            // A folio of more pages, mapped by a table, can lie in two windows, whose threads left it to each
            // other.
            turns = Turns::new(&range, false);
            moved += job.take_turns(&turns, vma, spare);
        }
        turns.result()?;
        let stats = &job.memory.link().stats;
        stats.device_full.add((turns.left() / PAGE_SIZE) as u64);
        Ok(moved)
    }
}

impl Job<'_> {
    /// How many workers are to move `range`.
    fn workers(&self, vma: &VmaRef, range: &Range<usize>) -> usize {
        // Workers do not know the caller's memory policy and cpuset, which say where system memory is
        // to come from.
        let anywhere = self.direction != Direction::ToSystem || online_nodes() == 1;
        let asked_to_fail = self.fail_alloc.is_some_and(|fail| fail.load(Relaxed));
        let worth = range.len() >= MIN_SHARED && mm::has_page_table(vma, range.start);
        if !worth || !anywhere || asked_to_fail {
            return 0;
        }
        let most = MAX_WORKERS.min(range.len() / MIN_TURN);
        most.min(online_cpus() as usize)
    }

    /// Moves windows until none is left to take, and returns how many pages moved.
    fn take_turns(&self, turns: &Turns, vma: &VmaRef, spare: &mut Spare) -> u64 {
        let mut on_way: [Option<InFlight<'_>>; DEPTH] = Default::default();
        let mut moved = 0;
        let mut turn = 0;
        // Once round more, to land those that are still on their way.
        let mut landing = 0;
        while landing < DEPTH {
            let slot = turn % DEPTH;
            turn += 1;
            if let Some(window) = on_way[slot].take() {
                let landed;
                (landed, spare[slot]) = window.land();
                moved += landed;
            }
            let window = if self.is_full() {
                None
            } else {
                turns.take(vma)
            };
            let Some(window) = window else {
                landing += 1;
                continue;
            };
            landing = 0;
            match self.depart(vma, window, &mut spare[slot]) {
                Ok(window) => on_way[slot] = Some(window),
                Err(error) => turns.fail(error),
            }
        }
        moved
    }

    /// Whether pages would be unmapped, and 2 MiB folios split, for nothing, even after others have given
    /// way.
    fn is_full(&self) -> bool {
        if self.direction == Direction::ToSystem {
            return false;
        }
        self.memory.make_room(self.user, WINDOW_PAGES);
        !self.memory.has_room()
    }

    fn depart<'a>(
        &'a self,
        vma: &'a VmaRef,
        window: Range<usize>,
        spare: &mut PageArrays,
    ) -> Result<InFlight<'a>> {
        let arrays = core::mem::take(spare);
        let fill = match self.direction {
            Direction::ToDevice { fill } => fill,
            Direction::ToSystem => {
                let (start, large) = (window.start, self.memory.has_large_folios());
                let alloc = |i, order| match fails(self.fail_alloc) {
                    true => None,
                    false => LockedFolio::alloc(vma, start + i * PAGE_SIZE, order),
                };
                let (memory, cause) = (self.memory, Cause::ToSystem);
                return homeward::depart_range(
                    memory,
                    vma,
                    window,
                    (None, large),
                    cause,
                    arrays,
                    alloc,
                );
            }
        };
        let wish = Wish {
            user: self.user,
            fill: if fill { window.clone() } else { 0..0 },
            fill_large: false,
            fail_alloc: self.fail_alloc,
            cause: Cause::ToDevice(self.context),
        };
        outward::depart(self.memory, vma, window, &wish, arrays)
    }
}

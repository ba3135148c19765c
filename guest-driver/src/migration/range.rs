// SPDX-License-Identifier: GPL-2.0

//! A range of addresses, whose pages move because a program asks for it.

use super::pipeline::{Direction, Pipeline};
use crate::{
    kapi::mm::{self, ReadGuard},
    memory::DeviceMemory,
    mirror::Mirror,
    uapi,
};
use core::ops::Range;
use kernel::{
    mm::{
        virt::{flags, VmaRef},
        MmWithUser,
    },
    prelude::*,
    sync::atomic::Atomic,
};

/// What is moved under one hold of the mmap lock, 64 MiB: long enough that the windows of it overlap,
/// short enough that who wants to change the mappings does not wait long.
const CHUNK_BYTES: u64 = 64 << 20;

/// The pieces in which `range` is moved.
pub(crate) fn chunks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    core::iter::from_fn(move || {
        let chunk = at..(at + CHUNK_BYTES).min(range.end);
        at = chunk.end;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// What becomes of a call for parts that are not mapped, or not in a way that migrates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// They are passed by.
    PassBy,
    /// It ends there, as it does at what must not be read.
    Refuse,
}

/// Moves the pages of a process's ranges, for one call.
pub(crate) struct RangeMove<'a> {
    pipeline: Pipeline<'a>,
    mm: &'a MmWithUser,
    mirror: &'a Mirror,
    direction: Direction,
    unfit: Unfit,
}

/// What became of a chunk.
pub(crate) struct Moved {
    /// Pages that moved.
    pub(crate) pages: u64,
    /// Whether part of it is not mapped.
    pub(crate) gap: bool,
}

impl<'a> RangeMove<'a> {
    /// Moves pages of `mm` in `direction` for the context of `mirror`; the next allocation fails if `fail_alloc`
    /// says so.
    pub(crate) fn new(
        memory: &'a dyn DeviceMemory,
        mm: &'a MmWithUser,
        mirror: &'a Mirror,
        direction: Direction,
        unfit: Unfit,
        fail_alloc: Option<&'a Atomic<bool>>,
    ) -> Self {
        RangeMove {
            pipeline: Pipeline::new(memory, direction, fail_alloc, mirror),
            mm,
            mirror,
            direction,
            unfit,
        }
    }

    /// Moves the pages of one of the [`chunks`] of a range, mapping by mapping; of the caller's own those that
    /// policy and advice let move.
    ///
    /// # Errors
    ///
    /// `EINVAL`: part of it is unfit, and that is refused. `EINTR`: the caller was killed. `ENOMEM`. `EIO`: the
    /// device is broken and took nothing more.
    pub(crate) fn run(&mut self, chunk: Range<u64>) -> Result<Moved> {
        let own = mm::is_current(self.mm);
        if own {
            self.mirror.forget(chunk.start, chunk.end);
        }
        let (mut at, end) = (chunk.start as usize, chunk.end as usize);
        let (mut pages, mut gap) = (0, false);
        let guard = ReadGuard::lock_killable(self.mm)?;
        while at < end {
            let vma = guard.find_vma(at).filter(|vma| vma.start() < end);
            gap |= vma.is_none_or(|vma| vma.start() > at);
            if gap && self.unfit == Unfit::Refuse {
                return Err(EINVAL);
            }
            let Some(vma) = vma else { break };
            let part = vma.start().max(at)..vma.end().min(end);
            at = part.end;
            if self.is_fit(vma)? {
                pages += self.run_part(vma, part, own)?;
            }
        }
        let stats = &self.mirror.stats;
        match self.direction {
            Direction::ToDevice { .. } => stats.to_device.add(pages),
            Direction::ToSystem => stats.to_system.add(pages),
        }
        Ok(Moved { pages, gap })
    }

    fn is_fit(&self, vma: &VmaRef) -> Result<bool> {
        match self.unfit {
            Unfit::PassBy => Ok(mm::may_migrate(vma)),
            Unfit::Refuse if vma.flags() & flags::READ == 0 => Err(EINVAL),
            Unfit::Refuse => Ok(true),
        }
    }

    /// Moves the pages of `part` of `vma`, which is the caller's `own` or somebody else's.
    fn run_part(&mut self, vma: &VmaRef, part: Range<usize>, own: bool) -> Result<u64> {
        let fills = self.direction == Direction::ToDevice { fill: true };
        let part = match fills || self.unfit == Unfit::Refuse {
            true => part,
            // Cheap where page tables are missing, however much that is.
            false => mm::next_mapped(vma, part.start, part.end)..part.end,
        };
        if part.is_empty() {
            return Ok(0);
        }
        let (unfit, pipeline) = (self.unfit, &mut self.pipeline);
        let mut run = |part| match pipeline.run(vma, part) {
            // A kind of mapping that does not migrate.
            Err(error) if error == EINVAL && unfit == Unfit::PassBy => Ok(0),
            result => result,
        };
        if !own || self.direction == Direction::ToSystem {
            return run(part);
        }
        let mut moved = 0;
        let part = part.start as u64..part.end as u64;
        for (part, rule) in self.mirror.policies.parts(part) {
            if rule.policy != uapi::POLICY_NEVER {
                moved += run(part.start as usize..part.end as usize)?;
            }
        }
        Ok(moved)
    }
}

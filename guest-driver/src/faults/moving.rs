// SPDX-License-Identifier: GPL-2.0

//! Moving what a request asks for to device memory.

use super::{stands::Found, Asked, Refusal, Resolver, Scratch, PAGE_SIZE};
use crate::{
    kapi::{
        hmm::HmmPfn,
        mm::{self, ReadGuard},
        page::PMD_ORDER,
    },
    migration::{self, Cause, Wish, WINDOW_PAGES},
    uapi,
};
use core::ops::Range;
use kernel::{mm::virt, prelude::*};

impl Resolver {
    /// Moves the pages wanted, and those around them that are present, to device memory: all of a
    /// 2 MiB page, and all of 2 MiB never touched where the program wants such pages. None that are
    /// under other advice. Says what it has tried; nothing if none of them ever moves, or none can.
    pub(super) fn migrate(
        &self,
        asked: Asked<'_>,
        found: &Found,
        scratch: &mut Scratch,
    ) -> Option<Range<u64>> {
        let (va, memory) = (asked.va, asked.memory);
        memory.make_room(self.mirror.user(), found.wanted);
        let guard = ReadGuard::lock(asked.mm);
        let vma = guard
            .vma_lookup(va as usize)
            .filter(|vma| mm::may_migrate(vma) && memory.may_serve(vma))?;
        let rule = self.mirror.policies.at(va);
        if rule.rule.policy != uapi::POLICY_ON_FAULT {
            return None;
        }
        let first = vma.start().max(rule.range.start as usize);
        let last = vma.end().min(rule.range.end as usize);
        let wanted = va as usize..(va as usize + found.wanted * PAGE_SIZE as usize).min(last);
        let block = |pages: usize| {
            let bytes = pages * PAGE_SIZE as usize;
            let start = va as usize - va as usize % bytes;
            start..start + bytes
        };
        // Where a program resolves faults it gives the pages never touched.
        let watched = mm::is_watched(vma);
        let fill = if watched { 0..0 } else { wanted.clone() };
        let large = block(WINDOW_PAGES);
        let hugepage = vma.flags() & virt::flags::HUGEPAGE != 0;
        let untouched = found.order.is_none() && hugepage && !watched;
        let fits = first <= large.start && large.end <= last;
        let (window, fill) = if memory.has_large_folios()
            && fits
            && (untouched || found.order.is_some_and(|order| order >= PMD_ORDER))
        {
            (large, if untouched { fill } else { 0..0 })
        } else {
            let around = block(rule.rule.fault_around as usize);
            let start = around.start.max(first);
            let end = around.end.min(last).max(wanted.end);
            if end - start > WINDOW_PAGES * PAGE_SIZE as usize {
                (wanted, fill)
            } else {
                (start..end, fill)
            }
        };
        let tried = window.start as u64..window.end as u64;
        let wish = Wish {
            user: self.mirror.user(),
            fill,
            fill_large: untouched,
            fail_alloc: None,
            cause: Cause::DeviceFault(self.mirror.id().number),
        };
        // What does not move is used in place.
        let arrays = core::mem::take(&mut scratch.arrays);
        let Ok((moved, arrays)) = migration::to_device(memory, vma, window, &wish, arrays) else {
            return None;
        };
        scratch.arrays = arrays;
        self.mirror.stats.to_device.add(moved);
        Some(tried)
    }

    /// Gives the process its own copy of present pages it shares, before they move: a shared page
    /// would move back to be copied at the device's first write. Which pages these are is in the scratch
    /// memory, from the look at what stands.
    pub(super) fn break_copy_on_write(
        &self,
        asked: Asked<'_>,
        found: &Found,
        scratch: &mut Scratch,
    ) -> Result<(), Refusal> {
        let shared = &mut scratch.pfns[..found.wanted];
        if shared.iter().all(|pfn| pfn.page().is_none()) {
            return Ok(());
        }
        let guard = ReadGuard::lock(asked.mm);
        let Some(vma) = guard.vma_lookup(asked.va as usize) else {
            return Ok(());
        };
        for (i, pfn) in shared.iter_mut().enumerate() {
            let at = asked.va as usize + i * PAGE_SIZE as usize;
            if pfn.page().is_none() || at >= vma.end() || i > 0 && found.watched {
                continue;
            }
            // A private page is brought back by one fault and copied by the next. What fails is found
            // again, and answered, when the pages are looked up.
            for _ in 0..2 {
                match mm::fault_in(vma, at, true) {
                    Err(error) if error == EAGAIN && i == 0 => return Err(Refusal::Wait),
                    _ => {}
                }
            }
            *pfn = HmmPfn::NONE;
        }
        Ok(())
    }
}

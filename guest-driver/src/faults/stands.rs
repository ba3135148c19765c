// SPDX-License-Identifier: GPL-2.0

//! A request is looked at: if what is there will do, that is the answer.

use super::{
    answer::{fill_entries, message_for, ought_to_move},
    head, Asked, Refusal, Resolver, Scratch, Want, PAGE_SIZE, RETRY_LIMIT,
};
use crate::{
    kapi::{
        hmm::{snapshot, HmmPfn},
        mm::{self, ReadGuard},
    },
    uapi, wire,
};
use kernel::{
    mm::virt,
    prelude::*,
    time::{Instant, Monotonic},
};

/// What is asked about, as it is mapped.
pub(super) struct Found {
    /// Pages wanted, in one mapping and under one policy.
    pub(super) wanted: usize,
    /// Those welcome, likewise.
    around: usize,
    /// A program resolves faults here.
    pub(super) watched: bool,
    /// Pages are to move to device memory before the device uses them.
    pub(super) moves: bool,
    /// Pages, as a power of two, that the page-table entry of the first page maps; none if nothing is there.
    pub(super) order: Option<u32>,
}

impl Resolver {
    /// The part of the request that lies in one mapping and under one policy. The rest is for the device to
    /// ask for again.
    fn place(&self, asked: Asked<'_>, guard: &ReadGuard<'_>) -> Result<Found> {
        let va = asked.va;
        if va >= mm::task_size(asked.mm) {
            return Err(EFAULT);
        }
        let vma = guard.vma_lookup(va as usize).ok_or(EFAULT)?;
        let needed = match asked.want.writes() {
            true => virt::flags::READ | virt::flags::WRITE,
            false => virt::flags::READ,
        };
        if vma.flags() & needed != needed {
            return Err(EPERM);
        }
        let rule = self.mirror.policies.at(va);
        let pages = ((rule.range.end.min(vma.end() as u64) - va) / PAGE_SIZE) as usize;
        Ok(Found {
            wanted: pages.min(asked.request.npages.get() as usize),
            around: pages.min(asked.request.around.get() as usize),
            watched: mm::is_watched(vma),
            moves: rule.rule.policy == uapi::POLICY_ON_FAULT
                && asked.memory.may_serve(vma)
                && mm::may_migrate(vma),
            order: None,
        })
    }

    /// Answers the request if nothing has to be done for it; else says what was found, and leaves in the
    /// scratch memory which of the pages wanted are there, the program's own, and yet not writable.
    pub(super) fn as_it_stands(
        &self,
        asked: Asked<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<Found>, Refusal> {
        let began = Instant::<Monotonic>::now();
        let (memory, frames) = (asked.memory, asked.memory.frames());
        let mut look = self.mirror.look(&self.notifier, asked.around());
        loop {
            let guard = ReadGuard::lock(asked.mm);
            let mut found = self.place(asked, &guard)?;
            let mut see = |npages: usize| {
                let pfns = &mut scratch.pfns[..npages];
                let looked = snapshot(look.notifier, &guard, look.seq, asked.va, pfns, frames);
                looked.map(|()| pfns[0])
            };
            let first = see(found.wanted);
            // What is around is of use only to an answer, which pages to be moved do not give.
            let stays = |page| !found.moves || frames.has(page);
            let (first, npages) = match first {
                Ok(pfn) if !asked.want.lacks(pfn) && pfn.page().is_some_and(stays) => {
                    (see(found.around), found.around)
                }
                first => (first, found.wanted),
            };
            drop(guard);
            // Where it is clear already that it is not needed no message is made.
            let kind = match asked.worked {
                true => wire::MSG_PAGE_RESPONSE,
                false => wire::MSG_TRANSLATION_COMPLETION,
            };
            let head = head(asked.request, kind, 0);
            let message = match first {
                Ok(first) if !asked.want.lacks(first) => Some(message_for(head, npages)?),
                _ => None,
            };
            let held = match first {
                Ok(_) => look.hold(),
                Err(error) if error == EBUSY => None,
                Err(error) => return Err(error.into()),
            };
            let Some(mut held) = held else {
                if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() {
                    return Err(Refusal::Later);
                }
                look.outdated();
                continue;
            };
            let pfns = &mut scratch.pfns[..npages];
            let full = found.moves && !memory.has_room_for(self.mirror.user());
            found.moves &= !full;
            let wanted = &pfns[..found.wanted];
            let ready = asked.may_use(pfns[0])
                && !(found.moves && wanted.iter().any(|pfn| ought_to_move(memory, *pfn)));
            match message {
                Some(mut message) if ready => {
                    fill_entries(memory, &mut message, head, asked.va, pfns, found.moves)?;
                    held.post(message, asked.va, asked.va + npages as u64 * PAGE_SIZE)?;
                    return Ok(None);
                }
                _ => {}
            }
            if full {
                self.device.link.stats.device_full.add(found.wanted as u64);
            }
            found.order = pfns[0].page().map(|_| pfns[0].map_order());
            for pfn in &mut pfns[..found.wanted] {
                let shared = |pfn: HmmPfn| {
                    let page = pfn.page().filter(|_| !pfn.is_writable());
                    page.is_some_and(|page| page.is_anon() && !page.is_zero())
                };
                if !shared(*pfn) {
                    *pfn = HmmPfn::NONE;
                }
            }
            return Ok(Some(found));
        }
    }
}

impl Asked<'_> {
    /// Addresses asked about.
    pub(super) fn around(&self) -> core::ops::Range<u64> {
        let bytes = u64::from(self.request.around.get()) * PAGE_SIZE;
        self.va..self.va.saturating_add(bytes)
    }

    /// Whether the device may use the page as wanted; under the mirror's lock.
    pub(super) fn may_use(&self, pfn: HmmPfn) -> bool {
        let Some(page) = pfn.page().filter(|_| !self.want.lacks(pfn)) else {
            return false;
        };
        let ours = self.memory.frames().has(page);
        match self.want {
            // What is not in device memory has to be taken from the CPUs.
            Want::Atomic => ours,
            _ => ours || !page.is_device_private(),
        }
    }
}

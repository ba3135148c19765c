// SPDX-License-Identifier: GPL-2.0

//! Faulting pages in, looking them up, and posting what was found.

use super::{head, stands::Found, Asked, Refusal, Resolver, Scratch, PAGE_SIZE, RETRY_LIMIT};
use crate::{
    call::{new_message, put, CallRequest},
    kapi::{
        hmm::{snapshot, HmmPfn},
        mm::{self, ReadGuard},
        page::{PMD_ORDER, PMD_PAGES},
    },
    memory::DeviceMemory,
    residency::windows,
    wire,
};
use kernel::{
    prelude::*,
    time::{Instant, Monotonic},
};
use zerocopy::FromZeros;

/// Faults on the first page after which it still may be one that no device can use.
pub(super) const FAULT_TRIES: usize = 4;

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Yes,
    /// There are pages that ought to move first.
    No,
}

impl Resolver {
    /// Has the pages wanted faulted in and posts a message with what is there then, up to the address
    /// `reach` of what is only welcome.
    pub(super) fn answer(
        &self,
        asked: Asked<'_>,
        found: &Found,
        reach: u64,
        refuse_unmoved: bool,
        scratch: &mut Scratch,
    ) -> Result<Answered, Refusal> {
        let began = Instant::<Monotonic>::now();
        let (va, memory) = (asked.va, asked.memory);
        let wanted = va..va + found.wanted as u64 * PAGE_SIZE;
        let range = va..wanted.end.max(reach.min(asked.around().end));
        let npages = ((range.end - va) / PAGE_SIZE) as usize;
        let mut look = self.mirror.look(&self.notifier, range.clone());
        let mut faults = 0;
        loop {
            if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() {
                return Err(Refusal::Later);
            }
            let pfns = &mut scratch.pfns[..npages];
            let guard = ReadGuard::lock(asked.mm);
            let looked = snapshot(look.notifier, &guard, look.seq, va, pfns, memory.frames());
            drop(guard);
            match looked {
                Ok(()) => {}
                Err(error) if error == EBUSY => {
                    look.outdated();
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            // Pages after the first are a hint.
            let needed = if faults == 0 { found.wanted } else { 1 };
            if pfns[..needed].iter().any(|pfn| asked.want.lacks(*pfn)) {
                if faults >= FAULT_TRIES && pfns[0].is_error() {
                    return Err(Refusal::Invalid);
                }
                self.fault_in(asked, found, &pfns[..needed])?;
                faults += 1;
                look.again();
                continue;
            }
            let head = head(
                asked.request,
                wire::MSG_PAGE_RESPONSE,
                wire::RESPONSE_SUCCESS,
            );
            let mut message = message_for(head, npages)?;
            let Some(mut held) = look.hold() else {
                look.outdated();
                continue;
            };
            let unmoved = |pfn: &HmmPfn| ought_to_move(memory, *pfn);
            if refuse_unmoved && pfns[..found.wanted].iter().any(unmoved) {
                return Ok(Answered::No);
            }
            fill_entries(memory, &mut message, head, va, pfns, false)?;
            held.post(message, range.start, range.end)?;
            return Ok(Answered::Yes);
        }
    }

    /// Faults in those of the pages that lack something. Of the others than the first none are where a
    /// program resolves faults: it is told of what is needed, as it is by a CPU.
    pub(super) fn fault_in(
        &self,
        asked: Asked<'_>,
        found: &Found,
        pfns: &[HmmPfn],
    ) -> Result<(), Refusal> {
        let guard = ReadGuard::lock(asked.mm);
        let vma = guard.vma_lookup(asked.va as usize).ok_or(EFAULT)?;
        let write = asked.want.writes();
        let mut i = 0;
        while i < pfns.len() && (i == 0 || !found.watched) {
            let at = asked.va as usize + i * PAGE_SIZE as usize;
            if at >= vma.end() {
                break;
            }
            i += 1;
            if !asked.want.lacks(pfns[i - 1]) {
                continue;
            }
            match mm::fault_in(vma, at, write) {
                Ok(()) => {}
                Err(_) if i > 1 => break,
                Err(error) if error == EAGAIN => return Err(Refusal::Wait),
                Err(error) => return Err(error.into()),
            }
            if !mm::has_page_table(vma, at) {
                // One fault is for all of a large page.
                i += PMD_PAGES - 1 - at / PAGE_SIZE as usize % PMD_PAGES;
            }
        }
        Ok(())
    }

    /// Tells the device where pages are before it asks.
    pub(super) fn tell_ahead(&self, memory: &dyn DeviceMemory, va: u64, npages: usize) -> Result {
        if !self.device.link.features.translation_ahead || self.mirror.by_iommu {
            return Ok(());
        }
        let id = self.mirror.id();
        let head = wire::TranslationMessage {
            kind: wire::MSG_TRANSLATION_AHEAD.into(),
            context: id.number.into(),
            generation: id.generation.into(),
            ..wire::TranslationMessage::new_zeroed()
        };
        let mm = mm::get(self.notifier.mm()).ok_or(ESRCH)?;
        let mut scratch = Scratch::new()?;
        for (va, npages) in windows(va, npages as u64 * PAGE_SIZE) {
            let pfns = &mut scratch.pfns[..npages];
            let end = va + npages as u64 * PAGE_SIZE;
            let look = self.mirror.look(&self.notifier, va..end);
            let guard = ReadGuard::lock(&mm);
            let looked = snapshot(look.notifier, &guard, look.seq, va, pfns, memory.frames());
            drop(guard);
            let mut message = message_for(head, npages)?;
            match look.hold().filter(|_| looked.is_ok()) {
                Some(mut held) => {
                    fill_entries(memory, &mut message, head, va, pfns, false)?;
                    held.post(message, va, end)?;
                }
                // Of what changes the device will ask.
                None => {}
            }
        }
        Ok(())
    }
}

/// A message with room for so many entries.
pub(super) fn message_for(
    head: wire::TranslationMessage,
    entries: usize,
) -> Result<KBox<CallRequest>> {
    let readable =
        size_of::<wire::TranslationMessage>() + entries * size_of::<wire::TranslationEntry>();
    let mut message = new_message(readable, 0, GFP_KERNEL)?;
    put(&mut message, 0, &head)?;
    Ok(message)
}

/// Writes what was found from `va` on as entries, joining neighbours; without pages that ought to move
/// first if `withhold` says so. Under the mirror's lock, so that the pages stay.
pub(super) fn fill_entries(
    memory: &dyn DeviceMemory,
    message: &mut CallRequest,
    head: wire::TranslationMessage,
    va: u64,
    pfns: &[HmmPfn],
    withhold: bool,
) -> Result {
    let mut entries = Entries::new(message);
    let mut i = 0;
    while let Some(pfn) = pfns.get(i) {
        let pages = if pfn.map_order() < PMD_ORDER {
            1
        } else {
            // One look at a large page is one at all of it.
            let page = (va / PAGE_SIZE) as usize + i;
            (PMD_PAGES - page % PMD_PAGES).min(pfns.len() - i)
        };
        let at = va + i as u64 * PAGE_SIZE;
        i += pages;
        let Some(page) = pfn.page() else { continue };
        let ours = memory.frames().has(page);
        if !ours && page.is_device_private() || withhold && ought_to_move(memory, *pfn) {
            continue;
        }
        let mut access = wire::ACCESS_READ;
        if pfn.is_writable() {
            access |= wire::ACCESS_WRITE;
            // Device memory takes the atomic operations of both sides, or no CPU's at all.
            if ours && memory.link().features.atomic {
                access |= wire::ACCESS_ATOMIC;
            }
            page.mark_written();
        }
        entries.add(at, memory.frames().address_of(page), pages as u32, access)?;
    }
    entries.finish(head)
}

/// Whether the page is one of system memory that moves to the device when that uses it; under the mirror's
/// lock, so that it stays.
pub(super) fn ought_to_move(memory: &dyn DeviceMemory, pfn: HmmPfn) -> bool {
    pfn.page().is_some_and(|page| {
        let of_a_device = memory.frames().has(page) || page.is_device_coherent();
        !of_a_device && (page.is_anon() || page.is_zero())
    })
}

/// Entries of a message under construction; neighbours with the same rights become one.
pub(super) struct Entries<'a> {
    message: &'a mut CallRequest,
    count: usize,
    last: Option<wire::TranslationEntry>,
}

impl<'a> Entries<'a> {
    /// No entries yet.
    pub(super) fn new(message: &'a mut CallRequest) -> Self {
        Entries {
            message,
            count: 0,
            last: None,
        }
    }

    /// Adds a run of pages.
    ///
    /// # Errors
    ///
    /// `EINVAL`: more entries than the message has room for.
    pub(super) fn add(&mut self, va: u64, gpa: u64, npages: u32, access: u32) -> Result {
        if let Some(last) = &mut self.last {
            let bytes = u64::from(last.npages.get()) * PAGE_SIZE;
            let continues = last.access.get() == access
                && last.va.get() + bytes == va
                && last.gpa.get() + bytes == gpa;
            if continues {
                last.npages.set(last.npages.get() + npages);
                return Ok(());
            }
        }
        self.flush()?;
        self.last = Some(wire::TranslationEntry {
            va: va.into(),
            gpa: gpa.into(),
            npages: npages.into(),
            access: access.into(),
        });
        Ok(())
    }

    fn at(&self) -> usize {
        size_of::<wire::TranslationMessage>() + self.count * size_of::<wire::TranslationEntry>()
    }

    fn flush(&mut self) -> Result {
        if let Some(last) = self.last.take() {
            let at = self.at();
            put(self.message, at, &last)?;
            self.count += 1;
        }
        Ok(())
    }

    /// Completes the message.
    ///
    /// # Errors
    ///
    /// Those of [`Self::add`].
    pub(super) fn finish(mut self, mut head: wire::TranslationMessage) -> Result {
        self.flush()?;
        head.count.set(self.count as u32);
        put(self.message, 0, &head)?;
        let used = self.at();
        self.message.limit_readable(used);
        Ok(())
    }
}

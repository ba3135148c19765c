// SPDX-License-Identifier: GPL-2.0

//! Looking pages up and posting what was found.

use super::{Faults, Scratch, PAGE_SIZE, RETRY_LIMIT};
use crate::{
    kapi::hmm::{range_fault, HmmPfn},
    link::{new_message, put, CallRequest},
    memory::DeviceMemory,
    wire,
};
use kernel::{
    mm::{MmWithUser, MmapReadGuard},
    prelude::*,
    time::{Instant, Monotonic},
};

/// Changes of the mappings after which only the page that must be had is still looked up.
const HINT_TRIES: usize = 16;

impl Faults {
    /// Gives the process its own copy of present pages it shares, before they move: a shared page
    /// would move back to be copied at the device's first write.
    pub(super) fn break_copy_on_write(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        va: u64,
        npages: usize,
        scratch: &mut Scratch,
    ) {
        let owner = memory.owner();
        let pfns = &mut scratch.pfns[..npages];
        // Each round makes one copy; others may share pages again as fast (KSM).
        for _ in 0..npages + HINT_TRIES {
            pfns.fill(HmmPfn::SNAPSHOT);
            let seq = self.notifier.read_begin();
            let guard = mm.mmap_read_lock();
            match range_fault(&self.notifier, &guard, seq, va, pfns, owner) {
                Ok(()) => {}
                Err(error) if error == EBUSY => continue,
                Err(_) => return,
            }
            let mut any = false;
            for pfn in pfns.iter_mut() {
                let shared = pfn.page().is_some_and(|page| page.is_anon()) && !pfn.is_writable();
                any |= shared;
                *pfn = if shared {
                    HmmPfn::fault(true)
                } else {
                    HmmPfn::SNAPSHOT
                };
            }
            if !any {
                return;
            }
            // Each copy is a change of the mappings, after which the look begins anew; what fails
            // otherwise is found again, and answered, when the pages are looked up.
            match self.fault_in(&guard, seq, va, pfns) {
                Err(error) if error == EBUSY => {}
                _ => return,
            }
        }
    }

    /// Faults in what `pfns` says, also our own private pages that the process may not write:
    /// `hmm_range_fault` reports those of the owner it is given and leaves them as they are.
    fn fault_in(
        &self,
        guard: &MmapReadGuard<'_>,
        seq: u64,
        va: u64,
        pfns: &mut [HmmPfn],
    ) -> Result {
        range_fault(&self.notifier, guard, seq, va, pfns, core::ptr::null_mut())
    }

    /// Looks up `npages` pages from `va` on, faulting in what `want` says, and posts `message` with
    /// what was found.
    pub(super) fn answer(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        (va, npages): (u64, usize),
        want: Option<bool>,
        withhold: bool,
        head: wire::TranslationMessage,
        scratch: &mut Scratch,
    ) -> Result {
        let began = Instant::<Monotonic>::now();
        let owner = memory.owner();
        let (mut neighbours, mut tries) = (true, 0);
        loop {
            if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() {
                return Err(ETIMEDOUT);
            }
            let pfns = &mut scratch.pfns[..npages];
            let wanted = want.map_or(HmmPfn::SNAPSHOT, HmmPfn::fault);
            pfns.fill(if neighbours { wanted } else { HmmPfn::SNAPSHOT });
            pfns[0] = wanted;
            let seq = self.notifier.read_begin();
            let found = {
                let guard = mm.mmap_read_lock();
                range_fault(&self.notifier, &guard, seq, va, pfns, owner).and_then(|()| {
                    if want == Some(true) && !pfns[0].is_writable() {
                        pfns[0] = wanted;
                        self.fault_in(&guard, seq, va, &mut pfns[..1])?;
                        return Err(EBUSY);
                    }
                    Ok(())
                })
            };
            match found {
                Ok(()) => {}
                Err(error) if error == EBUSY => {
                    tries += 1;
                    neighbours &= tries < HINT_TRIES;
                    continue;
                }
                // One of the others cannot be had: they were only a hint.
                Err(_) if neighbours && npages > 1 => {
                    neighbours = false;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let mut message = self.message_for(head, npages)?;
            let mut held = self.mirror.lock();
            if self.notifier.retry(seq) {
                continue;
            }
            self.fill_entries(memory, &mut message, head, va, pfns, withhold)?;
            return held.post(message, va, va + npages as u64 * PAGE_SIZE);
        }
    }

    fn message_for(
        &self,
        head: wire::TranslationMessage,
        entries: usize,
    ) -> Result<KBox<CallRequest>> {
        let readable =
            size_of::<wire::TranslationMessage>() + entries * size_of::<wire::TranslationEntry>();
        let mut message = new_message(readable, 0, GFP_KERNEL)?;
        put(&mut message, 0, &head)?;
        Ok(message)
    }

    /// Writes what was found as entries, joining neighbours; under the mirror's lock, so that the
    /// pages stay.
    fn fill_entries(
        &self,
        memory: &DeviceMemory,
        message: &mut CallRequest,
        mut head: wire::TranslationMessage,
        va: u64,
        pfns: &[HmmPfn],
        withhold: bool,
    ) -> Result {
        let mut count = 0usize;
        let mut last: Option<wire::TranslationEntry> = None;
        let at = |count: usize| {
            size_of::<wire::TranslationMessage>() + count * size_of::<wire::TranslationEntry>()
        };
        for (i, pfn) in pfns.iter().enumerate() {
            let Some(page) = pfn.page() else { continue };
            let ours = memory.index_of(page).is_some();
            if !ours && (page.is_zone_device() || withhold && (page.is_anon() || page.is_zero())) {
                continue;
            }
            let mut access = wire::ACCESS_READ;
            if pfn.is_writable() {
                access |= wire::ACCESS_WRITE;
                page.mark_written();
            }
            let entry_va = va + i as u64 * PAGE_SIZE;
            let gpa = memory.address_of(page);
            match &mut last {
                Some(e)
                    if e.access.get() == access
                        && e.va.get() + u64::from(e.npages.get()) * PAGE_SIZE == entry_va
                        && e.gpa.get() + u64::from(e.npages.get()) * PAGE_SIZE == gpa =>
                {
                    e.npages.set(e.npages.get() + 1);
                }
                _ => {
                    if let Some(e) = last {
                        put(message, at(count), &e)?;
                        count += 1;
                    }
                    last = Some(wire::TranslationEntry {
                        va: entry_va.into(),
                        gpa: gpa.into(),
                        npages: 1.into(),
                        access: access.into(),
                    });
                }
            }
        }
        if let Some(e) = last {
            put(message, at(count), &e)?;
            count += 1;
        }
        head.count.set(count as u32);
        put(message, 0, &head)?;
        message.limit_readable(at(count));
        Ok(())
    }

    /// Posts an answer without entries.
    pub(super) fn answer_empty(&self, head: wire::TranslationMessage) {
        // Fails only when the device is broken, and then nobody waits for it.
        let _ = self
            .message_for(head, 0)
            .and_then(|m| self.mirror.lock().post(m, 0, 0));
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Looking pages up and posting what was found.

use super::{Faults, Scratch, Unmoved, Want, PAGE_SIZE, RETRY_LIMIT};
use crate::{
    kapi::{
        hmm::{range_fault, HmmPfn},
        page::{PMD_ORDER, PMD_PAGES},
    },
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
pub(super) const HINT_TRIES: usize = 16;

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
    pub(super) fn fault_in(
        &self,
        guard: &MmapReadGuard<'_>,
        seq: u64,
        va: u64,
        pfns: &mut [HmmPfn],
    ) -> Result {
        range_fault(&self.notifier, guard, seq, va, pfns, core::ptr::null_mut())
    }

    /// Looks up `npages` pages from `va` on, faulting in what `want` says, and posts a message with
    /// what was found.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: there are pages that ought to move first, and `unmoved` refuses them.
    pub(super) fn answer(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        (va, npages): (u64, usize),
        want: Want,
        unmoved: Unmoved,
        head: wire::TranslationMessage,
        scratch: &mut Scratch,
    ) -> Result {
        let began = Instant::<Monotonic>::now();
        // Pages after the first are a hint, unless they take too long or cannot be had.
        let (mut neighbours, mut tries) = (true, 0);
        loop {
            if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() {
                return Err(ETIMEDOUT);
            }
            let pfns = &mut scratch.pfns[..npages];
            pfns.fill(if neighbours {
                want.pfn()
            } else {
                HmmPfn::SNAPSHOT
            });
            pfns[0] = want.pfn();
            let seq = self.notifier.read_begin();
            match self.look_up(memory, mm, seq, va, pfns, want, neighbours) {
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
            if unmoved == Unmoved::Refuse && pfns.iter().any(|pfn| ought_to_move(memory, *pfn)) {
                return Err(EAGAIN);
            }
            self.fill_entries(memory, &mut message, head, va, pfns, unmoved)?;
            return held.post(message, va, va + npages as u64 * PAGE_SIZE);
        }
    }

    /// Looks up the pages once. What is found must be writable where `want` says so, of the
    /// neighbours too if `neighbours` says so: our own private pages that the process may not write
    /// are faulted in, and `EBUSY` has the caller look again.
    pub(super) fn look_up(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        seq: u64,
        va: u64,
        pfns: &mut [HmmPfn],
        want: Want,
        neighbours: bool,
    ) -> Result {
        let guard = mm.mmap_read_lock();
        range_fault(&self.notifier, &guard, seq, va, pfns, memory.owner())?;
        if !want.writes() {
            return Ok(());
        }
        let needed = if neighbours { pfns.len() } else { 1 };
        let lacks = |pfn: &HmmPfn| pfn.page().is_some() && !pfn.is_writable();
        if !pfns[..needed].iter().any(lacks) {
            return Ok(());
        }
        for pfn in pfns[..needed].iter_mut() {
            *pfn = if lacks(pfn) {
                want.pfn()
            } else {
                HmmPfn::SNAPSHOT
            };
        }
        self.fault_in(&guard, seq, va, &mut pfns[..needed])?;
        Err(EBUSY)
    }

    pub(super) fn message_for(
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
    pub(super) fn fill_entries(
        &self,
        memory: &DeviceMemory,
        message: &mut CallRequest,
        head: wire::TranslationMessage,
        va: u64,
        pfns: &[HmmPfn],
        unmoved: Unmoved,
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
            let ours = memory.index_of(page).is_some();
            let withheld = unmoved == Unmoved::Withhold && ought_to_move(memory, *pfn);
            if !ours && page.is_device_private() || withheld {
                continue;
            }
            let mut access = wire::ACCESS_READ;
            if pfn.is_writable() {
                access |= wire::ACCESS_WRITE;
                // Device memory takes the atomic operations of both sides, or no CPU's at all.
                if ours && self.device.link.features.atomic {
                    access |= wire::ACCESS_ATOMIC;
                }
                if !ours || memory.is_reclaimed() {
                    page.mark_written();
                }
            }
            entries.add(at, memory.address_of(page), pages as u32, access)?;
        }
        entries.finish(head)
    }

    /// Posts an answer without entries.
    pub(super) fn answer_empty(&self, head: wire::TranslationMessage) {
        // Fails only when the device is broken, and then nobody waits for it.
        let _ = self
            .message_for(head, 0)
            .and_then(|m| self.mirror.lock().post(m, 0, 0));
    }
}

/// Whether the page is one of system memory that moves to the device when that uses it.
fn ought_to_move(memory: &DeviceMemory, pfn: HmmPfn) -> bool {
    pfn.page().is_some_and(|page| {
        let of_a_device = memory.index_of(page).is_some() || page.is_device_coherent();
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

// SPDX-License-Identifier: GPL-2.0

//! Pages for the device's atomic operations.
//!
//! In device memory nothing has to be done: no CPU reaches private pages, and coherent ones take the
//! atomic operations of both sides. A page of system memory is taken from the CPUs
//! (`make_device_exclusive`), until one touches it, or, where the kernel does not do that (pages of
//! files and of hugetlb), used together with them: the device's operations there are the atomic
//! operations of the memory itself, as AtomicOps completed by a root complex are.
//!
//! Taking a page from the CPUs undoes itself first where that was done before, and each undoing is a
//! change of the mappings after which everything found is out of date. So pages are made ordinary
//! ones, then looked at, and only then taken, with nothing left to be undone. One page alone stays
//! locked until the device has it, so that CPUs which want it cannot win for ever.

use super::{answer::HINT_TRIES, Faults, Scratch, Want, PAGE_SIZE, RETRY_LIMIT};
use crate::{
    kapi::{
        exclusive::Exclusive,
        hmm::{range_fault, HmmPfn},
        page::PagePtr,
    },
    memory::DeviceMemory,
    wire,
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    time::{Instant, Monotonic},
};

const RIGHTS: u32 = wire::ACCESS_READ | wire::ACCESS_WRITE | wire::ACCESS_ATOMIC;

impl Faults {
    /// Makes `npages` pages from `va` on fit for atomic operations and posts a message with their
    /// translations; only the first if the others do not hold still.
    pub(super) fn answer_exclusive(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        (va, mut npages): (u64, usize),
        head: wire::TranslationMessage,
        scratch: &mut Scratch,
    ) -> Result {
        let began = Instant::<Monotonic>::now();
        let mut tries = 0;
        loop {
            if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() {
                return Err(ETIMEDOUT);
            }
            tries += 1;
            if tries > HINT_TRIES {
                npages = 1;
            }
            match self.try_exclusive(memory, mm, va, npages, head, scratch) {
                Err(error) if error == EBUSY => {}
                Err(error) if npages > 1 && error != EIO => npages = 1,
                result => return result,
            }
        }
    }

    fn try_exclusive(
        &self,
        memory: &DeviceMemory,
        mm: &MmWithUser,
        va: u64,
        npages: usize,
        head: wire::TranslationMessage,
        scratch: &mut Scratch,
    ) -> Result {
        let pfns = &mut scratch.pfns[..npages];
        pfns.fill(Want::Atomic.pfn());
        let seq = self.notifier.read_begin();
        self.look_up(memory, mm, seq, va, pfns, Want::Atomic, true)?;

        let seq = self.notifier.read_begin();
        let guard = mm.mmap_read_lock();
        pfns.fill(HmmPfn::SNAPSHOT);
        range_fault(&self.notifier, &guard, seq, va, pfns, memory.owner())?;
        let mut held = None;
        for (i, pfn) in pfns.iter_mut().enumerate() {
            let page = pfn.page().filter(|_| pfn.is_writable()).ok_or(EBUSY)?;
            if memory.index_of(page).is_some() || !page.is_plain_anon() {
                continue;
            }
            let at = va + i as u64 * PAGE_SIZE;
            if let Some(exclusive) = Exclusive::make(mm, &guard, at, &raw const *self.mirror)? {
                *pfn = HmmPfn::writable(exclusive.page());
                held = (npages == 1).then_some(exclusive);
            }
        }
        drop(guard);
        let posted = self.post_exclusive(memory, va, pfns, seq, head);
        drop(held);
        posted
    }

    fn post_exclusive(
        &self,
        memory: &DeviceMemory,
        va: u64,
        pfns: &[HmmPfn],
        seq: u64,
        head: wire::TranslationMessage,
    ) -> Result {
        let mut message = self.message_for(head, pfns.len())?;
        let end = va + pfns.len() as u64 * PAGE_SIZE;
        let mut held = self.mirror.lock();
        if self.notifier.retry(seq) {
            return Err(EBUSY);
        }
        let mut entries = super::answer::Entries::new(&mut message);
        for (i, page) in pfns.iter().map(|pfn| pfn.page()).enumerate() {
            let page: PagePtr = page.ok_or(EBUSY)?;
            if memory.index_of(page).is_none() || memory.is_reclaimed() {
                page.mark_written();
            }
            let gpa = memory.address_of(page);
            entries.add(va + i as u64 * PAGE_SIZE, gpa, 1, RIGHTS)?;
        }
        entries.finish(head)?;
        held.set_exclusive(va, end);
        held.post(message, va, end)?;
        self.device.link.stats.exclusive.add(pfns.len() as u64);
        Ok(())
    }
}

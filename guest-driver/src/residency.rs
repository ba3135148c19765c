// SPDX-License-Identifier: GPL-2.0

//! Where the pages of a process are, found without touching any.

use crate::{
    kapi::{
        hmm::{range_fault, HmmPfn},
        notifier::{IntervalNotifier, Invalidate, Invalidation},
    },
    memory::DeviceMemory,
    migration::WINDOW_PAGES,
    uapi, wire,
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    time::{Delta, Instant, Monotonic},
};

/// Longest attempt at one window while its mappings keep changing.
const RETRY_LIMIT: Delta = Delta::from_secs(5);

/// The target of a notifier that is only there because `hmm_range_fault` wants one.
pub(crate) struct Unconcerned;

impl Invalidate for Unconcerned {
    fn invalidate(&self, range: &Invalidation<'_>) -> bool {
        range.begin();
        true
    }
}

/// Room for one window.
pub(crate) struct Window {
    pfns: KVec<HmmPfn>,
    /// A `RESIDENT_*` byte for each page looked at.
    pub(crate) kinds: KVec<u8>,
}

impl Window {
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new() -> Result<Self> {
        let mut pfns = KVec::new();
        pfns.resize(WINDOW_PAGES, HmmPfn::SNAPSHOT, GFP_KERNEL)?;
        let mut kinds = KVec::new();
        kinds.resize(WINDOW_PAGES, uapi::RESIDENT_NONE, GFP_KERNEL)?;
        Ok(Window { pfns, kinds })
    }

    /// Looks at `npages` pages from `addr` on.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`: the mappings do not stop changing. `EFAULT`: the range is not in user space.
    pub(crate) fn pfns<T: Invalidate>(
        &mut self,
        memory: &DeviceMemory,
        notifier: &IntervalNotifier<T>,
        mm: &MmWithUser,
        addr: u64,
        npages: usize,
    ) -> Result<&[HmmPfn]> {
        let began = Instant::<Monotonic>::now();
        let pfns = &mut self.pfns[..npages];
        loop {
            pfns.fill(HmmPfn::SNAPSHOT);
            let seq = notifier.read_begin();
            let guard = mm.mmap_read_lock();
            match range_fault(notifier, &guard, seq, addr, pfns, memory.owner()) {
                Ok(()) => break,
                Err(error) if error != EBUSY => return Err(error),
                Err(_) if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() => {
                    return Err(ETIMEDOUT);
                }
                Err(_) => {}
            }
        }
        Ok(&self.pfns[..npages])
    }

    /// Looks at `npages` pages from `addr` on, fills `kinds` and returns how many are of each.
    ///
    /// # Errors
    ///
    /// Those of [`Self::pfns`].
    pub(crate) fn look<T: Invalidate>(
        &mut self,
        memory: &DeviceMemory,
        notifier: &IntervalNotifier<T>,
        mm: &MmWithUser,
        addr: u64,
        npages: usize,
    ) -> Result<[u64; 4]> {
        self.pfns(memory, notifier, mm, addr, npages)?;
        let pfns = &self.pfns[..npages];
        let mut counts = [0; 4];
        for (kind, pfn) in self.kinds.iter_mut().zip(pfns.iter()) {
            *kind = match pfn.page() {
                None => uapi::RESIDENT_NONE,
                Some(page) if memory.index_of(page).is_some() => uapi::RESIDENT_DEVICE,
                Some(page) if page.is_zero() => uapi::RESIDENT_NONE,
                Some(page) if page.is_anon() => uapi::RESIDENT_SYSTEM,
                Some(_) => uapi::RESIDENT_FILE,
            };
            counts[usize::from(*kind)] += 1;
        }
        Ok(counts)
    }
}

/// The windows of `start` … `start + len`: address and pages of each.
pub(crate) fn windows(start: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let bytes = WINDOW_PAGES as u64 * wire::PAGE_SIZE;
    let end = start + len;
    let mut at = start;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        // Windows end at multiples of their size, as page tables do.
        let next = (at - at % bytes + bytes).min(end);
        let window = (at, ((next - at) / wire::PAGE_SIZE) as usize);
        at = next;
        Some(window)
    })
}

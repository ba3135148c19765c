// SPDX-License-Identifier: GPL-2.0

//! Where the pages of a process are, found without touching any.

use crate::{
    kapi::{
        hmm::{snapshot, HmmPfn},
        mm::{self, ReadGuard},
        notifier::{IntervalNotifier, Invalidate, Invalidation},
    },
    looks::Looks,
    memory::DeviceMemory,
    migration::WINDOW_PAGES,
    uapi, wire,
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
    time::{Delta, Instant, Monotonic},
};

/// Longest attempt at one window while its mappings keep changing.
const RETRY_LIMIT: Delta = Delta::from_secs(5);

/// Holds changes off while what was found is read. Those of other windows than the one that is looked at do not
/// make a look outdated: others may be moving the same range.
#[pin_data]
struct Still {
    #[pin]
    looks: Mutex<Looks>,
}

impl Invalidate for Still {
    fn invalidate(&self, range: &Invalidation<'_>) -> bool {
        let looks = match range.may_block() {
            true => Some(self.looks.lock()),
            false => self.looks.try_lock(),
        };
        let Some(mut looks) = looks else {
            return false;
        };
        if looks.change(range.start()..range.end(), range.number()) {
            range.begin();
        }
        true
    }
}

/// A view of a part of an address space, a window at a time.
pub(crate) struct View<'a> {
    memory: &'a dyn DeviceMemory,
    mm: &'a MmWithUser,
    still: Arc<Still>,
    notifier: Pin<KBox<IntervalNotifier<Still>>>,
    pfns: KVec<HmmPfn>,
    /// A `RESIDENT_*` byte for each page counted last.
    pub(crate) kinds: KVec<u8>,
}

impl<'a> View<'a> {
    /// A view of `range`, which lies in user space.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(
        memory: &'a dyn DeviceMemory,
        mm: &'a MmWithUser,
        range: Range<u64>,
    ) -> Result<Self> {
        let mut pfns = KVec::new();
        pfns.resize(WINDOW_PAGES, HmmPfn::NONE, GFP_KERNEL)?;
        let mut kinds = KVec::new();
        kinds.resize(WINDOW_PAGES, uapi::RESIDENT_NONE, GFP_KERNEL)?;
        let still = Arc::pin_init(
            pin_init!(Still { looks <- new_mutex!(Looks::new(), "coax_still") }),
            GFP_KERNEL,
        )?;
        let notifier = IntervalNotifier::new(mm, range, still.clone());
        Ok(View {
            memory,
            mm,
            notifier: KBox::pin_init(notifier, GFP_KERNEL)?,
            still,
            pfns,
            kinds,
        })
    }

    /// Looks at `npages` pages from `addr` on, and hands what was found to `read` while it holds.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`: those of the window do not stop changing. `EFAULT`: not in user space. `EINTR`: the caller
    /// was killed.
    pub(crate) fn look<R>(
        &mut self,
        addr: u64,
        npages: usize,
        read: impl FnOnce(&[HmmPfn], &mut [u8]) -> R,
    ) -> Result<R> {
        let window = addr..addr + npages as u64 * wire::PAGE_SIZE;
        let ticket = {
            let mut looks = self.still.looks.lock();
            let (ticket, changing) = looks.begin(window);
            if let Some(number) = changing {
                self.notifier.outdate(number);
            }
            ticket
        };
        let result = self.look_at(addr, npages, read);
        self.still.looks.lock().end(ticket);
        result
    }

    fn look_at<R>(
        &mut self,
        addr: u64,
        npages: usize,
        read: impl FnOnce(&[HmmPfn], &mut [u8]) -> R,
    ) -> Result<R> {
        let began = Instant::<Monotonic>::now();
        let (notifier, frames) = (&self.notifier, self.memory.frames());
        let pfns = &mut self.pfns[..npages];
        loop {
            let seq = notifier.read_begin();
            let guard = ReadGuard::lock_killable(self.mm)?;
            let looked = snapshot(notifier, &guard, seq, addr, pfns, frames);
            drop(guard);
            let held = self.still.looks.lock();
            match looked {
                Ok(()) if !notifier.retry(seq) => {
                    let result = read(pfns, &mut self.kinds[..npages]);
                    drop(held);
                    return Ok(result);
                }
                Err(error) if error != EBUSY => return Err(error),
                _ if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() => {
                    return Err(ETIMEDOUT);
                }
                _ => {}
            }
        }
    }

    /// Counts the pages of each kind from `addr` on.
    ///
    /// # Errors
    ///
    /// Those of [`Self::look`].
    pub(crate) fn count(&mut self, addr: u64, npages: usize) -> Result<[u64; 4]> {
        let memory = self.memory;
        self.look(addr, npages, |pfns, kinds| {
            let mut counts = [0; 4];
            for (kind, pfn) in kinds.iter_mut().zip(pfns) {
                *kind = match pfn.page() {
                    None => uapi::RESIDENT_NONE,
                    Some(page) if memory.frames().has(page) => uapi::RESIDENT_DEVICE,
                    Some(page) if page.is_zero() => uapi::RESIDENT_NONE,
                    Some(page) if page.is_anon() => uapi::RESIDENT_SYSTEM,
                    Some(_) => uapi::RESIDENT_FILE,
                };
                counts[usize::from(*kind)] += 1;
            }
            counts
        })
    }
}

/// The first address of `from` … `end` where pages may be; what lies before it holds none. Cheap where
/// page tables are missing, however much that is.
///
/// # Errors
///
/// `EINTR`: the caller was killed.
pub(crate) fn next_mapped(mm: &MmWithUser, from: u64, end: u64) -> Result<u64> {
    let guard = ReadGuard::lock_killable(mm)?;
    let (mut at, end) = (from as usize, end as usize);
    while let Some(vma) = guard.find_vma(at).filter(|vma| vma.start() < end) {
        at = at.max(vma.start());
        let next = mm::next_mapped(vma, at, end);
        if next < end.min(vma.end()) {
            return Ok((next as u64).max(from));
        }
        at = vma.end();
    }
    Ok(end as u64)
}

/// The windows of `start` … `start + len`: address and pages of each.
pub(crate) fn windows(start: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let end = start + len;
    let mut at = start;
    core::iter::from_fn(move || {
        let window = window(at, end)?;
        at += window.1 as u64 * wire::PAGE_SIZE;
        Some(window)
    })
}

/// The window from `at` on that lies before `end`: address and pages.
pub(crate) fn window(at: u64, end: u64) -> Option<(u64, usize)> {
    if at >= end {
        return None;
    }
    let bytes = WINDOW_PAGES as u64 * wire::PAGE_SIZE;
    // Windows end at multiples of their size, as page tables do.
    let next = (at - at % bytes + bytes).min(end);
    Some((at, ((next - at) / wire::PAGE_SIZE) as usize))
}

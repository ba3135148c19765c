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
//! ones by faulting them in, then looked at, and only then taken, with nothing left to be undone. One page alone stays
//! locked until the device has it, so that CPUs which want it cannot win for ever.

use super::{
    answer::{message_for, Entries, FAULT_TRIES},
    head,
    stands::Found,
    Asked, Refusal, Resolver, Scratch, PAGE_SIZE, RETRY_LIMIT,
};
use crate::{
    kapi::{
        exclusive::Exclusive,
        hmm::{snapshot, HmmPfn},
        mm::ReadGuard,
    },
    mirror::Look,
    wire,
};
use kernel::{
    prelude::*,
    time::{Instant, Monotonic},
};

const RIGHTS: u32 = wire::ACCESS_READ | wire::ACCESS_WRITE | wire::ACCESS_ATOMIC;
/// Changes of the mappings after which only the first page is still tried.
const HINT_TRIES: usize = 16;

/// Pages of a request, a bit each.
type Pages = [u64; wire::MAX_RANGE_PAGES as usize / 64];

impl Resolver {
    /// Makes the pages wanted fit for atomic operations and posts a message with their translations;
    /// only the first if the others do not hold still.
    pub(super) fn answer_exclusive(
        &self,
        asked: Asked<'_>,
        found: &Found,
        scratch: &mut Scratch,
    ) -> Result<(), Refusal> {
        let began = Instant::<Monotonic>::now();
        let mut npages = match found.watched {
            true => 1,
            false => found.wanted,
        };
        let range = asked.va..asked.va + npages as u64 * PAGE_SIZE;
        let mut look = self.mirror.look(&self.notifier, range);
        let mut tries = 0;
        loop {
            if began.elapsed().as_millis() > RETRY_LIMIT.as_millis() {
                return Err(Refusal::Later);
            }
            tries += 1;
            if tries > HINT_TRIES {
                npages = 1;
            }
            match self.try_exclusive(asked, found, &look, &mut scratch.pfns[..npages]) {
                Ok(true) => return Ok(()),
                Ok(false) if tries > FAULT_TRIES && scratch.pfns[0].is_error() => {
                    return Err(Refusal::Invalid);
                }
                Ok(false) => {}
                Err(_) if npages > 1 => npages = 1,
                Err(refusal) => return Err(refusal),
            }
            look.again();
        }
    }

    /// One try; false if the mappings changed meanwhile.
    fn try_exclusive(
        &self,
        asked: Asked<'_>,
        found: &Found,
        look: &Look<'_>,
        pfns: &mut [HmmPfn],
    ) -> Result<bool, Refusal> {
        let (va, memory) = (asked.va, asked.memory);
        let guard = ReadGuard::lock(asked.mm);
        match snapshot(look.notifier, &guard, look.seq, va, pfns, memory.frames()) {
            Ok(()) => {}
            Err(error) if error == EBUSY => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if pfns.iter().any(|pfn| asked.want.lacks(*pfn)) {
            drop(guard);
            self.fault_in(asked, found, pfns)?;
            return Ok(false);
        }
        let Some(of_cpus) = self.of_cpus(asked, look, pfns) else {
            return Ok(false);
        };
        let mut held = None;
        let npages = pfns.len();
        for (i, pfn) in pfns.iter_mut().enumerate() {
            if of_cpus[i / 64] & 1 << (i % 64) == 0 {
                continue;
            }
            let at = va + i as u64 * PAGE_SIZE;
            let made = Exclusive::make(asked.mm, &guard, at, &raw const *self.mirror);
            if let Some(exclusive) = made? {
                *pfn = HmmPfn::writable(exclusive.page());
                held = (npages == 1).then_some(exclusive);
            }
        }
        drop(guard);
        let posted = self.post_exclusive(asked, look, pfns);
        drop(held);
        posted
    }

    /// Which of the pages are to be taken from the CPUs; none if the mappings changed.
    fn of_cpus(&self, asked: Asked<'_>, look: &Look<'_>, pfns: &[HmmPfn]) -> Option<Pages> {
        let _held = look.hold()?;
        let mut pages = Pages::default();
        for (i, page) in pfns.iter().map(|pfn| pfn.page()).enumerate() {
            let page = page?;
            if !asked.memory.frames().has(page) && page.is_plain_anon() {
                pages[i / 64] |= 1 << (i % 64);
            }
        }
        Some(pages)
    }

    fn post_exclusive(
        &self,
        asked: Asked<'_>,
        look: &Look<'_>,
        pfns: &[HmmPfn],
    ) -> Result<bool, Refusal> {
        let (va, memory) = (asked.va, asked.memory);
        let head = head(
            asked.request,
            wire::MSG_PAGE_RESPONSE,
            wire::RESPONSE_SUCCESS,
        );
        let mut message = message_for(head, pfns.len())?;
        let end = va + pfns.len() as u64 * PAGE_SIZE;
        let Some(mut held) = look.hold() else {
            return Ok(false);
        };
        let mut entries = Entries::new(&mut message);
        for (i, page) in pfns.iter().map(|pfn| pfn.page()).enumerate() {
            let Some(page) = page else {
                return Ok(false);
            };
            page.mark_written();
            let gpa = memory.frames().address_of(page);
            entries.add(va + i as u64 * PAGE_SIZE, gpa, 1, RIGHTS)?;
        }
        entries.finish(head)?;
        held.set_exclusive(va, end);
        held.post(message, va, end)?;
        self.device.link.stats.exclusive.add(pfns.len() as u64);
        Ok(true)
    }
}

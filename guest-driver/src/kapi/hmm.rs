// SPDX-License-Identifier: GPL-2.0

//! Looking at a process's page table for a device.
//!
//! `hmm_range_fault` could fault pages in as well, but holds the mmap lock meanwhile and cannot wait for a
//! program that resolves faults. `hmm_range_fault_unlocked_timeout`, which 7.2 does not have, can, but nothing
//! except a fatal signal ends its wait. [`crate::kapi::mm::fault_in`] is for all that in every version.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)

use crate::{
    kapi::{
        frames::Frames,
        mm::ReadGuard,
        notifier::{IntervalNotifier, Invalidate},
        page::{PagePtr, PMD_ORDER, PMD_PAGES},
    },
    sys,
};
use kernel::{error::to_result, ffi::c_ulong, prelude::*};

/// Whether HMM faults pages in by calls that give up the mmap lock (`hmm_range_fault_unlocked_timeout()`, since
/// 7.3), for which `test_hmm` then has a call.
pub(crate) const HAS_UNLOCKED_FAULTS: bool = sys::coax_version_COAX_HAS_UNLOCKED_FAULTS != 0;

/// `HMM_PFN_VALID`.
const VALID: c_ulong = 1 << (c_ulong::BITS - 1);
/// `HMM_PFN_WRITE`.
const WRITE: c_ulong = 1 << (c_ulong::BITS - 2);
/// `HMM_PFN_ERROR`.
const ERROR: c_ulong = 1 << (c_ulong::BITS - 3);
/// `HMM_PFN_ORDER_SHIFT`.
const ORDER_SHIFT: u32 = c_ulong::BITS - 11;
/// `HMM_PFN_FLAGS`.
const FLAGS: c_ulong = !((1 << ORDER_SHIFT) - 1);

/// What was found of a page.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct HmmPfn(c_ulong);

impl HmmPfn {
    /// Nothing.
    pub(crate) const NONE: Self = HmmPfn(0);

    /// Whether the device may write the page.
    pub(crate) fn is_writable(self) -> bool {
        self.0 & WRITE != 0
    }

    /// The entry of a page that was found otherwise and that the device may write.
    pub(crate) fn writable(page: PagePtr) -> Self {
        HmmPfn(page.pfn() as c_ulong | VALID | WRITE)
    }

    /// Whether nothing that a device could use is mapped, and nothing can be.
    pub(crate) fn is_error(self) -> bool {
        self.0 & ERROR != 0
    }

    /// Pages that one page-table entry maps around this one, as a power of two.
    pub(crate) fn map_order(self) -> u32 {
        (self.0 >> ORDER_SHIFT & 0x1f) as u32
    }

    /// Makes the entry that of page number `page` of the address space.
    ///
    /// Of a 2 MiB device-private folio `hmm_vma_handle_absent_pmd()` (`mm/hmm.c`, 7.2) reports the
    /// first page for the first address asked for, wherever in the 2 MiB that lies. What maps 2 MiB
    /// is aligned on both sides, so the address tells the page.
    fn settle(&mut self, page: u64) {
        const WITHIN: c_ulong = PMD_PAGES as c_ulong - 1;
        if self.0 & VALID != 0 && self.map_order() >= PMD_ORDER {
            self.0 = self.0 & !WITHIN | page as c_ulong & WITHIN;
        }
    }

    /// The page found, if there is one that may be used.
    pub(crate) fn page(self) -> Option<PagePtr> {
        if self.0 & VALID == 0 || self.0 & ERROR != 0 {
            return None;
        }
        // SAFETY: `hmm_range_fault` reports page frames that have struct pages; what the page is used
        // for is checked by `retry`.
        unsafe { PagePtr::from_pfn((self.0 & !FLAGS) as u64) }
    }
}

/// Fills `pfns` with what is there of the pages from `start` on. Private device pages are only reported if
/// they are of `frames`.
///
/// # Errors
///
/// `EBUSY`: mappings changed since `seq`; begin anew.
pub(crate) fn snapshot<T: Invalidate>(
    notifier: &IntervalNotifier<T>,
    _mmap: &ReadGuard<'_>,
    seq: u64,
    start: u64,
    pfns: &mut [HmmPfn],
    frames: &Frames,
) -> Result {
    pfns.fill(HmmPfn::NONE);
    let mut range = sys::hmm_range {
        notifier: notifier.raw(),
        notifier_seq: seq as c_ulong,
        start: start as c_ulong,
        end: start as c_ulong + (pfns.len() as c_ulong) * 4096,
        hmm_pfns: pfns.as_mut_ptr().cast(),
        default_flags: 0,
        pfn_flags_mask: 0,
        dev_private_owner: frames.owner(),
    };
    // SAFETY:
    // - The notifier is registered and covers the range, and its mmap lock is held.
    // - `hmm_pfns` has one element a page.
    to_result(unsafe { sys::hmm_range_fault(&mut range) })?;
    for (page, pfn) in (start / 4096..).zip(pfns.iter_mut()) {
        pfn.settle(page);
    }
    Ok(())
}

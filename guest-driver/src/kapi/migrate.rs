// SPDX-License-Identifier: GPL-2.0

//! Moving pages between system memory and device memory.
//!
//! The three steps of `Documentation/mm/hmm.rst`, "Migration to and from device memory", as one
//! scoped object: set up, give each page a destination and copy, [`Migration::commit`]. Dropping
//! it finishes the migration; pages that were not committed stay where they were.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)

use crate::{
    kapi::{
        page::{LockedPage, PagePtr},
        pagemap::{Pagemap, PagemapOps},
    },
    sys,
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    error::to_result,
    ffi::{c_ulong, c_void},
    mm::virt::VmaRef,
    prelude::*,
};

/// `MIGRATE_PFN_*`.
const VALID: c_ulong = 1 << 0;
const MIGRATE: c_ulong = 1 << 1;
const WRITE: c_ulong = 1 << 3;
const SHIFT: u32 = 6;

/// Which pages of a range to take.
#[derive(Clone, Copy)]
pub(crate) enum Select {
    /// Anonymous pages in system memory, and pages never touched.
    System,
    /// Private and coherent pages of the owner given.
    Device,
}

/// Source and destination of each page of a window.
pub(crate) struct PageArrays {
    src: KVec<c_ulong>,
    dst: KVec<c_ulong>,
}

impl PageArrays {
    /// Arrays for windows of up to `pages` pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(pages: usize) -> Result<Self> {
        let mut arrays = PageArrays {
            src: KVec::new(),
            dst: KVec::new(),
        };
        arrays.src.resize(pages, 0, GFP_KERNEL)?;
        arrays.dst.resize(pages, 0, GFP_KERNEL)?;
        Ok(arrays)
    }
}

/// A page that can be moved.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// Never touched, or the zero page: the destination is to be cleared.
    Hole,
    /// To be copied.
    Page(PagePtr),
}

enum How {
    Range(sys::migrate_vma),
    Pfns,
}

/// A migration of up to one window of pages.
pub(crate) struct Migration<'a> {
    how: How,
    arrays: &'a mut PageArrays,
    npages: usize,
    committed: bool,
    _mapping: PhantomData<&'a VmaRef>,
}

impl<'a> Migration<'a> {
    /// Isolates and unmaps the pages of `start` … `end` in `vma`.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the range is empty, misaligned, not in `vma`, or `vma` is of a kind that does
    /// not migrate.
    pub(crate) fn of_range(
        vma: &'a VmaRef,
        start: usize,
        end: usize,
        select: Select,
        owner: *mut c_void,
        fault: Option<&Fault<'_>>,
        arrays: &'a mut PageArrays,
    ) -> Result<Self> {
        let npages = end.checked_sub(start).ok_or(EINVAL)? / 4096;
        if npages == 0 || npages > arrays.src.len() || start < vma.start() || end > vma.end() {
            return Err(EINVAL);
        }
        arrays.src.fill(0);
        arrays.dst.fill(0);
        let mut args = sys::migrate_vma {
            vma: vma.as_ptr(),
            src: arrays.src.as_mut_ptr(),
            dst: arrays.dst.as_mut_ptr(),
            start,
            end,
            pgmap_owner: owner,
            flags: match select {
                Select::System => sys::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM,
                Select::Device => {
                    sys::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE
                        | sys::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_COHERENT
                }
            } as c_ulong,
            // SAFETY: A fault's page is valid during the fault.
            fault_page: fault.map_or(core::ptr::null_mut(), |f| unsafe { (*f.vmf).page }),
            ..pin_init::zeroed()
        };
        // SAFETY: The mmap lock is held, by `VmaRef`; the arrays have `npages` elements and stay
        // as long as `self`.
        to_result(unsafe { sys::migrate_vma_setup(&mut args) })?;
        Ok(Migration {
            how: How::Range(args),
            arrays,
            npages,
            committed: false,
            _mapping: PhantomData,
        })
    }

    /// Isolates and unmaps device pages by page frame number, wherever they are mapped.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no pages, or more than the arrays hold.
    pub(crate) fn of_device(
        first_pfn: u64,
        npages: usize,
        arrays: &'a mut PageArrays,
    ) -> Result<Self> {
        if npages == 0 || npages > arrays.src.len() {
            return Err(EINVAL);
        }
        arrays.src.fill(0);
        arrays.dst.fill(0);
        // SAFETY: The array has `npages` elements; the page frames have struct pages, which the
        // caller, the owner of the mapping, keeps.
        to_result(unsafe {
            sys::migrate_device_range(
                arrays.src.as_mut_ptr(),
                first_pfn as c_ulong,
                npages as c_ulong,
            )
        })?;
        Ok(Migration {
            how: How::Pfns,
            arrays,
            npages,
            committed: false,
            _mapping: PhantomData,
        })
    }

    /// Pages in the window.
    pub(crate) fn len(&self) -> usize {
        self.npages
    }

    /// Page `i`, if it can be moved.
    pub(crate) fn source(&self, i: usize) -> Option<Source> {
        let src = *self.arrays.src[..self.npages].get(i)?;
        if src & MIGRATE == 0 {
            return None;
        }
        if src & VALID == 0 {
            return Some(Source::Hole);
        }
        // SAFETY: A valid entry is the frame number of a page that the migration has isolated.
        let page = unsafe { PagePtr::from_raw(sys::coax_pfn_to_page(src >> SHIFT)) }?;
        Some(Source::Page(page))
    }

    /// Has page `i` move to `page`, which the caller has filled or will fill before
    /// [`Self::commit`].
    pub(crate) fn set_destination(&mut self, i: usize, page: LockedPage) {
        let write = self.arrays.src[i] & WRITE;
        let page = page.into_page();
        self.arrays.dst[..self.npages][i] = ((page.pfn() as c_ulong) << SHIFT) | VALID | write;
    }

    /// Takes destination `i` back: the page stays where it is.
    fn clear_destination(&mut self, i: usize) {
        let dst = core::mem::replace(&mut self.arrays.dst[..self.npages][i], 0);
        if dst & VALID != 0 {
            // SAFETY: The entry was made by `set_destination` from a `LockedPage`.
            if let Some(page) = unsafe { PagePtr::from_raw(sys::coax_pfn_to_page(dst >> SHIFT)) } {
                // SAFETY: As above; lock and reference are given back with it.
                drop(unsafe { LockedPage::from_raw(page) });
            }
        }
    }

    /// Puts the destinations in the places of the sources; to be called once, after the data is
    /// in the destinations. Pages that something else still holds stay.
    pub(crate) fn commit(&mut self) {
        self.committed = true;
        match &mut self.how {
            // SAFETY: Set up by `of_range`, not finalized before `drop`.
            How::Range(args) => unsafe { sys::migrate_vma_pages(args) },
            How::Pfns => {
                // SAFETY: Set up by `of_device`; the arrays have `npages` elements.
                unsafe {
                    sys::migrate_device_pages(
                        self.arrays.src.as_mut_ptr(),
                        self.arrays.dst.as_mut_ptr(),
                        self.npages as c_ulong,
                    )
                }
            }
        }
    }

    /// Copies the pages that have destinations with the CPU, for when `memory`'s device cannot.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no address space to map the device memory.
    pub(crate) fn copy_by_cpu<T: PagemapOps>(&self, memory: &Pagemap<T>) -> Result {
        for i in 0..self.npages {
            if self.arrays.dst[i] & VALID == 0 {
                continue;
            }
            let (src, dst) = (self.arrays.src[i], self.arrays.dst[i]);
            let zero = src & VALID == 0;
            let address = |entry: c_ulong| {
                // SAFETY: A valid entry is the frame number of a page that the migration holds.
                unsafe { PagePtr::from_raw(sys::coax_pfn_to_page(entry >> SHIFT)) }
                    .map(|page| memory.address_of(page))
                    .ok_or(EINVAL)
            };
            let from = if zero { 0 } else { address(src)? };
            // SAFETY: Both pages exist and are isolated, so that nobody else uses them.
            to_result(unsafe { sys::coax_copy_by_cpu(address(dst)?, from, zero, 4096) })?;
        }
        Ok(())
    }

    /// After [`Self::commit`]: how many pages moved.
    pub(crate) fn count_moved(&self) -> u64 {
        (0..self.npages).filter(|&i| self.moved(i)).count() as u64
    }

    /// After [`Self::commit`]: whether page `i` moved.
    pub(crate) fn moved(&self, i: usize) -> bool {
        self.arrays.src[i] & MIGRATE != 0 && self.arrays.dst[i] & VALID != 0
    }
}

impl Drop for Migration<'_> {
    fn drop(&mut self) {
        if !self.committed {
            // A page with a destination would be mapped there, whatever is in it.
            for i in 0..self.npages {
                self.clear_destination(i);
            }
        }
        match &mut self.how {
            // SAFETY: Set up by `of_range`, finalized once, here.
            How::Range(args) => unsafe { sys::migrate_vma_finalize(args) },
            // SAFETY: Set up by `of_device`, finalized once, here; the arrays have `npages`
            // elements.
            How::Pfns => unsafe {
                sys::migrate_device_finalize(
                    self.arrays.src.as_mut_ptr(),
                    self.arrays.dst.as_mut_ptr(),
                    self.npages as c_ulong,
                )
            },
        }
    }
}

/// A CPU's fault on a private device page.
pub(crate) struct Fault<'a> {
    vmf: *mut bindings::vm_fault,
    _call: PhantomData<&'a ()>,
}

impl<'a> Fault<'a> {
    /// # Safety
    ///
    /// `vmf` is valid, and its mmap or VMA lock held, during `'a`.
    pub(super) unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        Fault {
            vmf,
            _call: PhantomData,
        }
    }

    /// Address touched.
    pub(crate) fn address(&self) -> usize {
        // SAFETY: `vmf` is valid.
        unsafe { (*self.vmf).__bindgen_anon_1.address }
    }

    /// The mapping touched.
    pub(crate) fn vma(&self) -> &'a VmaRef {
        // SAFETY: `vmf` is valid and its lock held for `'a`.
        unsafe { VmaRef::from_raw((*self.vmf).__bindgen_anon_1.vma) }
    }
}

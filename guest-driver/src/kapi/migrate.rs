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
        frames::Frames,
        page::{LockedFolio, PagePtr, PMD_ORDER, PMD_PAGES},
    },
    sys,
};
use core::{marker::PhantomData, ops::Range};
use kernel::{bindings, error::to_result, ffi::c_ulong, mm::virt::VmaRef, prelude::*};

/// `MIGRATE_PFN_*`.
const VALID: c_ulong = 1 << 0;
const MIGRATE: c_ulong = 1 << 1;
const COMPOUND: c_ulong = 1 << 4;
const SHIFT: u32 = 6;

/// Which pages of a range to take.
#[derive(Clone, Copy)]
pub(crate) enum Select {
    /// Anonymous pages in system memory, and pages never touched.
    System,
    /// Private and coherent pages of the frames given.
    Device,
}

/// Source and destination of each page of a window; empty until a migration needs them.
#[derive(Default)]
pub(crate) struct PageArrays {
    src: KVec<c_ulong>,
    dst: KVec<c_ulong>,
}

impl PageArrays {
    /// Makes room for `pages` pages, all entries empty.
    fn prepare(&mut self, pages: usize) -> Result {
        for array in [&mut self.src, &mut self.dst] {
            array.truncate(pages);
            array.fill(0);
            array.resize(pages, 0, GFP_KERNEL)?;
        }
        Ok(())
    }
}

/// A page, or a folio of [`PMD_PAGES`] pages, that can be moved as a whole.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    /// What is to be copied; none where memory was never touched, or only read: the destination
    /// is to be cleared.
    pub(crate) page: Option<PagePtr>,
    /// Pages, as a power of two: 0 or [`PMD_ORDER`].
    pub(crate) order: u32,
}

enum How {
    Range(sys::migrate_vma),
    Pfns,
}

/// A migration of up to one window of pages.
///
/// Pages of a 2 MiB folio are moved as one if source and destination are large; a large source with
/// [`PMD_PAGES`] small destinations is split when committed. The entry of a large source is its
/// first, the others are empty.
pub(crate) struct Migration<'a> {
    how: How,
    arrays: PageArrays,
    npages: usize,
    committed: bool,
    finished: bool,
    _mapping: PhantomData<&'a VmaRef>,
}

impl<'a> Migration<'a> {
    /// Isolates and unmaps the pages of `window` in `vma`; with `large`, those of 2 MiB folios that
    /// lie in the window whole as one, else they are split.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the range is empty, misaligned, not in `vma`, or `vma` is of a kind that does
    /// not migrate. `ENOMEM`.
    pub(crate) fn of_range(
        vma: &'a VmaRef,
        window: Range<usize>,
        (select, large): (Select, bool),
        frames: &Frames,
        fault: Option<&Fault<'_>>,
        mut arrays: PageArrays,
    ) -> Result<Self> {
        let npages = window.len() / 4096;
        if npages == 0 || window.start < vma.start() || window.end > vma.end() {
            return Err(EINVAL);
        }
        arrays.prepare(npages)?;
        let mut flags = match select {
            Select::System => sys::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM,
            Select::Device => {
                sys::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE
                    | sys::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_COHERENT
            }
        };
        if large {
            flags |= sys::migrate_vma_direction_MIGRATE_VMA_SELECT_COMPOUND;
        }
        let mut args = sys::migrate_vma {
            vma: vma.as_ptr(),
            src: arrays.src.as_mut_ptr(),
            dst: arrays.dst.as_mut_ptr(),
            start: window.start,
            end: window.end,
            pgmap_owner: frames.owner(),
            flags: flags as c_ulong,
            // SAFETY: A fault's page is valid during the fault.
            fault_page: fault.map_or(core::ptr::null_mut(), |f| unsafe { (*f.vmf).page }),
            ..pin_init::zeroed()
        };
        // SAFETY: The mmap lock is held, by `VmaRef`; the arrays have `npages` elements and stay
        // as long as `self`.
        to_result(unsafe { sys::migrate_vma_setup(&mut args) })?;
        Ok(Self::begun(How::Range(args), arrays, npages))
    }

    /// Isolates and unmaps device pages by page frame number, wherever they are mapped. A window
    /// must hold the folios in it whole.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no pages. `ENOMEM`.
    pub(crate) fn of_device(first_pfn: u64, npages: usize, mut arrays: PageArrays) -> Result<Self> {
        if npages == 0 {
            return Err(EINVAL);
        }
        arrays.prepare(npages)?;
        // SAFETY: The array has `npages` elements; the page frames have struct pages, which the
        // caller, the owner of the mapping, keeps.
        to_result(unsafe {
            sys::migrate_device_range(
                arrays.src.as_mut_ptr(),
                first_pfn as c_ulong,
                npages as c_ulong,
            )
        })?;
        let mut migration = Self::begun(How::Pfns, arrays, npages);
        migration.leave_vacated();
        Ok(migration)
    }

    /// Leaves pages alone whose content somebody else has just moved away: until the last reference
    /// to them is given up they are found by number, but nothing of a page is in them.
    fn leave_vacated(&mut self) {
        let mut next = 0;
        while let Some((i, source)) = self.source_from(next) {
            next = i + (1 << source.order);
            // What is charged to a memory cgroup is in use; migration takes the charge along.
            if source.page.is_some_and(|page| !page.is_charged()) {
                self.arrays.src[i] &= !MIGRATE;
            }
        }
    }

    fn begun(how: How, arrays: PageArrays, npages: usize) -> Self {
        Migration {
            how,
            arrays,
            npages,
            committed: false,
            finished: false,
            _mapping: PhantomData,
        }
    }

    /// What can be moved that begins at page `i`.
    fn source(&self, i: usize) -> Option<Source> {
        let src = *self.arrays.src.get(i)?;
        if src & MIGRATE == 0 {
            return None;
        }
        let page = match src & VALID {
            0 => None,
            // SAFETY: A valid entry is the frame number of a page that the migration has isolated.
            _ => Some(unsafe { PagePtr::from_pfn((src >> SHIFT) as u64) }?),
        };
        let order = if src & COMPOUND != 0 && i + PMD_PAGES <= self.npages {
            PMD_ORDER
        } else {
            0
        };
        Some(Source { page, order })
    }

    /// The next that can be moved, at page `i` or after it, and where it begins.
    pub(crate) fn source_from(&self, i: usize) -> Option<(usize, Source)> {
        (i..self.npages).find_map(|i| Some((i, self.source(i)?)))
    }

    /// Has page `i`, or the folio that begins there, move to `folio`, which the caller fills before the
    /// migration is finished, and before [`Self::commit`] if there is no page yet.
    pub(crate) fn set_destination(&mut self, i: usize, folio: LockedFolio) {
        let large = if folio.order() > 0 { COMPOUND } else { 0 };
        let pfn = folio.into_head().pfn() as c_ulong;
        self.arrays.dst[i] = (pfn << SHIFT) | VALID | large;
    }

    /// Takes destination `i` back: the page stays where it is.
    pub(crate) fn clear_destination(&mut self, i: usize) {
        if let Some((head, order)) = self.destination(i) {
            // SAFETY: `set_destination` took lock and reference over from a `LockedFolio`.
            drop(unsafe { LockedFolio::from_raw(head, order) });
            self.arrays.dst[i] = 0;
        }
    }

    /// Whether a large source with small destinations is split: the kernel does so by way of its mapping only
    /// (`__migrate_device_pages()`).
    pub(crate) fn splits(&self) -> bool {
        matches!(self.how, How::Range(_))
    }

    /// The folio set for page `i`.
    fn destination(&self, i: usize) -> Option<(PagePtr, u32)> {
        let dst = *self.arrays.dst.get(i)?;
        let order = if dst & COMPOUND != 0 { PMD_ORDER } else { 0 };
        if dst & VALID == 0 {
            return None;
        }
        // SAFETY: The entry was made by `set_destination`, whose folio the migration holds.
        let head = unsafe { PagePtr::from_pfn((dst >> SHIFT) as u64) }?;
        Some((head, order))
    }

    /// Puts the destinations in the places of the sources; to be called once. Pages that something else
    /// still holds stay. Where there was no page the destination is mapped at once
    /// (`migrate_vma_insert_page()`), elsewhere when the migration is finished, so that only then the data
    /// has to be there.
    pub(crate) fn commit(&mut self) {
        self.committed = true;
        match &mut self.how {
            // SAFETY: Set up by `of_range`, not finalized before.
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

    /// Copies what moves with the CPU, for when the device cannot whose frames these are.
    pub(crate) fn copy_by_cpu(&self, frames: &Frames) {
        let mut next = 0;
        while let Some((i, source)) = self.source_from(next) {
            let from = source.page.map(|page| frames.address_of(page));
            let mut done = 0;
            while done < 1 << source.order {
                let Some((to, order)) = self.destination(i + done) else {
                    done += 1;
                    continue;
                };
                let from = from.map(|from| from + done as u64 * 4096);
                // SAFETY: Both are folios or parts of them, and isolated, so that nobody else uses them.
                unsafe { frames.copy_by_cpu(frames.address_of(to), from, 4096 << order) };
                done += 1 << order;
            }
            next = i + done;
        }
    }

    /// After [`Self::commit`]: how many pages moved.
    pub(crate) fn count_moved(&self) -> u64 {
        let (mut i, mut moved) = (0, 0);
        while let (Some(src), Some(dst)) = (self.arrays.src.get(i), self.arrays.dst.get(i)) {
            let pages = if dst & COMPOUND != 0 { PMD_PAGES } else { 1 };
            if src & MIGRATE != 0 && dst & VALID != 0 {
                moved += pages as u64;
            }
            i += pages;
        }
        moved
    }

    /// After [`Self::commit`]: whether page `i` moved.
    pub(crate) fn moved(&self, i: usize) -> bool {
        let moved = |i: usize, flags: c_ulong| {
            let (src, dst) = (self.arrays.src.get(i), self.arrays.dst.get(i));
            src.is_some_and(|src| src & MIGRATE != 0) && dst.is_some_and(|d| d & flags == flags)
        };
        moved(i, VALID) || moved(i & !(PMD_PAGES - 1), VALID | COMPOUND)
    }

    /// Maps what was committed at its new place and the rest at its old one; gives the arrays back
    /// for the next migration.
    pub(crate) fn finish(mut self) -> PageArrays {
        self.finalize();
        core::mem::take(&mut self.arrays)
    }

    fn finalize(&mut self) {
        if core::mem::replace(&mut self.finished, true) {
            return;
        }
        if !self.committed {
            // A page with a destination would be mapped there, whatever is in it.
            for i in 0..self.npages {
                self.clear_destination(i);
            }
        }
        match &mut self.how {
            // SAFETY: Set up by `of_range`, finalized once, as `finished` says.
            How::Range(args) => unsafe { sys::migrate_vma_finalize(args) },
            // SAFETY: Set up by `of_device`, finalized once, as `finished` says; the arrays have
            // `npages` elements.
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

impl Drop for Migration<'_> {
    fn drop(&mut self) {
        self.finalize();
    }
}

/// Puts pages that this CPU has gathered on their LRU lists, from where others can migrate them; a
/// migration that meets one gathered elsewhere interrupts all CPUs (`migrate_device_unmap()`).
pub(crate) fn drain_this_cpu() {
    // A migration of no pages: `lru_add_drain` itself is not exported.
    // SAFETY: Without pages there is no array to be valid.
    let _ = unsafe { sys::migrate_device_range(core::ptr::null_mut(), 0, 0) };
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

    /// Whether the whole of a 2 MiB folio is mapped by one entry at the address.
    pub(crate) fn is_large(&self) -> bool {
        // SAFETY: `vmf` is valid; the kernel sets `pte` for a fault on a single page
        // (`do_swap_page()`), and clears it for one on a large entry
        // (`do_huge_pmd_device_private()`).
        unsafe { (*self.vmf).pte.is_null() }
    }

    /// The mapping touched.
    pub(crate) fn vma(&self) -> &'a VmaRef {
        // SAFETY: `vmf` is valid and its lock held for `'a`.
        unsafe { VmaRef::from_raw((*self.vmf).__bindgen_anon_1.vma) }
    }
}

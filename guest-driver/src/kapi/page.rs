// SPDX-License-Identifier: GPL-2.0

//! Struct pages as migration needs them.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{kapi::node::MemoryNode, sys};
use core::ptr::NonNull;
use kernel::{bindings, mm::virt::VmaRef};

/// Order of a 2 MiB folio, what a page-middle-directory entry maps.
pub(crate) const PMD_ORDER: u32 = 9;
/// Pages of a 2 MiB folio.
pub(crate) const PMD_PAGES: usize = 1 << PMD_ORDER;

/// A struct page that something else keeps alive.
#[derive(Clone, Copy)]
pub(crate) struct PagePtr {
    page: NonNull<bindings::page>,
    // Kept, because a call into C to compute it is what most users of a page would begin with.
    pfn: u64,
}

impl PagePtr {
    /// # Safety
    ///
    /// `page` must be null or point to a struct page that stays valid while the value is used:
    /// struct pages of memory that is not unplugged meanwhile do.
    pub(super) unsafe fn from_raw(page: *mut bindings::page) -> Option<Self> {
        let page = NonNull::new(page)?;
        // SAFETY: The struct page is valid, by the contract.
        let pfn = unsafe { sys::coax_page_to_pfn(page.as_ptr()) } as u64;
        Some(PagePtr { page, pfn })
    }

    /// # Safety
    ///
    /// The page frame must have a struct page that stays valid while the value is used.
    pub(super) unsafe fn from_pfn(pfn: u64) -> Option<Self> {
        // SAFETY: The page frame has a struct page, by the contract.
        let page = NonNull::new(unsafe { sys::coax_pfn_to_page(pfn as usize) })?;
        Some(PagePtr { page, pfn })
    }

    pub(super) fn as_ptr(self) -> *mut bindings::page {
        self.page.as_ptr()
    }

    /// Page frame number.
    pub(crate) fn pfn(self) -> u64 {
        self.pfn
    }

    /// Whether the page is anonymous memory.
    pub(crate) fn is_anon(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_anon(self.as_ptr()) }
    }

    /// Whether the page is anonymous memory that belongs to one place only, which one that stands
    /// for several equal ones (KSM) does not.
    pub(crate) fn is_plain_anon(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_plain_anon(self.as_ptr()) }
    }

    /// Whether the page is being written to swap, which nothing may begin while it is locked.
    pub(crate) fn is_under_writeback(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_under_writeback(self.as_ptr()) }
    }

    /// Whether the page is charged to a memory cgroup, as every page of a process is.
    pub(crate) fn is_charged(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_charged(self.as_ptr()) }
    }

    /// Whether the page is private memory of some device, which no CPU can address.
    pub(crate) fn is_device_private(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_device_private(self.as_ptr()) }
    }

    /// Whether the page is memory of some device that CPUs address too.
    pub(crate) fn is_device_coherent(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_device_coherent(self.as_ptr()) }
    }

    /// Whether the page is the zero page of 4 KiB.
    pub(crate) fn is_small_zero(self) -> bool {
        // SAFETY: Only the frame number is compared.
        unsafe { sys::coax_pfn_is_zero(self.pfn as usize) }
    }

    /// Whether the page is the zero page that stands for memory only read so far.
    pub(crate) fn is_zero(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_zero(self.as_ptr()) }
    }

    /// Records that a device may write the page, so that reclaim does not drop it as clean.
    ///
    /// To be called while the page cannot be unmapped: under the lock that the interval
    /// notifier's callback takes.
    pub(crate) fn mark_written(self) {
        // SAFETY: The struct page is valid, and mapped as the method demands.
        unsafe { sys::coax_mark_written(self.as_ptr()) }
    }
}

/// A folio that is ours alone, locked, with one reference; given back when dropped.
pub(crate) struct LockedFolio {
    head: PagePtr,
    order: u32,
}

impl LockedFolio {
    /// # Safety
    ///
    /// The caller hands over the lock and one reference of the folio of 2^`order` pages that
    /// `head` is the first page of.
    pub(super) unsafe fn from_raw(head: PagePtr, order: u32) -> Self {
        LockedFolio { head, order }
    }

    /// A folio of system memory by the policy of `vma` at `addr`. A large one is not tried hard
    /// for: small ones do as well.
    pub(crate) fn alloc(vma: &VmaRef, addr: usize, order: u32) -> Option<Self> {
        // SAFETY: `vma` is valid and its mmap lock held, by `VmaRef`.
        let page = unsafe { sys::coax_alloc_folio_vma(vma.as_ptr(), addr, order) };
        // SAFETY: The allocator returns null or the first page of a folio with one reference.
        unsafe { Self::lock(page, order) }
    }

    /// A movable folio of system memory by the caller's policy, for which memory is reclaimed.
    pub(crate) fn alloc_any(order: u32) -> Option<Self> {
        // SAFETY: No preconditions; the caller may sleep.
        let page = unsafe { sys::coax_alloc_folio(order) };
        // SAFETY: The allocator returns null or the first page of a folio with one reference.
        unsafe { Self::lock(page, order) }
    }

    /// A movable folio of `node`'s memory, of what is free there.
    pub(crate) fn alloc_on(node: MemoryNode, order: u32) -> Option<Self> {
        // SAFETY: The node is a possible one, by the invariant of its type.
        let page = unsafe { sys::coax_alloc_folio_node(node.number(), order) };
        // SAFETY: The allocator returns null or the first page of a folio with one reference.
        unsafe { Self::lock(page, order) }
    }

    /// # Safety
    ///
    /// `page` is null or the first of a folio of this order, with a reference that the caller
    /// hands over.
    unsafe fn lock(page: *mut bindings::page, order: u32) -> Option<Self> {
        // SAFETY: A page with a reference is valid.
        let head = unsafe { PagePtr::from_raw(page) }?;
        // SAFETY: The page is valid and new, so that the lock is free.
        unsafe { sys::coax_lock_page(head.as_ptr()) };
        // INVARIANT: Locked just now, and the reference is the caller's.
        Some(LockedFolio { head, order })
    }

    /// The first page.
    pub(crate) fn head(&self) -> PagePtr {
        self.head
    }

    /// Pages, as a power of two.
    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    /// Leaves lock and reference to whom the folio is handed.
    pub(super) fn into_head(self) -> PagePtr {
        let head = self.head;
        core::mem::forget(self);
        head
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: The lock and one reference are ours, by the type's contract.
        unsafe { sys::coax_unlock_put_page(self.head.as_ptr()) }
    }
}

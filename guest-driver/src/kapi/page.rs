// SPDX-License-Identifier: GPL-2.0

//! Struct pages as migration needs them.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::sys;
use core::ptr::NonNull;
use kernel::{bindings, mm::virt::VmaRef};

/// A struct page that something else keeps alive.
#[derive(Clone, Copy)]
pub(crate) struct PagePtr(NonNull<bindings::page>);

impl PagePtr {
    /// # Safety
    ///
    /// `page` must point to a struct page that stays valid while the value is used: struct pages
    /// of memory that is not unplugged meanwhile do.
    pub(super) unsafe fn from_raw(page: *mut bindings::page) -> Option<Self> {
        NonNull::new(page).map(Self)
    }

    pub(super) fn as_ptr(self) -> *mut bindings::page {
        self.0.as_ptr()
    }

    /// Page frame number.
    pub(crate) fn pfn(self) -> u64 {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_to_pfn(self.as_ptr()) as u64 }
    }

    /// Whether the page is anonymous memory.
    pub(crate) fn is_anon(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_anon(self.as_ptr()) }
    }

    /// Whether the page stands for several that were equal (KSM).
    pub(crate) fn is_ksm(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_ksm(self.as_ptr()) }
    }

    /// Whether the page is the zero page that stands for memory only read so far.
    pub(crate) fn is_zero(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_page_is_zero(self.as_ptr()) }
    }

    /// Whether the page is memory of some device.
    pub(crate) fn is_zone_device(self) -> bool {
        // SAFETY: The struct page is valid by the type's contract.
        unsafe { sys::coax_is_zone_device(self.as_ptr()) }
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

/// A page that is ours alone, locked, with one reference; given back when dropped.
pub(crate) struct LockedPage(PagePtr);

impl LockedPage {
    /// # Safety
    ///
    /// The caller hands over the lock and one reference of `page`.
    pub(super) unsafe fn from_raw(page: PagePtr) -> Self {
        LockedPage(page)
    }

    /// A page of system memory by the policy of `vma` at `addr`.
    pub(crate) fn alloc(vma: &VmaRef, addr: usize) -> Option<Self> {
        // SAFETY: `vma` is valid and its mmap lock held, by `VmaRef`.
        let page = unsafe { sys::coax_alloc_page_vma(vma.as_ptr(), addr) };
        // SAFETY: The allocator returns null or a page with one reference.
        unsafe { Self::lock(page) }
    }

    /// A movable page of system memory by the caller's policy.
    pub(crate) fn alloc_any() -> Option<Self> {
        // SAFETY: No preconditions; the caller may sleep.
        let page = unsafe { sys::coax_alloc_page() };
        // SAFETY: The allocator returns null or a page with one reference.
        unsafe { Self::lock(page) }
    }

    /// # Safety
    ///
    /// `page` is null or carries a reference that the caller hands over.
    unsafe fn lock(page: *mut bindings::page) -> Option<Self> {
        // SAFETY: A page with a reference is valid.
        let page = unsafe { PagePtr::from_raw(page) }?;
        // SAFETY: The page is valid and new, so that the lock is free.
        unsafe { sys::coax_lock_page(page.as_ptr()) };
        // INVARIANT: Locked just now, and the reference is the caller's.
        Some(LockedPage(page))
    }

    /// The page.
    pub(crate) fn page(&self) -> PagePtr {
        self.0
    }

    /// Leaves lock and reference to whom the page is handed.
    pub(super) fn into_page(self) -> PagePtr {
        let page = self.0;
        core::mem::forget(self);
        page
    }
}

impl Drop for LockedPage {
    fn drop(&mut self) {
        // SAFETY: The lock and one reference are ours, by the type's contract.
        unsafe { sys::coax_unlock_put_page(self.0.as_ptr()) }
    }
}

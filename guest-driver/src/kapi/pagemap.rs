// SPDX-License-Identifier: GPL-2.0

//! Struct pages for device memory (`ZONE_DEVICE`).
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    kapi::{
        frames::Frames,
        migrate::Fault,
        page::{LockedFolio, PagePtr},
        region::Region,
        virtio::ShmRegion,
    },
    sys,
};
use kernel::{
    bindings, container_of, error::from_err_ptr, ffi::c_uint, prelude::*, str::CStr, types::Opaque,
};

/// What happens to the pages.
pub(crate) trait PagemapOps: Send + Sync + Sized {
    /// The last reference of the folio of `count` pages from `index` on is gone. May be called
    /// with spinlocks held.
    fn folio_free(&self, index: usize, count: usize);

    /// A CPU touched the private page in `fault`: bring it back.
    fn migrate_to_ram(map: &Pagemap<Self>, fault: &Fault<'_>) -> Result<(), FaultError>;
}

/// How a CPU fault ends that could not be resolved.
pub(crate) enum FaultError {
    /// No memory: the kernel's out-of-memory handling decides.
    NoMemory,
    /// The data cannot be had: the process gets `SIGBUS`.
    Lost,
}

/// Device memory with struct pages; they go, after all of them are free, when this is dropped.
#[pin_data(PinnedDrop)]
pub(crate) struct Pagemap<T: PagemapOps> {
    #[pin]
    raw: Opaque<bindings::dev_pagemap>,
    frames: Frames,
    // Dropped after the struct pages are gone.
    _region: Region,
    #[pin]
    data: T,
}

// SAFETY: The mapping may be used and removed from any thread; `T` is `Send`.
unsafe impl<T: PagemapOps> Send for Pagemap<T> {}
// SAFETY: Page initialisation is for pages that the caller alone has; `T` is `Sync`.
unsafe impl<T: PagemapOps> Sync for Pagemap<T> {}

impl<T: PagemapOps> Pagemap<T> {
    const OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
        folio_free: Some(Self::folio_free),
        migrate_to_ram: Some(Self::migrate_to_ram),
        memory_failure: None,
        // What the kernel does by default, pagemap and mapping for each part, is all there is.
        folio_split: None,
    };

    /// Struct pages for `memory` at addresses that CPUs cannot use: a CPU access faults
    /// (`MEMORY_DEVICE_PRIVATE`).
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ERANGE`: no room for it.
    pub(crate) fn private(
        memory: ShmRegion,
        name: &'static CStr,
        data: impl PinInit<T>,
    ) -> Result<impl PinInit<Self, Error>> {
        let region = Region::of_nothing(memory.len(), name)?;
        let frames = Frames::apart(region.start(), memory)?;
        let memory_type = bindings::memory_type_MEMORY_DEVICE_PRIVATE;
        Ok(Self::new(memory_type, region, frames, data))
    }

    /// Struct pages for `memory` at its own physical address (`MEMORY_DEVICE_COHERENT`).
    ///
    /// # Errors
    ///
    /// `EBUSY`: the physical range is taken. `ENOMEM`, `ERANGE`: no room for it.
    pub(crate) fn coherent(
        memory: ShmRegion,
        name: &'static CStr,
        data: impl PinInit<T>,
    ) -> Result<impl PinInit<Self, Error>> {
        let region = Region::of(&memory, name)?;
        let memory_type = bindings::memory_type_MEMORY_DEVICE_COHERENT;
        Ok(Self::new(
            memory_type,
            region,
            Frames::in_place(memory),
            data,
        ))
    }

    /// Struct pages for `frames`, whose addresses are those of `region`.
    fn new(
        memory_type: bindings::memory_type,
        region: Region,
        frames: Frames,
        data: impl PinInit<T>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            frames,
            _region: region,
            data <- data,
            // The last field, so that the others are there when the first struct page is.
            raw <- Opaque::try_ffi_init(|slot: *mut bindings::dev_pagemap| {
                let start = frames.first_pfn() * 4096;
                let range = bindings::range {
                    start,
                    end: start + frames.memory().len() - 1,
                };
                // SAFETY: `slot` is valid for a write; all-zero is a valid `dev_pagemap`. The fields are
                // what `memremap_pages` asks for, and the operations are constant.
                unsafe {
                    core::ptr::write_bytes(slot, 0, 1);
                    (*slot).type_ = memory_type;
                    (*slot).ops = &Self::OPS;
                    (*slot).owner = frames.owner();
                    (*slot).nr_range = 1;
                    *(*slot).__bindgen_anon_1.range.as_mut() = range;
                }
                // SAFETY: `slot` is filled in, and is pinned until `drop` unmaps it.
                let mapped = unsafe { bindings::memremap_pages(slot, bindings::NUMA_NO_NODE) };
                from_err_ptr(mapped).map(|_| ())
            }),
        }? Error)
    }

    /// The data.
    pub(crate) fn data(&self) -> &T {
        &self.data
    }

    /// Which pages there are.
    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Readies the 2^`order` pages from `index` on, which must be free and aligned to their number,
    /// for use: one folio, locked, with one reference.
    pub(crate) fn init_folio(&self, index: usize, order: u32) -> Option<LockedFolio> {
        let count = 1usize << order;
        if index % count != 0 || index + count > self.frames.pages() {
            return None;
        }
        // SAFETY: The page frame is in the mapping, which has struct pages and waits for the
        // reference that is made below.
        let head = unsafe { PagePtr::from_pfn(self.frames.first_pfn() + index as u64) }?;
        // SAFETY: The pages belong to the mapping and are free, as documented.
        unsafe { sys::coax_device_folio_init(head.as_ptr(), self.raw.get(), order) };
        // SAFETY: `zone_device_folio_init` leaves the folio locked and with one reference.
        Some(unsafe { LockedFolio::from_raw(head, order) })
    }

    /// # Safety
    ///
    /// `raw` is the `dev_pagemap` of a `Self` that is alive.
    unsafe fn from_raw<'a>(raw: *mut bindings::dev_pagemap) -> &'a Self {
        let raw: *mut Opaque<bindings::dev_pagemap> = raw.cast();
        // SAFETY: By the contract.
        unsafe { &*container_of!(raw, Self, raw) }
    }

    unsafe extern "C" fn folio_free(folio: *mut bindings::folio) {
        // SAFETY: The kernel calls with a folio of a mapping that has these operations; the
        // mapping waits in `drop` until all pages are free.
        let this = unsafe { Self::from_raw(sys::coax_folio_pgmap(folio)) };
        // SAFETY: `folio` is valid during the call.
        let pfn = unsafe { sys::coax_folio_pfn(folio) } as u64;
        // SAFETY: As above.
        let count = unsafe { sys::coax_folio_nr_pages(folio) } as usize;
        // SAFETY: As above; nobody refers to the folio any more.
        unsafe { sys::coax_device_folio_freed(folio) };
        let index = (pfn - this.frames.first_pfn()) as usize;
        this.data.folio_free(index, count);
    }

    unsafe extern "C" fn migrate_to_ram(vmf: *mut bindings::vm_fault) -> c_uint {
        // SAFETY: The kernel calls with a fault on a page of a mapping that has these operations,
        // and holds a reference of the page, so that the mapping is alive.
        let this = unsafe { Self::from_raw(sys::coax_page_pgmap((*vmf).page)) };
        // SAFETY: `vmf` is valid during the call and its mmap or VMA lock is held.
        let fault = unsafe { Fault::from_raw(vmf) };
        match T::migrate_to_ram(this, &fault) {
            Ok(()) => 0,
            Err(FaultError::NoMemory) => bindings::vm_fault_reason_VM_FAULT_OOM,
            Err(FaultError::Lost) => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}

#[pinned_drop]
impl<T: PagemapOps> PinnedDrop for Pagemap<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Mapped by `new`; waits until all pages are free.
        unsafe { bindings::memunmap_pages(self.raw.get()) };
    }
}

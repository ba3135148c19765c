// SPDX-License-Identifier: GPL-2.0

//! Device memory with struct pages, and which pages are its own.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    kapi::{
        migrate::Fault,
        page::{LockedFolio, PagePtr},
        virtio::ShmRegion,
    },
    sys,
};
use core::ptr::NonNull;
use kernel::{
    bindings, container_of,
    error::from_err_ptr,
    ffi::{c_uint, c_void},
    prelude::*,
    str::CStr,
    types::Opaque,
};

/// Where the struct pages of device memory are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `MEMORY_DEVICE_PRIVATE`: at addresses that the CPU cannot use; a CPU access faults.
    Private,
    /// `MEMORY_DEVICE_COHERENT`: at the memory's own physical address.
    Coherent,
    /// Ordinary memory of a node ([`NodeMemory`](super::node_memory::NodeMemory)), whose struct pages
    /// come and go with that; at the memory's own physical address.
    Node,
}

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

/// Device memory; unmapped, after all pages are free, when dropped.
#[pin_data(PinnedDrop)]
pub(crate) struct Pagemap<T: PagemapOps> {
    #[pin]
    raw: Opaque<bindings::dev_pagemap>,
    // None where the struct pages are not ours.
    region: Option<NonNull<bindings::resource>>,
    kind: Kind,
    first_pfn: u64,
    memory: ShmRegion,
    // Where CPUs find what is not in the direct map.
    window: Option<Window>,
    #[pin]
    data: T,
}

/// Private device memory as the kernel itself can access it, mapped from the beginning, so that the loss
/// of the device finds it mapped.
struct Window(NonNull<u8>);

impl Window {
    /// # Errors
    ///
    /// `ENOMEM`: no memory for page tables.
    fn new(memory: &ShmRegion, bytes: u64) -> Result<Self> {
        // SAFETY: The range is the device's memory, which nothing maps with other attributes.
        let mapped = unsafe { sys::coax_map_bar(memory.start(), bytes) };
        Ok(Window(NonNull::new(mapped.cast()).ok_or(ENOMEM)?))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: Mapped by `new`; copies borrow the mapping's owner.
        unsafe { sys::coax_unmap_bar(self.0.as_ptr().cast()) };
    }
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

    /// Makes struct pages for the whole pages of `memory`.
    ///
    /// # Errors
    ///
    /// `EBUSY`: the physical range is taken. `ENOMEM`, `ERANGE`: no room for it.
    pub(crate) fn new(
        kind: Kind,
        memory: ShmRegion,
        name: &'static CStr,
        data: impl PinInit<T>,
    ) -> Result<Pin<KBox<Self>>> {
        let bytes = memory.len() & !4095;
        let name = name.as_ptr().cast();
        let (region, zone_type) = match kind {
            Kind::Private => {
                // SAFETY: `name` lives for ever.
                let region = unsafe { sys::coax_request_free_region(bytes as usize, name) };
                let region = from_err_ptr(region)?;
                (region, bindings::memory_type_MEMORY_DEVICE_PRIVATE)
            }
            Kind::Coherent => {
                // SAFETY: As above.
                let region = unsafe { sys::coax_request_region(memory.start(), bytes, name) };
                (region, bindings::memory_type_MEMORY_DEVICE_COHERENT)
            }
            Kind::Node => return Self::unmapped(memory, data),
        };
        let region = NonNull::new(region).ok_or(EBUSY)?;
        let window = match kind {
            Kind::Private => Window::new(&memory, bytes).map(Some),
            _ => Ok(None),
        };
        let window = match window {
            Ok(window) => window,
            Err(error) => {
                // SAFETY: The region was taken above.
                unsafe { sys::coax_release_region(region.as_ptr()) };
                return Err(error);
            }
        };
        // SAFETY: The resource is ours until it is released.
        let start = unsafe { region.as_ref().start };
        let map = KBox::pin_init(
            pin_init!(Self {
                raw <- Opaque::ffi_init(|slot: *mut bindings::dev_pagemap| {
                    // SAFETY: `slot` is valid for a write; all-zero is a valid `dev_pagemap`.
                    unsafe { core::ptr::write_bytes(slot, 0, 1) }
                }),
                region: Some(region),
                kind,
                first_pfn: start / 4096,
                memory,
                window,
                data <- data,
            }),
            GFP_KERNEL,
        );
        let map = match map {
            Ok(map) => map,
            Err(error) => {
                // SAFETY: The region was taken above.
                unsafe { sys::coax_release_region(region.as_ptr()) };
                return Err(error);
            }
        };
        let raw = map.raw.get();
        // SAFETY: Nobody else knows `raw` yet. The fields are what `memremap_pages` asks for; the
        // operations are constant.
        unsafe {
            (*raw).type_ = zone_type;
            (*raw).ops = &Self::OPS;
            (*raw).owner = raw.cast();
            (*raw).nr_range = 1;
            *(*raw).__bindgen_anon_1.range.as_mut() = bindings::range {
                start,
                end: start + bytes - 1,
            };
        }
        // SAFETY: `raw` is filled in and pinned.
        let mapped = from_err_ptr(unsafe { bindings::memremap_pages(raw, bindings::NUMA_NO_NODE) });
        if let Err(error) = mapped {
            // SAFETY: The region was taken above. The object must not unmap what is not mapped.
            unsafe { sys::coax_release_region(region.as_ptr()) };
            // SAFETY: Nothing else refers to the object; it is freed without its destructor,
            // which is for a mapping that exists.
            let leaked = unsafe { KBox::into_raw(Pin::into_inner_unchecked(map)) };
            // SAFETY: Both are initialised and not used again.
            unsafe {
                core::ptr::drop_in_place(&raw mut (*leaked).data);
                core::ptr::drop_in_place(&raw mut (*leaked).window);
            }
            // SAFETY: `MaybeUninit` has the layout of the object and no destructor.
            drop(unsafe { KBox::<core::mem::MaybeUninit<Self>>::from_raw(leaked.cast()) });
            return Err(error);
        }
        Ok(map)
    }

    /// The map of memory whose struct pages something else makes.
    fn unmapped(memory: ShmRegion, data: impl PinInit<T>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                raw <- Opaque::ffi_init(|slot: *mut bindings::dev_pagemap| {
                    // SAFETY: `slot` is valid for a write; all-zero is a valid `dev_pagemap`.
                    unsafe { core::ptr::write_bytes(slot, 0, 1) }
                }),
                region: None,
                kind: Kind::Node,
                first_pfn: memory.start() / 4096,
                memory,
                window: None,
                data <- data,
            }),
            GFP_KERNEL,
        )
    }

    /// The data.
    pub(crate) fn data(&self) -> &T {
        &self.data
    }

    /// Whether folios of 2 MiB may be made of the pages. Of coherent ones not: page tables that map a
    /// large coherent folio are taken for system memory by `migrate_vma_collect_huge_pmd()`, and
    /// `migrate_device_coherent_folio()`, with which a long-term pin moves a page out, warns of one
    /// (`mm/migrate_device.c`).
    pub(crate) fn has_large_folios(&self) -> bool {
        self.kind != Kind::Coherent
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        (self.memory.len() / 4096) as usize
    }

    /// Page frame number of page 0.
    pub(crate) fn first_pfn(&self) -> u64 {
        self.first_pfn
    }

    /// The owner that `migrate` and `hmm` calls know these pages by.
    pub(crate) fn owner(&self) -> *mut c_void {
        self.raw.get().cast()
    }

    /// Index of `page` if it is one of these.
    pub(crate) fn index_of(&self, page: PagePtr) -> Option<usize> {
        let index = page.pfn().checked_sub(self.first_pfn)? as usize;
        (index < self.pages()).then_some(index)
    }

    /// Physical address of the memory behind page `index`.
    pub(crate) fn address_at(&self, index: usize) -> u64 {
        self.memory.start() + index as u64 * 4096
    }

    /// Physical address of the memory behind `page`, which for a private page is not that of its
    /// frame number.
    pub(crate) fn address_of(&self, page: PagePtr) -> u64 {
        match self.index_of(page) {
            Some(index) => self.address_at(index),
            None => page.pfn() * 4096,
        }
    }

    /// Copies `bytes` from physical address `from` to `to`, or clears them, with the CPU; either may be in
    /// this memory or in the system's.
    ///
    /// # Safety
    ///
    /// Each range lies in this memory or in system memory as a whole; nobody else uses them.
    pub(super) unsafe fn copy_by_cpu(&self, to: u64, from: Option<u64>, bytes: u64) {
        let to = self.virt(to);
        match from {
            // SAFETY: Both ranges are mapped, by the contract for so many bytes, and the caller's alone.
            Some(from) => unsafe { to.copy_from_nonoverlapping(self.virt(from), bytes as usize) },
            // SAFETY: As above.
            None => unsafe { to.write_bytes(0, bytes as usize) },
        }
    }

    /// Where the kernel accesses physical address `addr`, of this memory or of the system's.
    fn virt(&self, addr: u64) -> *mut u8 {
        let offset = addr.wrapping_sub(self.memory.start());
        match &self.window {
            Some(window) if offset < self.memory.len() => {
                window.0.as_ptr().wrapping_add(offset as usize)
            }
            // SAFETY: An address is computed; the direct map has system memory and coherent memory.
            _ => unsafe { sys::coax_phys_to_virt(addr) }.cast(),
        }
    }

    /// Readies the 2^`order` pages from `index` on, which must be free and aligned to their number,
    /// for use: one folio, locked, with one reference.
    pub(crate) fn init_folio(&self, index: usize, order: u32) -> Option<LockedFolio> {
        let count = 1usize << order;
        if self.kind == Kind::Node {
            return None;
        }
        if index % count != 0 || index + count > self.pages() {
            return None;
        }
        // SAFETY: The page frame is in the mapping, which has struct pages and waits for the
        // reference that is made below.
        let head = unsafe { PagePtr::from_pfn(self.first_pfn + index as u64) }?;
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
        this.data.folio_free((pfn - this.first_pfn) as usize, count);
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
        let Some(region) = self.region else { return };
        // SAFETY: Mapped by `new`; waits until all pages are free.
        unsafe { bindings::memunmap_pages(self.raw.get()) };
        // SAFETY: Taken by `new`.
        unsafe { sys::coax_release_region(region.as_ptr()) };
    }
}

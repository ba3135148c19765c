// SPDX-License-Identifier: GPL-2.0

//! The page frames of a device's memory, and the memory behind them.
//!
//! C headers: [`include/linux/pfn.h`](srctree/include/linux/pfn.h), [`include/linux/io.h`](srctree/include/linux/io.h)

use crate::{
    kapi::{page::PagePtr, virtio::ShmRegion},
    sys,
};
use core::ptr::NonNull;
use kernel::{ffi::c_void, prelude::*};

/// Which frames are a device's, one for each page of its memory.
pub(crate) struct Frames {
    first_pfn: u64,
    memory: ShmRegion,
    // Where CPUs find what is not in the direct map.
    window: Option<Window>,
}

/// Device memory as the kernel itself can access it.
struct Window(NonNull<u8>);

// SAFETY: The mapping may be used and removed from any thread.
unsafe impl Send for Window {}
// SAFETY: It is only computed with through a shared reference.
unsafe impl Sync for Window {}

impl Window {
    /// # Errors
    ///
    /// `ENOMEM`: no memory for page tables.
    fn new(memory: &ShmRegion) -> Result<Self> {
        // SAFETY: The range is the device's memory, which nothing maps with other attributes.
        let mapped = unsafe { sys::coax_map_bar(memory.start(), memory.len()) };
        Ok(Window(NonNull::new(mapped.cast()).ok_or(ENOMEM)?))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: Mapped by `new`; copies borrow the mapping's owner.
        unsafe { sys::coax_unmap_bar(self.0.as_ptr().cast()) };
    }
}

impl Frames {
    /// Frames at the physical address of `memory`, which is in the direct map as long as they have struct
    /// pages.
    pub(crate) fn in_place(memory: ShmRegion) -> Self {
        Frames {
            first_pfn: memory.start() / 4096,
            memory,
            window: None,
        }
    }

    /// Frames from address `start` on, where no memory is. What is behind them is mapped for the kernel from
    /// the beginning, so that the loss of the device finds it mapped.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory for page tables.
    pub(crate) fn apart(start: u64, memory: ShmRegion) -> Result<Self> {
        Ok(Frames {
            first_pfn: start / 4096,
            window: Some(Window::new(&memory)?),
            memory,
        })
    }

    /// The memory behind them.
    pub(crate) fn memory(&self) -> &ShmRegion {
        &self.memory
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        (self.memory.len() / 4096) as usize
    }

    /// Page frame number of page 0.
    pub(crate) fn first_pfn(&self) -> u64 {
        self.first_pfn
    }

    /// The owner that `migrate` and `hmm` calls know these pages by, while the object stays where it is.
    pub(super) fn owner(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Index of `page` if it is one of these.
    pub(crate) fn index_of(&self, page: PagePtr) -> Option<usize> {
        let index = page.pfn().checked_sub(self.first_pfn)? as usize;
        (index < self.pages()).then_some(index)
    }

    /// Whether `page` is one of these.
    pub(crate) fn has(&self, page: PagePtr) -> bool {
        self.index_of(page).is_some()
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
            // SAFETY: An address is computed; the direct map has all memory without a window.
            _ => unsafe { sys::coax_phys_to_virt(addr) }.cast(),
        }
    }
}

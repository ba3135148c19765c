// SPDX-License-Identifier: GPL-2.0

//! PCI functions that have no driver of their own, used by that of another function in the same slot.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)
//!
//! When such a function is about to go, the device that uses it is taken from its driver ([`Watch`]), which is the
//! end of the [`MemoryFunction`].

use crate::{
    kapi::virtio::{ShmRegion, VirtioDevice},
    sys,
};
use core::ptr::NonNull;
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
};

/// Looks for functions that are about to go, until it is dropped; as long as there is a [`MemoryFunction`].
pub(crate) struct Watch(());

impl Watch {
    /// One for the module.
    ///
    /// # Errors
    ///
    /// What the driver core says.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The notifier is static, and this is called once, by the module's start.
        to_result(unsafe { sys::coax_pci_watch() })?;
        Ok(Self(()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: `new` has registered it.
        unsafe { sys::coax_pci_unwatch() };
    }
}

/// A function that answers memory accesses, as long as its user has its driver.
pub(crate) struct MemoryFunction(NonNull<sys::coax_pci_memory>);

// SAFETY: It may be given back from any thread.
unsafe impl Send for MemoryFunction {}

impl MemoryFunction {
    /// The function of this vendor and device number in the slot of `vdev`, and the memory that its `bar` is;
    /// the first of several, `None` if there is none.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the memory has no addresses. `ENOMEM`. Whatever the PCI core says.
    pub(crate) fn beside(
        vdev: &VirtioDevice,
        (vendor, device): (u16, u16),
        bar: u8,
    ) -> Result<Option<(Self, ShmRegion)>> {
        let (mut start, mut len) = (0, 0);
        // SAFETY:
        // - `vdev` is a device, whose parent outlives it, and which stays as long as its driver has it.
        // - `start` and `len` are valid for writes.
        let found = from_err_ptr(unsafe {
            sys::coax_pci_memory_beside(
                vdev.raw(),
                vendor,
                device,
                bar.into(),
                &mut start,
                &mut len,
            )
        })?;
        let found = NonNull::new(found).map(Self);
        Ok(found.map(|function| (function, ShmRegion::at(start, len))))
    }
}

impl Drop for MemoryFunction {
    fn drop(&mut self) {
        // SAFETY: `beside` took it, and it is given back once.
        unsafe { sys::coax_pci_memory_put(self.0.as_ptr()) };
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Shared virtual addressing: a device works on a process's addresses by its PASID.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use crate::{kapi::mm, sys};
use core::ptr::NonNull;
use kernel::{device::Device, error::from_err_ptr, prelude::*, sync::aref::ARef};

/// The caller's memory bound to a device. Dropped when the device uses the PASID no more and waits for no page
/// of it; that sleeps.
pub(crate) struct Binding {
    handle: NonNull<sys::coax_sva>,
    pasid: u32,
    // Until it is unbound.
    _device: ARef<Device>,
}

// SAFETY: A handle may be given back from any thread.
unsafe impl Send for Binding {}
// SAFETY: All that is shared is a number.
unsafe impl Sync for Binding {}

impl Binding {
    /// Binds the caller's memory.
    ///
    /// # Errors
    ///
    /// `ESRCH`: the caller has none. `ENODEV`, `EINVAL`, `ENOSPC`, `EOPNOTSUPP`: the device has no IOMMU that can do
    /// that, or not for this device, or not on this CPU. `ENOMEM`.
    pub(crate) fn of_caller(device: &Device) -> Result<Self> {
        let _mm = mm::current().ok_or(ESRCH)?;
        // SAFETY:
        // - `device` is a device, of whose type `Device` is a transparent wrapper, and stays as long as the binding.
        // - The caller has memory, which is checked above.
        let handle = from_err_ptr(unsafe {
            sys::coax_sva_bind_current(core::ptr::from_ref(device).cast_mut().cast())
        })?;
        let handle = NonNull::new(handle).ok_or(ENODEV)?;
        // SAFETY: It was bound just now.
        let pasid = unsafe { sys::coax_sva_pasid(handle.as_ptr()) };
        Ok(Self {
            handle,
            pasid,
            _device: device.into(),
        })
    }

    /// Process address space identifier.
    pub(crate) fn pasid(&self) -> u32 {
        self.pasid
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: `of_caller` has bound it, and it is unbound once.
        unsafe { sys::coax_sva_unbind(self.handle.as_ptr()) };
    }
}

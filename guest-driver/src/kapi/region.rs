// SPDX-License-Identifier: GPL-2.0

//! Ranges of physical addresses that are taken.
//!
//! C header: [`include/linux/ioport.h`](srctree/include/linux/ioport.h)

use crate::{kapi::virtio::ShmRegion, sys};
use core::ptr::NonNull;
use kernel::{bindings, error::from_err_ptr, prelude::*, str::CStr};

/// A taken range; given back when dropped.
pub(crate) struct Region(NonNull<bindings::resource>);

// SAFETY: The resource is this object's alone, and may be released from any thread.
unsafe impl Send for Region {}
// SAFETY: Through a shared reference it is only read.
unsafe impl Sync for Region {}

impl Region {
    /// `bytes` bytes of addresses where nothing is, for pages that CPUs cannot use.
    ///
    /// # Errors
    ///
    /// `ERANGE`, `ENOMEM`: no room for it.
    pub(crate) fn of_nothing(bytes: u64, name: &'static CStr) -> Result<Self> {
        // SAFETY: `name` lives for ever.
        let taken = unsafe { sys::coax_request_free_region(bytes as usize, name.as_ptr().cast()) };
        Ok(Region(NonNull::new(from_err_ptr(taken)?).ok_or(EBUSY)?))
    }

    /// Where `memory` is.
    ///
    /// # Errors
    ///
    /// `EBUSY`: somebody else has taken it, or part of it.
    pub(crate) fn of(memory: &ShmRegion, name: &'static CStr) -> Result<Self> {
        let (start, bytes) = (memory.start(), memory.len());
        // SAFETY: `name` lives for ever.
        let taken = unsafe { sys::coax_request_region(start, bytes, name.as_ptr().cast()) };
        Ok(Region(NonNull::new(taken).ok_or(EBUSY)?))
    }

    /// The first address.
    pub(crate) fn start(&self) -> u64 {
        // SAFETY: The resource stays until it is released by `drop`.
        unsafe { self.0.as_ref() }.start
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: It was taken by a constructor, and is released once.
        unsafe { sys::coax_release_region(self.0.as_ptr()) };
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Pages that only a device may access.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)

use crate::{
    kapi::{
        mm::ReadGuard,
        page::{LockedFolio, PagePtr},
    },
    sys,
};
use kernel::{bindings, error::from_err_ptr, mm::MmWithUser, prelude::*};

/// A page of system memory that no CPU accesses: whoever touches it waits for the lock held here and
/// then for the interval notifiers, after which it is an ordinary page again.
pub(crate) struct Exclusive {
    page: PagePtr,
    // Keeps CPUs out until the page is known to the device.
    _folio: LockedFolio,
}

impl Exclusive {
    /// Takes the page at `addr`, which can be written as things stand, from the CPUs. The notifiers of `mm` are
    /// told, with `owner`, who is to leave the event alone
    /// ([`crate::kapi::notifier::Invalidation::is_exclusive_for`]). None where the kernel does not do
    /// this: pages of files and of hugetlb.
    ///
    /// # Errors
    ///
    /// `EFAULT`: no such page, or no right to write it. `EINTR`, `ENOMEM`.
    pub(crate) fn make<T>(
        mm: &MmWithUser,
        _mmap: &ReadGuard<'_>,
        addr: u64,
        owner: *const T,
    ) -> Result<Option<Self>> {
        // SAFETY: `mm` has users and its mmap lock is held; the owner is only compared.
        let made = from_err_ptr(unsafe {
            sys::coax_make_exclusive(mm.as_raw(), addr as usize, owner.cast_mut().cast())
        });
        let page = match made {
            Err(error) if error.to_errno() == -(bindings::EOPNOTSUPP as i32) => return Ok(None),
            made => made?,
        };
        // SAFETY: The page has the reference that came with it.
        let page = unsafe { PagePtr::from_raw(page) }.ok_or(EFAULT)?;
        // SAFETY: Lock and reference of the page's folio come with the page; dropping them by the page
        // reaches the folio.
        let folio = unsafe { LockedFolio::from_raw(page, 0) };
        Ok(Some(Exclusive {
            page,
            _folio: folio,
        }))
    }

    /// The page.
    pub(crate) fn page(&self) -> PagePtr {
        self.page
    }
}

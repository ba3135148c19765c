// SPDX-License-Identifier: GPL-2.0

//! Address spaces of processes.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::sys;
use core::{ffi::c_void, ptr::NonNull};
use kernel::{
    bindings,
    error::to_result,
    mm::{virt::VmaRef, Mm, MmWithUser, MmWithUserAsync},
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe,
};

/// The address space in use, so that it stays. Whoever gives it up last leaves its end to a worker of the
/// kernel's: it may take long, and may need what the caller does.
pub(crate) type InUse = ARef<MmWithUserAsync>;

/// Keeps `mm` in use; `None` if it is gone.
pub(crate) fn get(mm: &Mm) -> Option<InUse> {
    mm.mmget_not_zero().map(MmWithUser::into_mmput_async)
}

/// The mmap lock of an address space, held for reading.
pub(crate) struct ReadGuard<'a> {
    mm: &'a MmWithUser,
    _nts: NotThreadSafe,
}

impl<'a> ReadGuard<'a> {
    /// Takes the lock.
    pub(crate) fn lock(mm: &'a MmWithUser) -> Self {
        // SAFETY: `mm` is valid since it is a reference.
        unsafe { bindings::mmap_read_lock(mm.as_raw()) };
        ReadGuard {
            mm,
            _nts: NotThreadSafe,
        }
    }

    /// Takes the lock, unless the caller is killed first.
    ///
    /// # Errors
    ///
    /// `EINTR`: it was.
    pub(crate) fn lock_killable(mm: &'a MmWithUser) -> Result<Self> {
        // SAFETY: `mm` is valid since it is a reference.
        to_result(unsafe { sys::coax_mmap_read_lock_killable(mm.as_raw()) })?;
        Ok(ReadGuard {
            mm,
            _nts: NotThreadSafe,
        })
    }

    /// The mapping at `addr`.
    pub(crate) fn vma_lookup(&self, addr: usize) -> Option<&VmaRef> {
        self.find_vma(addr).filter(|vma| vma.start() <= addr)
    }

    /// The first mapping that ends after `addr`.
    pub(crate) fn find_vma(&self, addr: usize) -> Option<&VmaRef> {
        // SAFETY: `mm` is valid and locked for reading.
        let vma = unsafe { sys::coax_find_vma(self.mm.as_raw(), addr) };
        // SAFETY: A mapping stays valid while the lock is held, which the result does not outlive.
        (!vma.is_null()).then(|| unsafe { VmaRef::from_raw(vma) })
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: The lock is held, by the type, and was taken by this thread, since the type is not sent.
        unsafe { bindings::mmap_read_unlock(self.mm.as_raw()) };
    }
}

/// Faults in the page at `addr` of `vma`, as a CPU's access would, but waits for nobody: neither for a
/// device to read it nor for a program that resolves faults (userfaultfd). It may take more than one call
/// until the page may be used.
///
/// # Errors
///
/// `EAGAIN`: somebody would have to be waited for ([`fault_in_waiting`]). `EFAULT`: no such page, or no such
/// right. `ENOMEM`.
pub(crate) fn fault_in(vma: &VmaRef, addr: usize, write: bool) -> Result {
    let mut unlocked = false;
    // SAFETY: `vma` is valid and its mmap lock held, by `VmaRef`; without waiting that stays so.
    to_result(unsafe { sys::coax_fault_in(vma.as_ptr(), addr, write, false, &mut unlocked) })
}

/// As [`fault_in`], but waits, without the mmap lock, for whoever has to be waited for. A [`Thread`] that is
/// told to end does not wait on.
///
/// [`Thread`]: crate::kapi::thread::Thread
///
/// # Errors
///
/// `EAGAIN`: somebody was waited for; to be called again. `EFAULT`, `ENOMEM`.
pub(crate) fn fault_in_waiting(mm: &MmWithUser, addr: usize, write: bool) -> Result {
    let guard = ReadGuard::lock(mm);
    let vma = guard.vma_lookup(addr).ok_or(EFAULT)?.as_ptr();
    let mut unlocked = false;
    // SAFETY: `vma` is valid and its mmap lock held.
    let result = to_result(unsafe { sys::coax_fault_in(vma, addr, write, true, &mut unlocked) });
    if unlocked {
        // The lock was given up by the call.
        core::mem::forget(guard);
    }
    result
}

/// Has memory of an address space charged to its memory cgroup while this thread works for it, page tables
/// and pages of files too.
pub(crate) struct Charged {
    before: *mut c_void,
    // The kernel keeps it with the thread.
    _nts: NotThreadSafe,
}

/// Begins to charge what the calling thread allocates to `mm`.
pub(crate) fn charge_to(mm: &MmWithUser) -> Charged {
    Charged {
        // SAFETY: `mm` is valid; `Charged` ends what begins here, with the cgroup's reference.
        before: unsafe { sys::coax_charge_to(mm.as_raw()) },
        _nts: NotThreadSafe,
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        // SAFETY: On the thread that began it, since the type is not sent; what was before is restored.
        unsafe { sys::coax_charge_end(self.before) }
    }
}

/// The calling task's address space; `None` in a kernel thread.
pub(crate) fn current() -> Option<ARef<Mm>> {
    // SAFETY: No preconditions.
    let mm = unsafe { sys::coax_current_mm() };
    // SAFETY: A task's own `mm` is valid while it runs here; `ARef::from` takes a reference.
    NonNull::new(mm).map(|mm| ARef::from(unsafe { Mm::from_raw(mm.as_ptr()) }))
}

/// Whether the calling task runs in `mm`.
pub(crate) fn is_current(mm: &Mm) -> bool {
    // SAFETY: The pointer is only compared.
    unsafe { sys::coax_mm_is_current(mm.as_raw()) }
}

/// The address space of the process `pid` in the caller's namespace.
///
/// # Errors
///
/// `ESRCH`: no such process, or it has no address space any more.
pub(crate) fn of_pid(pid: i32) -> Result<InUse> {
    // SAFETY: No preconditions.
    let mm = NonNull::new(unsafe { sys::coax_get_mm_of_pid(pid) }).ok_or(ESRCH)?;
    // SAFETY: `get_task_mm` returned `mm` with a user's reference, which the `ARef` takes over;
    // `MmWithUser` is a transparent wrapper of `mm_struct`.
    let mm = unsafe { ARef::<MmWithUser>::from_raw(mm.cast()) };
    Ok(MmWithUser::into_mmput_async(mm))
}

/// First address that does not belong to user space.
pub(crate) fn task_size(mm: &Mm) -> u64 {
    // SAFETY: `mm` is valid; the field does not change after exec.
    unsafe { sys::coax_task_size(mm.as_raw()) as u64 }
}

/// Whether `vma` maps anonymous memory.
pub(crate) fn is_anonymous(vma: &VmaRef) -> bool {
    // SAFETY: `vma` is valid and its mmap lock held, by `VmaRef`.
    unsafe { sys::coax_vma_is_anonymous(vma.as_ptr()) }
}

/// Whether a table of small pages hangs at `addr` in `vma`, rather than one entry for 2 MiB or nothing;
/// that may change at any time.
pub(crate) fn has_page_table(vma: &VmaRef, addr: usize) -> bool {
    // SAFETY: `vma` is valid, and while its mmap lock is held, by `VmaRef`, the tables above the last
    // level stay.
    unsafe { sys::coax_vma_has_page_table(vma.as_ptr(), addr) }
}

/// The first address of `addr` … `end` around which page-table entries may be: what lies before it was
/// never touched, or is not there any more.
pub(crate) fn next_mapped(vma: &VmaRef, addr: usize, end: usize) -> usize {
    let end = end.min(vma.end());
    // SAFETY: `vma` is valid, and while its mmap lock is held, by `VmaRef`, the tables above the last
    // level stay.
    unsafe { sys::coax_vma_next_mapped(vma.as_ptr(), addr, end) }
}

/// Whether a program resolves faults in `vma` (userfaultfd).
pub(crate) fn is_watched(vma: &VmaRef) -> bool {
    // SAFETY: `vma` is valid and its mmap lock held, by `VmaRef`.
    unsafe { sys::coax_vma_is_watched(vma.as_ptr()) }
}

/// Whether `vma` can hold anonymous pages that migrate: it maps anonymous memory, or a file that is
/// copied when written.
pub(crate) fn may_migrate(vma: &VmaRef) -> bool {
    // SAFETY: `vma` is valid and its mmap lock held, by `VmaRef`.
    unsafe { sys::coax_vma_has_anon(vma.as_ptr()) }
}

/// Pages of system memory.
pub(crate) fn total_pages() -> u64 {
    // SAFETY: No preconditions.
    unsafe { sys::coax_total_pages() }
}

// SPDX-License-Identifier: GPL-2.0

//! Address spaces of processes.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::sys;
use core::ptr::NonNull;
use kernel::{
    mm::{virt::VmaRef, Mm, MmWithUser, MmapReadGuard},
    prelude::*,
    sync::aref::ARef,
};

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
pub(crate) fn of_pid(pid: i32) -> Result<ARef<MmWithUser>> {
    // SAFETY: No preconditions.
    let mm = NonNull::new(unsafe { sys::coax_get_mm_of_pid(pid) }).ok_or(ESRCH)?;
    // SAFETY: `get_task_mm` returned `mm` with a user's reference, which the `ARef` takes over;
    // `MmWithUser` is a transparent wrapper of `mm_struct`.
    Ok(unsafe { ARef::from_raw(mm.cast()) })
}

/// First address that does not belong to user space.
pub(crate) fn task_size(mm: &Mm) -> u64 {
    // SAFETY: `mm` is valid; the field does not change after exec.
    unsafe { sys::coax_task_size(mm.as_raw()) as u64 }
}

/// The first mapping that ends after `addr`.
pub(crate) fn find_vma<'a>(
    mm: &MmWithUser,
    _lock: &'a MmapReadGuard<'_>,
    addr: usize,
) -> Option<&'a VmaRef> {
    // SAFETY: `mm` is valid and, as `_lock` shows, locked for reading.
    let vma = unsafe { sys::coax_find_vma(mm.as_raw(), addr) };
    // SAFETY: A mapping stays valid while the lock is held, which `'a` does not outlive.
    (!vma.is_null()).then(|| unsafe { VmaRef::from_raw(vma) })
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

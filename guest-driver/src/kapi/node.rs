// SPDX-License-Identifier: GPL-2.0

//! Memory nodes.
//!
//! C header: [`include/linux/nodemask.h`](srctree/include/linux/nodemask.h)

use crate::sys;
use kernel::{ffi::c_int, mm::virt::VmaRef, prelude::*};

/// A memory node.
///
/// # Invariants
///
/// The node is possible, and so known to the kernel from boot on, whether it has memory or not.
#[derive(Clone, Copy)]
pub(crate) struct MemoryNode(c_int);

impl MemoryNode {
    /// The node of this number, which has neither CPUs nor memory.
    ///
    /// # Errors
    ///
    /// `EBUSY`: it has, or is not possible.
    pub(crate) fn vacant(number: u32) -> Result<Self> {
        let number = c_int::try_from(number)?;
        // SAFETY: No preconditions.
        match unsafe { sys::coax_node_is_vacant(number) } {
            // INVARIANT: What is vacant is possible.
            true => Ok(MemoryNode(number)),
            false => Err(EBUSY),
        }
    }

    /// Its number.
    pub(crate) fn number(self) -> c_int {
        self.0
    }

    /// Pages for movable data that are online and not in use.
    pub(crate) fn free_pages(self) -> u64 {
        // SAFETY: The node is a possible one, by the type's invariant.
        unsafe { sys::coax_node_free_movable_pages(self.0) }
    }

    /// Whether a page could be had without reclaim.
    pub(crate) fn has_room(self) -> bool {
        // SAFETY: The node is a possible one, by the type's invariant.
        unsafe { sys::coax_node_has_room(self.0) }
    }

    /// Whether pages of `vma` may lie on it: the mapping is not bound to others (`mbind`).
    pub(crate) fn is_for(self, vma: &VmaRef) -> bool {
        // SAFETY: `vma` is valid and its mmap lock, which protects its policy, held, by `VmaRef`.
        unsafe { sys::coax_vma_may_use_node(vma.as_ptr(), self.0) }
    }

    /// Whether the calling task may have memory of it (`cpuset.mems`).
    pub(crate) fn is_for_caller(self) -> bool {
        // SAFETY: No preconditions.
        unsafe { sys::coax_current_may_use_node(self.0) }
    }
}

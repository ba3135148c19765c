// SPDX-License-Identifier: GPL-2.0

//! Limits of device memory by cgroup, the controller "dmem": charging, and being told to give back.
//!
//! The kernel charges the group of the calling task. Memory that is used in the name of another task is charged
//! by a thread that is in that task's group for as long as there is a [`Charger`].
//!
//! Of the root group, which has no limits, nothing is charged. Without `CONFIG_CGROUP_DMEM` all tasks are in it.
//!
//! C header: [`include/linux/cgroup_dmem.h`](srctree/include/linux/cgroup_dmem.h)

use crate::sys;
use core::ptr::{null_mut, NonNull};
use kernel::{
    error::from_err_ptr,
    ffi::{c_int, c_void},
    prelude::*,
    str::CStr,
    sync::Arc,
};

/// A group that may have limits, other than the root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group(u64);

impl Group {
    /// The calling task's; none if that has no limits.
    pub(crate) fn current() -> Option<Self> {
        // SAFETY: No preconditions.
        match unsafe { sys::coax_dmem_group() } {
            0 => None,
            number => Some(Group(number)),
        }
    }
}

/// Who gives memory back.
pub(crate) trait Reclaim: Send + Sync {
    /// Has `bytes` of memory given back that were charged to the group of `limit` or one below it, or as many
    /// as there are; returns whether any were. May sleep; called by whoever lowers the limit.
    fn reclaim(&self, limit: &Limit, bytes: u64) -> bool;
}

/// A limit, and to whom it applies.
pub(crate) struct Limit(*mut sys::dmem_cgroup_pool_state);

/// Memory that can be charged, under a name of its own.
pub(crate) struct Region {
    raw: NonNull<sys::coax_dmem>,
    // What the kernel calls `reclaim` with; dropped after it is unregistered.
    _reclaim: KBox<Arc<dyn Reclaim>>,
}

// SAFETY: The kernel serialises what is done to a region; `Reclaim` is `Send` and `Sync`.
unsafe impl Send for Region {}
// SAFETY: As above.
unsafe impl Sync for Region {}

impl Region {
    /// `bytes` of memory; none if the kernel has no such limits.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(bytes: u64, name: &CStr, reclaim: Arc<dyn Reclaim>) -> Result<Option<Self>> {
        let reclaim = KBox::new(reclaim, GFP_KERNEL)?;
        let data = (&raw const *reclaim).cast_mut().cast();
        // SAFETY: The name is copied; `data` stays where it is until `drop` has unregistered the region, after which
        // there is no call any more.
        let raw = unsafe {
            sys::coax_dmem_register(bytes, name.as_ptr().cast(), Some(Self::reclaim), data)
        };
        let raw = NonNull::new(from_err_ptr(raw)?);
        Ok(raw.map(|raw| Region {
            raw,
            _reclaim: reclaim,
        }))
    }

    unsafe extern "C" fn reclaim(
        pool: *mut sys::dmem_cgroup_pool_state,
        bytes: u64,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: `data` is what `new` registered, which is there while the region is.
        let reclaim = unsafe { &*data.cast::<Arc<dyn Reclaim>>() };
        match reclaim.reclaim(&Limit(pool), bytes) {
            true => 0,
            false => ENOSPC.to_errno(),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`. Waits for calls of `reclaim`, which none of the droppers is inside of.
        unsafe { sys::coax_dmem_unregister(self.raw.as_ptr()) }
    }
}

/// Charges the group that the task was in that made it. That group stays, with a thread of this, until it is dropped.
pub(crate) struct Charger(NonNull<sys::kthread_worker>);

// SAFETY: Work is queued and flushed, and the worker destroyed, from any task.
unsafe impl Send for Charger {}
// SAFETY: As above.
unsafe impl Sync for Charger {}

impl Charger {
    /// For the calling task's group.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what the group says to a thread more.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: No preconditions.
        let raw = from_err_ptr(unsafe { sys::coax_dmem_charger() })?;
        NonNull::new(raw).map(Charger).ok_or(ENOMEM)
    }

    /// Charges up to so many units of `unit` bytes, as the group's limits allow.
    pub(crate) fn charge(&self, region: &Region, unit: u64, units: u32) -> Charged {
        let mut pool = null_mut();
        let (raw, worker) = (region.raw.as_ptr(), self.0.as_ptr());
        // SAFETY: The region is registered, and the worker runs until `drop`.
        let units = unsafe { sys::coax_dmem_charge(raw, worker, unit, units, &mut pool) };
        Charged { pool, unit, units }
    }
}

impl Drop for Charger {
    fn drop(&mut self) {
        // SAFETY: Made by `new`; nobody can queue work any more.
        unsafe { sys::coax_dmem_charger_end(self.0.as_ptr()) }
    }
}

/// What is charged to one group.
pub(crate) struct Charged {
    // Each unit has a reference to it.
    pool: *mut sys::dmem_cgroup_pool_state,
    unit: u64,
    units: u32,
}

// SAFETY: The kernel serialises what is done to a pool.
unsafe impl Send for Charged {}

impl Charged {
    /// Nothing.
    pub(crate) const NOTHING: Self = Charged {
        pool: null_mut(),
        unit: 0,
        units: 0,
    };

    /// How many units.
    pub(crate) fn units(&self) -> u32 {
        self.units
    }

    /// Adds what is charged to the same group. What is another's is given back.
    pub(crate) fn add(&mut self, mut more: Self) {
        if self.units == 0 {
            core::mem::swap(self, &mut more);
        } else if (self.pool, self.unit) == (more.pool, more.unit) {
            self.units += core::mem::take(&mut more.units);
        }
    }

    /// Gives so many units back; in any context.
    pub(crate) fn give_back(&mut self, units: u32) {
        let units = units.min(self.units);
        self.units -= units;
        // SAFETY: Each of the units has a reference to the pool, which this ends.
        unsafe { sys::coax_dmem_uncharge(self.pool, self.unit, units) }
    }

    /// Whether `limit` is one of the group, or of one that it is below.
    pub(crate) fn is_under(&self, limit: &Limit) -> bool {
        // SAFETY: The kernel keeps the limit's pool while it is at it, and a unit that of the charge.
        self.units > 0 && unsafe { sys::coax_dmem_covers(limit.0, self.pool) }
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.give_back(self.units);
    }
}

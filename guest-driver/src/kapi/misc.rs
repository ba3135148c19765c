// SPDX-License-Identifier: GPL-2.0

//! Small calls that need no file of their own.

use crate::sys;
use core::borrow::Borrow;
use kernel::{bindings, current, error::Error, prelude::*, task::Kuid, types::NotThreadSafe};

/// `EOPNOTSUPP`, which `kernel::error::code` lacks.
pub(crate) fn not_supported() -> Error {
    Error::from_errno(-(bindings::EOPNOTSUPP as i32))
}

/// The value of a module's parameter, which `ModuleParamAccess::value()` gives as a reference in 7.2.
pub(crate) fn parameter<T: Copy>(value: impl Borrow<T>) -> T {
    *value.borrow()
}

/// Whether the caller has `CAP_SYS_ADMIN`.
pub(crate) fn is_admin() -> bool {
    // SAFETY: No preconditions.
    unsafe { sys::coax_admin() }
}

/// The calling task's user.
pub(crate) fn user() -> Kuid {
    current!().uid()
}

/// Whether the caller may go beyond the limits of one user: has `CAP_SYS_RESOURCE`.
pub(crate) fn may_exceed() -> bool {
    // SAFETY: No preconditions.
    unsafe { sys::coax_may_exceed() }
}

/// Whether the caller has `CAP_SYS_PTRACE`: may look into whatever process there is.
pub(crate) fn may_trace() -> bool {
    // SAFETY: No preconditions.
    unsafe { sys::coax_may_trace() }
}

/// Lets others run if it is their turn, and tells whether the caller is to go on.
///
/// # Errors
///
/// `EINTR`: it was killed.
pub(crate) fn go_on() -> Result {
    cond_resched();
    // SAFETY: No preconditions.
    match unsafe { sys::coax_fatal_signal_pending() } {
        true => Err(EINTR),
        false => Ok(()),
    }
}

/// The calling process's number, as the system's first PID namespace has it.
pub(crate) fn process() -> i32 {
    current!().group_leader().pid()
}

/// Lets others run if it is their turn; the caller may sleep.
pub(crate) fn cond_resched() {
    // SAFETY: The caller may sleep, as documented.
    unsafe { sys::coax_cond_resched() }
}

/// Nanoseconds since boot.
pub(crate) fn boottime_ns() -> u64 {
    // SAFETY: No preconditions.
    unsafe { sys::coax_boottime_ns() }
}

/// The CPU that the caller runs on, which may change at any time.
pub(crate) fn this_cpu() -> u32 {
    // SAFETY: No preconditions.
    unsafe { sys::coax_this_cpu() }
}

/// CPUs that run tasks, which may change at any time.
pub(crate) fn online_cpus() -> u32 {
    // SAFETY: No preconditions.
    unsafe { sys::coax_online_cpus() }
}

/// Memory nodes, which may change at any time.
pub(crate) fn online_nodes() -> u32 {
    // SAFETY: No preconditions.
    unsafe { sys::coax_online_nodes() }
}

/// Whether another task ought to run on this CPU.
pub(crate) fn need_resched() -> bool {
    // SAFETY: No preconditions.
    unsafe { sys::coax_need_resched() }
}

/// While it is alive its owner stays on its CPU, and nobody but interrupts runs there. Its owner does not sleep.
pub(crate) struct NoPreempt(NotThreadSafe);

impl NoPreempt {
    /// Begins that.
    pub(crate) fn new() -> Self {
        // SAFETY: `drop` enables what is disabled here, on the same thread, which cannot send this away.
        unsafe { sys::coax_preempt_disable() };
        NoPreempt(NotThreadSafe)
    }
}

impl Drop for NoPreempt {
    fn drop(&mut self) {
        // SAFETY: Disabled by `new`.
        unsafe { sys::coax_preempt_enable() };
    }
}

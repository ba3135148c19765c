// SPDX-License-Identifier: GPL-2.0

//! A spinlock that disables interrupts on the local CPU while it is held.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use crate::sys;
use kernel::{
    bindings,
    ffi::{c_char, c_ulong},
    sync::lock::{Backend, Lock},
};

/// The `spin_lock_irqsave` form of `spinlock_t`.
pub(crate) struct IrqSave;

/// A lock for data that interrupt handlers touch too.
pub(crate) type IrqSpinLock<T> = Lock<T, IrqSave>;

// SAFETY: `spinlock_t` excludes all other owners, and `relock` is the default, which locks in
// the same way as `lock`.
unsafe impl Backend for IrqSave {
    type State = bindings::spinlock_t;
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: `ptr` is valid for writes and `name` and `key` live for ever, by the contract.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> c_ulong {
        // SAFETY: `ptr` was initialised, by the contract.
        unsafe { sys::coax_spin_lock_irqsave(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<c_ulong> {
        let mut flags = 0;
        // SAFETY: `ptr` was initialised, by the contract; `flags` is valid for a write.
        (unsafe { sys::coax_spin_trylock_irqsave(ptr, &mut flags) } != 0).then_some(flags)
    }

    unsafe fn unlock(ptr: *mut Self::State, flags: &c_ulong) {
        // SAFETY: The caller owns the lock and `flags` is what taking it returned.
        unsafe { sys::coax_spin_unlock_irqrestore(ptr, *flags) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: `ptr` was initialised, by the contract.
        unsafe { bindings::spin_assert_is_held(ptr) }
    }
}

/// Initialises an [`IrqSpinLock`] with a lock class of its own.
#[macro_export]
macro_rules! new_irqlock {
    ($data:expr, $name:literal) => {
        $crate::kapi::irqlock::IrqSpinLock::new(
            $data,
            kernel::c_str!($name),
            kernel::static_lock_class!(),
        )
    };
}

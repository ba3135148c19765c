// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's `sync`, with the checker's primitives.

pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
pub use shuttle::sync::{
    Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
pub use std::sync::PoisonError;

/// Takes a mutex.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock for reading.
pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock for writing.
pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// There is only one.
pub fn processor() -> usize {
    0
}

/// Takes a lock for writing: nothing is soon or late here.
pub fn write_soon<T>(lock: &RwLock<T>, _holder: usize) -> RwLockWriteGuard<'_, T> {
    write(lock)
}

/// Lets nobody go first: either order is tried.
pub fn give_way(_waiting: &AtomicU32) {}

/// Waits until `done` holds. The checker finds a wait that never ends.
pub fn wait_for<T>(
    condvar: &Condvar,
    mutex: &Mutex<T>,
    _what: &str,
    mut done: impl FnMut(&T) -> bool,
) {
    let mut state = lock(mutex);
    while !done(&state) {
        state = condvar.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

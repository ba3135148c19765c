// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lock helpers that carry on after another thread panicked.
//!
//! A panic in one device thread is a bug of ours, reported when it happens; the other threads
//! still have to answer the guest, so a poisoned lock is taken as it is.
#![forbid(unsafe_code)]

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Duration;

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

/// Waits until `done` holds, for `timeout` at most; tells whether it holds.
pub fn wait_until<T>(
    condvar: &Condvar,
    mutex: &Mutex<T>,
    timeout: Duration,
    mut done: impl FnMut(&T) -> bool,
) -> bool {
    let (guard, _) = condvar
        .wait_timeout_while(lock(mutex), timeout, |state| !done(state))
        .unwrap_or_else(PoisonError::into_inner);
    done(&guard)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lock helpers that carry on after another thread panicked.
//!
//! A panic in one device thread is a bug of ours, reported when it happens; the other threads
//! still have to answer the guest, so a poisoned lock is taken as it is.
#![forbid(unsafe_code)]

pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::PoisonError;
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// How often a wait that lasts is told.
const TELL: Duration = Duration::from_secs(10);

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

/// Waits until `done` holds, however long it takes; tells the log that it waits for `what`.
pub fn wait_until<T>(
    condvar: &Condvar,
    mutex: &Mutex<T>,
    what: &str,
    mut done: impl FnMut(&T) -> bool,
) {
    let mut state = lock(mutex);
    while !done(&state) {
        let (guard, timeout) = condvar
            .wait_timeout_while(state, TELL, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            log::error!("still waiting for {what}");
        }
        state = guard;
    }
}

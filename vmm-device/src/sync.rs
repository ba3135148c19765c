// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lock helpers that end the process if another thread panicked while it held the lock.
//!
//! In the program a panic has ended it already.
#![forbid(unsafe_code)]

use std::hint;
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::{LockResult, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::fail_stop;

/// Part of a limited wait that is counted as a whole.
const SLICE: Duration = Duration::from_millis(100);
/// Longest wait for what takes some milliseconds unless there is a defect.
const LIMIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

fn sound<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(|_| {
        fail_stop::end_process(format_args!("a thread that held a lock panicked"))
    })
}

/// Takes a mutex.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sound(mutex.lock())
}

/// Takes a lock for reading.
pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    sound(lock.read())
}

/// Takes a lock for writing.
pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    sound(lock.write())
}

/// How long it is tried to take a lock that others hold for some ten microseconds. To sleep and be
/// woken takes as long where a processor is idle, and milliseconds where none is.
const SOON: Duration = Duration::from_micros(50);

/// The processor that the thread runs on.
pub fn processor() -> usize {
    rustix::thread::sched_getcpu()
}

/// Takes a lock for writing that those who have it for reading leave soon, if they run; `holder` is
/// where one of them did.
pub fn write_soon<T>(lock: &RwLock<T>, holder: usize) -> RwLockWriteGuard<'_, T> {
    let attempt = || match lock.try_write() {
        Ok(guard) => Some(guard),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(poisoned)) => Some(sound(Err(poisoned))),
    };
    if let Some(guard) = attempt() {
        return guard;
    }
    // On this processor he goes on only when this thread sleeps.
    if holder != processor() {
        let begin = Instant::now();
        while begin.elapsed() < SOON {
            hint::spin_loop();
            if let Some(guard) = attempt() {
                return guard;
            }
        }
    }
    write(lock)
}

/// Lets those go first who will have been there soon, on this processor if they need it.
pub fn give_way(waiting: &AtomicU32) {
    if waiting.load(Ordering::Relaxed) == 0 {
        return;
    }
    let begin = Instant::now();
    while waiting.load(Ordering::Relaxed) > 0 && begin.elapsed() < SOON {
        thread::yield_now();
    }
}

/// Waits until `done` holds, however long.
pub fn wait<'m, T>(
    condvar: &Condvar,
    mutex: &'m Mutex<T>,
    done: impl Fn(&T) -> bool,
) -> MutexGuard<'m, T> {
    sound(condvar.wait_while(lock(mutex), |state| !done(state)))
}

/// Waits until `done` holds, for `limit` at most; none if it does not hold then.
///
/// Only time in which the others can run counts: a part of the wait counts once, however long
/// the process was stopped meanwhile, as by a debugger or a frozen control group.
fn wait_limited<'m, T>(
    condvar: &Condvar,
    mutex: &'m Mutex<T>,
    limit: Duration,
    mut done: impl FnMut(&T) -> bool,
) -> Option<MutexGuard<'m, T>> {
    let mut guard = lock(mutex);
    let mut left = limit;
    while !done(&guard) {
        if left.is_zero() {
            return None;
        }
        let slice = left.min(SLICE);
        (guard, _) = sound(condvar.wait_timeout_while(guard, slice, |state| !done(state)));
        left -= slice;
    }
    Some(guard)
}

/// Waits until `done` holds, for `limit` at most; tells whether it holds. Time in which the process is
/// stopped does not count.
pub fn wait_until<T>(
    condvar: &Condvar,
    mutex: &Mutex<T>,
    limit: Duration,
    done: impl FnMut(&T) -> bool,
) -> bool {
    wait_limited(condvar, mutex, limit, done).is_some()
}

/// Waits until `done` holds, for `what` to have happened. If it does not, nobody can be told that it
/// has, and the process ends.
pub fn when<'m, T>(
    condvar: &Condvar,
    mutex: &'m Mutex<T>,
    what: &str,
    done: impl FnMut(&T) -> bool,
) -> MutexGuard<'m, T> {
    wait_limited(condvar, mutex, LIMIT, done).unwrap_or_else(|| too_late(what))
}

/// As [`when`], for one who has nothing to do with the lock held.
pub fn wait_for<T>(condvar: &Condvar, mutex: &Mutex<T>, what: &str, done: impl FnMut(&T) -> bool) {
    drop(when(condvar, mutex, what, done));
}

/// As [`when`], for what nobody tells: looks again and again.
pub fn look_for(interval: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let mut left = LIMIT;
    while !done() {
        if left.is_zero() {
            too_late(what);
        }
        thread::sleep(interval);
        left = left.saturating_sub(interval);
    }
}

fn too_late(what: &str) -> ! {
    fail_stop::end_process(format_args!("{what}: not within {LIMIT:?}"));
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::fail_stop::tests::said_at_the_end;

    #[test]
    fn what_does_not_happen_ends_the_process() {
        let said = said_at_the_end("sync::tests::what_does_not_happen_ends_the_process", || {
            wait_for(&Condvar::new(), &Mutex::new(()), "the end", |()| false)
        });
        assert!(said.contains("the end: not within 1s"), "{said}");
    }

    #[test]
    fn what_is_never_seen_ends_the_process() {
        let said = said_at_the_end("sync::tests::what_is_never_seen_ends_the_process", || {
            look_for(SLICE, "the end", || false)
        });
        assert!(said.contains("the end: not within 1s"), "{said}");
    }

    #[test]
    fn time_in_which_the_process_is_stopped_counts_once() {
        let (mutex, condvar) = (Mutex::new(0), Condvar::new());
        let limit = 4 * SLICE;
        let mut looks = 0;
        let held = wait_until(&condvar, &mutex, limit, |_| {
            looks += 1;
            // The second look stands for a stop of many times the limit.
            let begin = Instant::now();
            while looks == 2 && begin.elapsed() < 2 * limit {
                std::hint::spin_loop();
            }
            looks >= 5
        });
        assert!(held);
        assert!(!wait_until(&condvar, &mutex, SLICE, |_| false));
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Taking back pages that the driver gave out, wherever they are mapped.
//!
//! Waits for no folio lock: what is on its way elsewhere stays.

use super::pool::Pool;
use crate::{
    kapi::migrate::PageArrays,
    memory::DeviceMemory,
    migration::{bring_home, Cause, WINDOW_PAGES},
    users::MOST_USERS,
};
use kernel::{
    prelude::*,
    time::{delay::fsleep, Delta, Instant, Monotonic},
};

/// Longest attempt to empty the device memory; what is still held then stays.
const EVICT_LIMIT: Delta = Delta::from_secs(10);
/// Pause before pages that something held are tried again.
const EVICT_PAUSE: Delta = Delta::from_millis(2);
/// Pause before the device memory is emptied anew when the driver leaves it.
const EMPTY_PAUSE: Delta = Delta::from_millis(100);

/// Most pages that make room at a time, but for the rest of the last folio: what one message copies.
const MOST_PAGES: usize = WINDOW_PAGES;
/// Most searches for such pages at a time: with what one search looks at, 64 MiB of device memory.
const MOST_SEARCHES: usize = 16;

/// Brings all pages back and returns how many are still held by something after [`EVICT_LIMIT`].
/// No page may be given out meanwhile.
///
/// A 2 MiB folio comes back whole: by page frame number the kernel cannot split it, so that without
/// 2 MiB of system memory in one piece it counts as held.
///
/// # Errors
///
/// `ENOMEM`: no memory.
pub(super) fn evict_all(memory: &dyn DeviceMemory, pool: &Pool) -> Result<u64> {
    let mut arrays = PageArrays::default();
    let began = Instant::<Monotonic>::now();
    loop {
        let mut from = 0;
        while let Some(run) = pool.used_run(from) {
            from = run.end;
            (_, arrays) = bring_home(memory, run, Cause::Evict, arrays)?;
        }
        let held = memory.frames().pages() as u64 - pool.free_pages();
        if held == 0 || began.elapsed().as_millis() > EVICT_LIMIT.as_millis() {
            return Ok(held);
        }
        fsleep(EVICT_PAUSE);
    }
}

/// Brings all pages back, however long something holds them.
pub(super) fn evict_for_good(memory: &dyn DeviceMemory, pool: &Pool) {
    let number = memory.link().lifetime.number();
    let mut told = false;
    loop {
        match evict_all(memory, pool) {
            Ok(0) => return,
            Ok(held) if !told => pr_warn!(
                "coax{}: {} pages of the device memory are held; waiting\n",
                number,
                held
            ),
            Err(error) if !told => pr_warn!(
                "coax{}: the device memory cannot be emptied yet: {:?}\n",
                number,
                error
            ),
            _ => {}
        }
        told = true;
        fsleep(EMPTY_PAUSE);
    }
}

/// Brings pages of the user who has most home, if there are not `want` pages free and `user` has less than the
/// fair share. A page that something holds, or for which there is no memory, stays. The mmap lock may be held for
/// reading, as in reclaim.
pub(super) fn make_room(memory: &dyn DeviceMemory, pool: &Pool, user: u16, want: usize) {
    let Some((from, most)) = pool.gives_way(user, want) else {
        return;
    };
    let mut left = most.min(MOST_PAGES);
    let mut arrays = PageArrays::default();
    for _ in 0..MOST_SEARCHES {
        let Some(run) = pool.next_of(from) else {
            continue;
        };
        let Ok((moved, spare)) = bring_home(memory, run, Cause::Share, arrays) else {
            return;
        };
        arrays = spare;
        left = left.saturating_sub(moved as usize);
        if left == 0 {
            return;
        }
    }
}

/// Brings at least `pages` pages of the users home of whom `is_meant` says so, as far as there are some that nothing
/// holds, and returns how many. The mmap lock may be held for reading, as in reclaim.
pub(super) fn shrink(
    memory: &dyn DeviceMemory,
    pool: &Pool,
    is_meant: &dyn Fn(u16) -> bool,
    pages: usize,
) -> usize {
    let mut arrays = PageArrays::default();
    let mut moved = 0;
    for user in 0..MOST_USERS as u16 {
        let mut from = 0;
        // What is meant may end with what has come home; who asked may be told to end.
        while moved < pages
            && from < memory.frames().pages()
            && is_meant(user)
            && !current!().signal_pending()
        {
            let (found, next) = pool.run_of(user, from);
            from = next;
            let Some(run) = found else {
                continue;
            };
            let Ok((more, spare)) = bring_home(memory, run, Cause::Limit, arrays) else {
                return moved;
            };
            arrays = spare;
            moved += more as usize;
        }
    }
    moved
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Residency, migration, policy, counters and reset for C callers.
// UNSAFETY: see the module above.

use std::ffi::{c_int, c_void};
use std::os::fd::AsFd;

use coax_abi::uapi;

use super::types::coax_migrated;
use super::{address, context, guard, store, NULL_POINTER};
use crate::context::{refused, Context};
use crate::error::Error;
use crate::memory::{Migrated, PageRange};
use crate::sys;

/// Moves pages, one way or the other.
///
/// # Safety
///
/// As [`context`] and [`store`].
unsafe fn migrate(
    this: *const Context,
    start: *const c_void,
    bytes: usize,
    by: fn(&Context, PageRange) -> Result<Migrated, Error>,
    out: *mut coax_migrated,
) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        let Migrated {
            moved,
            already,
            left,
        } = by(this, PageRange::covering(address(start), bytes as u64))?;
        // SAFETY: By the caller's promise.
        unsafe {
            store(
                out,
                coax_migrated {
                    moved,
                    already,
                    left,
                },
            )
        };
        Ok(())
    })
}

/// Moves the pages of a range to device memory.
///
/// # Safety
///
/// `this` is null or open, `out` null or writable. The range may be any.
#[no_mangle]
pub unsafe extern "C" fn coax_prefetch(
    this: *const Context,
    start: *const c_void,
    bytes: usize,
    out: *mut coax_migrated,
) -> c_int {
    // SAFETY: By the caller's promise.
    unsafe { migrate(this, start, bytes, Context::prefetch, out) }
}

/// Moves the pages of a range to system memory.
///
/// # Safety
///
/// As [`coax_prefetch`].
#[no_mangle]
pub unsafe extern "C" fn coax_evict(
    this: *const Context,
    start: *const c_void,
    bytes: usize,
    out: *mut coax_migrated,
) -> c_int {
    // SAFETY: By the caller's promise.
    unsafe { migrate(this, start, bytes, Context::evict, out) }
}

/// Counts the pages of a range by where they are.
///
/// # Safety
///
/// `this` is null or open; `vector` is null or has room for a byte for each page that the
/// range touches; `pages` is null or has room for four counts.
#[no_mangle]
pub unsafe extern "C" fn coax_residency(
    this: *const Context,
    start: *const c_void,
    bytes: usize,
    vector: *mut u8,
    pages: *mut [u64; 4],
) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        let range = PageRange::covering(address(start), bytes as u64);
        let room = usize::try_from(range.pages())
            .ok()
            .filter(|_| range.len <= uapi::MAX_RANGE_BYTES)
            .ok_or(Error::Argument("the range is longer than one call takes"))?;
        let vector = if vector.is_null() {
            None
        } else {
            // SAFETY:
            // - `vector` is not null and has room for a byte a page by the caller's promise.
            // - Bytes have no alignment, and the library uses the slice in this call alone.
            Some(unsafe { std::slice::from_raw_parts_mut(vector, room) })
        };
        let counts = sys::residency(this.as_fd(), range.addr, range.len, vector)
            .map_err(refused("COAX_IOC_RESIDENCY"))?;
        // SAFETY: By the caller's promise.
        unsafe { store(pages, counts) };
        Ok(())
    })
}

/// Sets the migration policy.
///
/// # Safety
///
/// `this` is null or open.
#[no_mangle]
pub unsafe extern "C" fn coax_set_policy(
    this: *const Context,
    policy: u32,
    fault_around: u32,
) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        // The driver judges the numbers, so that newer ones pass through.
        let policy = uapi::Policy {
            policy,
            fault_around,
        };
        sys::policy(this.as_fd(), policy).map_err(refused("COAX_IOC_POLICY"))
    })
}

/// Sets the policy of a range.
///
/// # Safety
///
/// `this` is null or open. The range may be any.
#[no_mangle]
pub unsafe extern "C" fn coax_advise(
    this: *const Context,
    start: *const c_void,
    bytes: usize,
    policy: u32,
    fault_around: u32,
) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        let PageRange { addr, len } = PageRange::covering(address(start), bytes as u64);
        // The driver judges the numbers, so that newer ones pass through.
        let advise = uapi::Advise {
            addr,
            len,
            policy,
            fault_around,
        };
        sys::advise(this.as_fd(), advise).map_err(refused("COAX_IOC_ADVISE"))
    })
}

/// Says which policy holds at an address.
///
/// # Safety
///
/// `this` is null or open, `out` is null or writable. The address may be any.
#[no_mangle]
pub unsafe extern "C" fn coax_policy_at(
    this: *const Context,
    at: *const c_void,
    out: *mut uapi::PolicyAt,
) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        let this = unsafe { context(this) }?;
        let found =
            sys::policy_at(this.as_fd(), address(at)).map_err(refused("COAX_IOC_POLICY_AT"))?;
        // SAFETY: By the caller's promise.
        unsafe { store(out, found) };
        Ok(())
    })
}

/// Reads the counters.
///
/// # Safety
///
/// `this` is null or open, `out` writable.
#[no_mangle]
pub unsafe extern "C" fn coax_stats(this: *const Context, out: *mut uapi::Stats) -> c_int {
    guard(|| {
        if out.is_null() {
            return Err(NULL_POINTER);
        }
        // SAFETY: By the caller's promise.
        let stats = unsafe { context(this) }?.stats()?;
        // SAFETY: By the caller's promise.
        unsafe { store(out, *stats) };
        Ok(())
    })
}

/// Takes the device out of service and back.
///
/// # Safety
///
/// `this` is null or open.
#[no_mangle]
pub unsafe extern "C" fn coax_reset(this: *const Context) -> c_int {
    guard(|| {
        // SAFETY: By the caller's promise.
        unsafe { context(this) }?.reset()
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's atomic operations for C callers.
// UNSAFETY: see the module above.

use std::ffi::c_int;

use super::types::coax_completion;
use super::{address, run_then, store};
use crate::command::{Command, Completion};
use crate::context::Context;

/// Adds to a word of 64 bits.
///
/// # Safety
///
/// As [`coax_run`](super::coax_run), but `word` may be accessed atomically meanwhile; `before`
/// is null or may be written.
#[no_mangle]
pub unsafe extern "C" fn coax_fetch_add64(
    this: *const Context,
    word: *mut u64,
    addend: u64,
    before: *mut u64,
    out: *mut coax_completion,
) -> c_int {
    let command = Command::fetch_add(address(word), 8, addend, 1, 0);
    // SAFETY: By the caller's promise.
    let store_result = |done: &Completion| unsafe { store(before, done.word(0)) };
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, store_result, out) }
}

/// Adds to a word of 32 bits.
///
/// # Safety
///
/// As [`coax_fetch_add64`].
#[no_mangle]
pub unsafe extern "C" fn coax_fetch_add32(
    this: *const Context,
    word: *mut u32,
    addend: u32,
    before: *mut u32,
    out: *mut coax_completion,
) -> c_int {
    let command = Command::fetch_add(address(word), 4, addend.into(), 1, 0);
    // SAFETY: By the caller's promise.
    let store_result = |done: &Completion| unsafe { store(before, done.word(0) as u32) };
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, store_result, out) }
}

/// Compares and swaps a word of 64 bits.
///
/// # Safety
///
/// As [`coax_fetch_add64`].
#[no_mangle]
pub unsafe extern "C" fn coax_compare_swap64(
    this: *const Context,
    word: *mut u64,
    expected: u64,
    desired: u64,
    before: *mut u64,
    out: *mut coax_completion,
) -> c_int {
    let command = Command::compare_swap(address(word), 8, expected, desired);
    // SAFETY: By the caller's promise.
    let store_result = |done: &Completion| unsafe { store(before, done.word(0)) };
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, store_result, out) }
}

/// Compares and swaps a word of 32 bits.
///
/// # Safety
///
/// As [`coax_fetch_add64`].
#[no_mangle]
pub unsafe extern "C" fn coax_compare_swap32(
    this: *const Context,
    word: *mut u32,
    expected: u32,
    desired: u32,
    before: *mut u32,
    out: *mut coax_completion,
) -> c_int {
    let command = Command::compare_swap(address(word), 4, expected.into(), desired.into());
    // SAFETY: By the caller's promise.
    let store_result = |done: &Completion| unsafe { store(before, done.word(0) as u32) };
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, store_result, out) }
}

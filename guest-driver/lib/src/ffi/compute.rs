// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's commands for C callers.
// UNSAFETY: see the module above.

use std::ffi::{c_int, c_void};

use coax_abi::wire::{self, RESULT_BYTES};

use super::types::{
    coax_completion, coax_gemm, coax_list_layout, coax_list_result, coax_tree_layout,
    coax_tree_result,
};
use super::{address, run, run_then, store, NULL_POINTER};
use crate::command::{Command, Completion};
use crate::context::Context;

/// Copies memory.
///
/// # Safety
///
/// As [`coax_run`](super::coax_run): `bytes` may be read at `src` and written at `dst`.
#[no_mangle]
pub unsafe extern "C" fn coax_copy(
    this: *const Context,
    dst: *mut c_void,
    src: *const c_void,
    bytes: usize,
    out: *mut coax_completion,
) -> c_int {
    let command = Command::copy(address(dst), address(src), bytes as u64);
    // SAFETY: By the caller's promise.
    unsafe { run(this, command, out) }
}

/// Fills memory.
///
/// # Safety
///
/// As [`coax_run`](super::coax_run): `bytes` may be written at `dst`.
#[no_mangle]
pub unsafe extern "C" fn coax_fill(
    this: *const Context,
    dst: *mut c_void,
    bytes: usize,
    pattern: u64,
    out: *mut coax_completion,
) -> c_int {
    // SAFETY: By the caller's promise.
    unsafe {
        run(
            this,
            Command::fill(address(dst), bytes as u64, pattern),
            out,
        )
    }
}

/// SHA-256.
///
/// # Safety
///
/// As [`coax_run`](super::coax_run): `bytes` may be read at `src`, 32 bytes written at `digest`.
#[no_mangle]
pub unsafe extern "C" fn coax_sha256(
    this: *const Context,
    src: *const c_void,
    bytes: usize,
    digest: *mut [u8; RESULT_BYTES],
    out: *mut coax_completion,
) -> c_int {
    // SAFETY: By the caller's promise.
    let store_result = |done: &Completion| unsafe { store(digest, done.result) };
    let command = Command::sha256(address(src), bytes as u64);
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, store_result, out) }
}

/// Counts byte values.
///
/// # Safety
///
/// As [`coax_run`](super::coax_run): `bytes` may be read at `src`, 256 counters written at `counts`.
#[no_mangle]
pub unsafe extern "C" fn coax_histogram(
    this: *const Context,
    src: *const c_void,
    bytes: usize,
    counts: *mut u64,
    out: *mut coax_completion,
) -> c_int {
    let command = Command::histogram(address(src), bytes as u64, address(counts));
    // SAFETY: By the caller's promise.
    unsafe { run(this, command, out) }
}

/// Sums over a linked list.
///
/// # Safety
///
/// As [`coax_run`](super::coax_run): nobody writes the nodes meanwhile; `layout` may be read.
#[no_mangle]
pub unsafe extern "C" fn coax_list_sum(
    this: *const Context,
    head: *const c_void,
    layout: *const coax_list_layout,
    found: *mut coax_list_result,
    out: *mut coax_completion,
) -> c_int {
    // SAFETY: Null or readable by the caller's promise.
    let Some(layout) = (unsafe { layout.as_ref() }) else {
        return -NULL_POINTER.errno();
    };
    let args = [address(head), layout.next, layout.value, layout.max_nodes];
    let store_result = |done: &Completion| {
        let result = coax_list_result {
            sum: done.word(0),
            nodes: done.word(1),
        };
        // SAFETY: By the caller's promise.
        unsafe { store(found, result) }
    };
    let command = Command::new(wire::OP_LIST_SUM, &args);
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, store_result, out) }
}

/// Searches a binary search tree.
///
/// # Safety
///
/// As [`coax_list_sum`].
#[no_mangle]
pub unsafe extern "C" fn coax_tree_search(
    this: *const Context,
    root: *const c_void,
    key: u64,
    layout: *const coax_tree_layout,
    found: *mut coax_tree_result,
    out: *mut coax_completion,
) -> c_int {
    // SAFETY: Null or readable by the caller's promise.
    let Some(layout) = (unsafe { layout.as_ref() }) else {
        return -NULL_POINTER.errno();
    };
    let args = [
        address(root),
        key,
        layout.key,
        layout.left,
        layout.right,
        layout.max_depth,
    ];
    let store_result = |done: &Completion| {
        let result = coax_tree_result {
            node: done.word(0),
            levels: done.word(1),
        };
        // SAFETY: By the caller's promise.
        unsafe { store(found, result) }
    };
    let command = Command::new(wire::OP_TREE_SEARCH, &args);
    // SAFETY: By the caller's promise.
    unsafe { run_then(this, command, store_result, out) }
}

/// Matrix product in single precision.
///
/// # Safety
///
/// As [`coax_run`](super::coax_run): A and B may be read, C read and written, in the shape of
/// `gemm`, which may be read.
#[no_mangle]
pub unsafe extern "C" fn coax_sgemm(
    this: *const Context,
    gemm: *const coax_gemm,
    alpha: f32,
    a: *const f32,
    b: *const f32,
    beta: f32,
    c: *mut f32,
    out: *mut coax_completion,
) -> c_int {
    let matrices = [address(a), address(b), address(c)];
    let factors = [alpha, beta].map(|factor| u64::from(factor.to_bits()));
    // SAFETY: By the caller's promise.
    unsafe { run_gemm(this, wire::OP_SGEMM, gemm, matrices, factors, out) }
}

/// Matrix product in double precision.
///
/// # Safety
///
/// As [`coax_sgemm`].
#[no_mangle]
pub unsafe extern "C" fn coax_dgemm(
    this: *const Context,
    gemm: *const coax_gemm,
    alpha: f64,
    a: *const f64,
    b: *const f64,
    beta: f64,
    c: *mut f64,
    out: *mut coax_completion,
) -> c_int {
    let matrices = [address(a), address(b), address(c)];
    let factors = [alpha, beta].map(f64::to_bits);
    // SAFETY: By the caller's promise.
    unsafe { run_gemm(this, wire::OP_DGEMM, gemm, matrices, factors, out) }
}

/// Runs a matrix product.
///
/// # Safety
///
/// As [`coax_sgemm`].
unsafe fn run_gemm(
    this: *const Context,
    opcode: u32,
    gemm: *const coax_gemm,
    [a, b, c]: [u64; 3],
    [alpha, beta]: [u64; 2],
    out: *mut coax_completion,
) -> c_int {
    // SAFETY: Null or readable by the caller's promise.
    let Some(shape) = (unsafe { gemm.as_ref() }) else {
        return -NULL_POINTER.errno();
    };
    let coax_gemm {
        m,
        n,
        k,
        lda,
        ldb,
        ldc,
        flags,
    } = *shape;
    let args = [m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, flags];
    // SAFETY: By the caller's promise.
    unsafe { run(this, Command::new(opcode, &args), out) }
}

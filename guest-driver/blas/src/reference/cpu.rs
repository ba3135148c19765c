// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operations as their definitions have them, by the names and arguments of the CPU's BLAS.
// UNSAFETY: functions of the BLAS's types take bare addresses.
#![expect(unsafe_code)]

use std::ffi::c_char;

use super::TestReal;
use crate::cpu::{Blas, Functions};

/// The operations.
pub fn cpu<T: TestReal>() -> Blas<T, i32> {
    // SAFETY: They do what the BLAS's definition says.
    unsafe {
        Blas::new(Functions {
            gemm: gemm::<T>,
            syrk: syrk::<T>,
            symm: symm::<T>,
            trsm: trsm::<T>,
        })
    }
}

/// op(M) as a function of row and column.
unsafe fn reader<T: TestReal>(
    at: *const T,
    ld: *const i32,
    trans: bool,
) -> impl Fn(usize, usize) -> f64 {
    // SAFETY: As the caller promises.
    let ld = unsafe { *ld } as usize;
    move |row, col| {
        let (row, col) = if trans { (col, row) } else { (row, col) };
        // SAFETY: As the caller promises, of the elements that the operation reads.
        unsafe { (*at.add(row + col * ld)).into() }
    }
}

unsafe fn is(letter: *const c_char, other: u8) -> bool {
    // SAFETY: As the caller promises.
    unsafe { *letter as u8 == other }
}

unsafe fn size(number: *const i32) -> usize {
    // SAFETY: As the caller promises.
    unsafe { *number as usize }
}

/// Writes sum·alpha + beta·C to an element.
unsafe fn store<T: TestReal>(to: *mut T, sum: f64, alpha: *const T, beta: *const T) {
    // SAFETY: As the caller promises; C is not read if beta is 0.
    unsafe {
        let old = if *beta == T::ZERO {
            0.0
        } else {
            (*beta).into() * (*to).into()
        };
        *to = T::from_f64((*alpha).into() * sum + old);
    }
}

unsafe extern "C" fn gemm<T: TestReal>(
    ta: *const c_char,
    tb: *const c_char,
    m: *const i32,
    n: *const i32,
    k: *const i32,
    alpha: *const T,
    a: *const T,
    lda: *const i32,
    b: *const T,
    ldb: *const i32,
    beta: *const T,
    c: *mut T,
    ldc: *const i32,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let a = reader(a, lda, is(ta, b'T'));
        let b = reader(b, ldb, is(tb, b'T'));
        for j in 0..size(n) {
            for i in 0..size(m) {
                let sum = (0..size(k)).map(|p| a(i, p) * b(p, j)).sum();
                store(c.add(i + j * size(ldc)), sum, alpha, beta);
            }
        }
    }
}

unsafe extern "C" fn syrk<T: TestReal>(
    uplo: *const c_char,
    trans: *const c_char,
    n: *const i32,
    k: *const i32,
    alpha: *const T,
    a: *const T,
    lda: *const i32,
    beta: *const T,
    c: *mut T,
    ldc: *const i32,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let a = reader(a, lda, is(trans, b'T'));
        for j in 0..size(n) {
            for i in 0..size(n) {
                if (i >= j && is(uplo, b'L')) || (i <= j && is(uplo, b'U')) {
                    let sum = (0..size(k)).map(|p| a(i, p) * a(j, p)).sum();
                    store(c.add(i + j * size(ldc)), sum, alpha, beta);
                }
            }
        }
    }
}

unsafe extern "C" fn symm<T: TestReal>(
    side: *const c_char,
    uplo: *const c_char,
    m: *const i32,
    n: *const i32,
    alpha: *const T,
    a: *const T,
    lda: *const i32,
    b: *const T,
    ldb: *const i32,
    beta: *const T,
    c: *mut T,
    ldc: *const i32,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let (stored, b) = (reader(a, lda, false), reader(b, ldb, false));
        let lower = is(uplo, b'L');
        let a = |i: usize, j: usize| {
            if (i >= j) == lower {
                stored(i, j)
            } else {
                stored(j, i)
            }
        };
        for j in 0..size(n) {
            for i in 0..size(m) {
                let sum = if is(side, b'L') {
                    (0..size(m)).map(|p| a(i, p) * b(p, j)).sum()
                } else {
                    (0..size(n)).map(|p| b(i, p) * a(p, j)).sum()
                };
                store(c.add(i + j * size(ldc)), sum, alpha, beta);
            }
        }
    }
}

unsafe extern "C" fn trsm<T: TestReal>(
    side: *const c_char,
    uplo: *const c_char,
    trans: *const c_char,
    diag: *const c_char,
    m: *const i32,
    n: *const i32,
    alpha: *const T,
    a: *const T,
    lda: *const i32,
    b: *mut T,
    ldb: *const i32,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
) {
    // SAFETY: As the caller promises.
    unsafe {
        let a = reader(a, lda, is(trans, b'T'));
        let (left, unit) = (is(side, b'L'), is(diag, b'U'));
        let lower = is(uplo, b'L') != is(trans, b'T');
        let (order, others) = if left {
            (size(m), size(n))
        } else {
            (size(n), size(m))
        };
        let ldb = size(ldb);
        let at = |unknown: usize, other: usize| {
            if left {
                b.add(unknown + other * ldb)
            } else {
                b.add(other + unknown * ldb)
            }
        };
        let forward = lower == left;
        for other in 0..others {
            for step in 0..order {
                let i = if forward { step } else { order - 1 - step };
                let known = if forward { 0..i } else { i + 1..order };
                let mut value: f64 = (*alpha).into() * (*at(i, other)).into();
                for p in known {
                    let factor = if left { a(i, p) } else { a(p, i) };
                    value -= factor * (*at(p, other)).into();
                }
                *at(i, other) = T::from_f64(if unit { value } else { value / a(i, i) });
            }
        }
    }
}

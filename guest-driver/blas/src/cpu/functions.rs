// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Types of the BLAS's functions.
#![forbid(unsafe_code)]

use std::ffi::c_char;

/// Fortran's default integer.
pub type Int = i32;
/// `GEMM`, with the lengths of its character arguments behind it.
pub type GemmFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
    usize,
);
/// `SYRK`, likewise.
pub type SyrkFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
    usize,
);
/// `SYMM`, likewise.
pub type SymmFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
    usize,
);
/// `TRSM`, likewise.
pub type TrsmFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *mut T,
    *const Int,
    usize,
    usize,
    usize,
    usize,
);
/// `GEMV`, likewise.
pub type GemvFn<T> = unsafe extern "C" fn(
    *const c_char,
    *const Int,
    *const Int,
    *const T,
    *const T,
    *const Int,
    *const T,
    *const Int,
    *const T,
    *mut T,
    *const Int,
    usize,
);
/// `DOT`.
pub type DotFn<T> =
    unsafe extern "C" fn(*const Int, *const T, *const Int, *const T, *const Int) -> T;

/// The CPU's functions of one precision.
#[derive(Clone, Copy, Debug)]
pub struct Functions<T> {
    /// Matrix product.
    pub gemm: GemmFn<T>,
    /// Product of a matrix with its transpose.
    pub syrk: SyrkFn<T>,
    /// Product with a symmetric matrix.
    pub symm: SymmFn<T>,
    /// Solution of triangular systems.
    pub trsm: TrsmFn<T>,
}

/// Those of levels 1 and 2.
#[derive(Clone, Copy, Debug)]
pub struct VectorFunctions<T> {
    /// Product of a matrix and a vector.
    pub gemv: GemvFn<T>,
    /// Product of two vectors.
    pub dot: DotFn<T>,
}

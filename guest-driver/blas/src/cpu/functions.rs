// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Types of the BLAS's functions.
#![forbid(unsafe_code)]

use std::ffi::c_char;
use std::fmt::Debug;

/// An integer of a BLAS: 32 bits wide, or 64 (ILP64).
pub trait Integer: Copy + Debug + 'static {
    /// As the wider of the two.
    fn wide(self) -> i64;

    /// A size, if it can be told.
    fn of(size: usize) -> Option<Self>;
}

impl Integer for i32 {
    fn wide(self) -> i64 {
        self.into()
    }

    fn of(size: usize) -> Option<Self> {
        size.try_into().ok()
    }
}

impl Integer for i64 {
    fn wide(self) -> i64 {
        self
    }

    fn of(size: usize) -> Option<Self> {
        size.try_into().ok()
    }
}

/// `GEMM`, with the lengths of its character arguments behind it.
pub type GemmFn<T, I> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const I,
    *const I,
    *const I,
    *const T,
    *const T,
    *const I,
    *const T,
    *const I,
    *const T,
    *mut T,
    *const I,
    usize,
    usize,
);
/// `SYRK`, likewise.
pub type SyrkFn<T, I> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const I,
    *const I,
    *const T,
    *const T,
    *const I,
    *const T,
    *mut T,
    *const I,
    usize,
    usize,
);
/// `SYMM`, likewise.
pub type SymmFn<T, I> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const I,
    *const I,
    *const T,
    *const T,
    *const I,
    *const T,
    *const I,
    *const T,
    *mut T,
    *const I,
    usize,
    usize,
);
/// `TRSM`, likewise.
pub type TrsmFn<T, I> = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
    *const I,
    *const I,
    *const T,
    *const T,
    *const I,
    *mut T,
    *const I,
    usize,
    usize,
    usize,
    usize,
);
/// `GEMV`, likewise.
pub type GemvFn<T, I> = unsafe extern "C" fn(
    *const c_char,
    *const I,
    *const I,
    *const T,
    *const T,
    *const I,
    *const T,
    *const I,
    *const T,
    *mut T,
    *const I,
    usize,
);
/// `DOT`.
pub type DotFn<T, I> = unsafe extern "C" fn(*const I, *const T, *const I, *const T, *const I) -> T;

/// The CPU's functions of one precision.
#[derive(Clone, Copy, Debug)]
pub struct Functions<T, I> {
    /// Matrix product.
    pub gemm: GemmFn<T, I>,
    /// Product of a matrix with its transpose.
    pub syrk: SyrkFn<T, I>,
    /// Product with a symmetric matrix.
    pub symm: SymmFn<T, I>,
    /// Solution of triangular systems.
    pub trsm: TrsmFn<T, I>,
}

/// Those of levels 1 and 2.
#[derive(Clone, Copy, Debug)]
pub struct VectorFunctions<T, I> {
    /// Product of a matrix and a vector.
    pub gemv: GemvFn<T, I>,
    /// Product of two vectors.
    pub dot: DotFn<T, I>,
}

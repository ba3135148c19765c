// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names of the C interface. A row-major matrix is the transpose of a column-major one, so row-major
//! calls become column-major ones of the transposed product.
// UNSAFETY: exported names must not be mangled, and callers hand over raw pointers.
#![expect(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use super::arguments::{self, Shape};
use super::vectors::{self, is_small};
use crate::cpu::{symbol, Ilp64, Integer as _, Lp64, OnCpu, ScipyIlp64, ScipyLp64};
use crate::operation::Side;
use crate::routine::Routine;
use crate::view::Triangle;
use crate::way::{self, Refused};

// The interface's enumerations; values outside of them are wrong arguments.
const TRANS: &[(c_int, bool)] = &[(111, false), (112, true), (113, true)];
const UPLO: &[(c_int, Triangle)] = &[(121, Triangle::Upper), (122, Triangle::Lower)];
const UNIT: &[(c_int, bool)] = &[(131, false), (132, true)];
const SIDE: &[(c_int, Side)] = &[(141, Side::Left), (142, Side::Right)];
/// Whether matrices are row-major.
const LAYOUT: &[(c_int, bool)] = &[(101, true), (102, false)];

fn one_of<V: Copy>(number: c_int, values: &[(c_int, V)]) -> Result<V, Refused> {
    let known = values.iter().find(|&&(known, _)| number == known);
    known.map(|&(_, value)| value).ok_or(Refused::WRONG)
}

macro_rules! cblas {
    ($family:ty, $int:ty, $type:ty: $gemm:ident $syrk:ident $symm:ident $trsm:ident $gemv:ident $dot:ident
     $GEMM:ident $SYRK:ident $SYMM:ident $TRSM:ident $GEMV:ident $DOT:ident) => {
        cblas!(@ $family, $type, $gemm $GEMM "C = alpha·op(A)·op(B) + beta·C.";
            (layout: c_int, transa: c_int, transb: c_int, m: $int, n: $int, k: $int,
             alpha: $type, a: *const $type, lda: $int, b: *const $type, ldb: $int,
             beta: $type, c: *mut $type, ldc: $int) {
                let (m, n, k) = (m.wide(), n.wide(), k.wide());
                let trans = (one_of(transa, TRANS)?, one_of(transb, TRANS)?);
                let (a, b, c) = ((a, lda.wide()), (b, ldb.wide()), (c, ldc.wide()));
                if one_of(layout, LAYOUT)? {
                    let shape = Shape { m: n, n: m, k };
                    arguments::gemm((trans.1, trans.0), shape, alpha, b, a, beta, c)
                } else {
                    arguments::gemm(trans, Shape { m, n, k }, alpha, a, b, beta, c)
                }
            });
        cblas!(@ $family, $type, $syrk $SYRK "C = alpha·op(A)·op(A)ᵀ + beta·C, in one triangle.";
            (layout: c_int, uplo: c_int, trans: c_int, n: $int, k: $int,
             alpha: $type, a: *const $type, lda: $int,
             beta: $type, c: *mut $type, ldc: $int) {
                let (triangle, trans) = (one_of(uplo, UPLO)?, one_of(trans, TRANS)?);
                let form = if one_of(layout, LAYOUT)? {
                    (triangle.flipped(), !trans)
                } else {
                    (triangle, trans)
                };
                arguments::syrk(form, (n.wide(), k.wide()), alpha, (a, lda.wide()), beta, (c, ldc.wide()))
            });
        cblas!(@ $family, $type, $symm $SYMM "C = alpha·A·B + beta·C or alpha·B·A + beta·C, A symmetric.";
            (layout: c_int, side: c_int, uplo: c_int, m: $int, n: $int,
             alpha: $type, a: *const $type, lda: $int, b: *const $type, ldb: $int,
             beta: $type, c: *mut $type, ldc: $int) {
                let (side, triangle) = (one_of(side, SIDE)?, one_of(uplo, UPLO)?);
                let (form, shape) = if one_of(layout, LAYOUT)? {
                    ((side.flipped(), triangle.flipped()), (n.wide(), m.wide()))
                } else {
                    ((side, triangle), (m.wide(), n.wide()))
                };
                arguments::symm(form, shape, alpha, (a, lda.wide()), (b, ldb.wide()), beta, (c, ldc.wide()))
            });
        cblas!(@ $family, $type, $trsm $TRSM
            "Solves op(A)·X = alpha·B or X·op(A) = alpha·B, A triangular, X in the place of B.";
            (layout: c_int, side: c_int, uplo: c_int, transa: c_int, diag: c_int,
             m: $int, n: $int,
             alpha: $type, a: *const $type, lda: $int, b: *mut $type, ldb: $int) {
                let (side, triangle) = (one_of(side, SIDE)?, one_of(uplo, UPLO)?);
                let (trans, unit) = (one_of(transa, TRANS)?, one_of(diag, UNIT)?);
                let (form, shape) = if one_of(layout, LAYOUT)? {
                    ((side.flipped(), triangle.flipped(), trans, unit), (n.wide(), m.wide()))
                } else {
                    ((side, triangle, trans, unit), (m.wide(), n.wide()))
                };
                arguments::trsm(form, shape, alpha, (a, lda.wide()), (b, ldb.wide()))
            });
        cblas!(@ $family, $type, $gemv $GEMV if is_small(m.wide(), n.wide()), "y = alpha·op(A)·x + beta·y.";
            (layout: c_int, trans: c_int, m: $int, n: $int,
             alpha: $type, a: *const $type, lda: $int, x: *const $type, incx: $int,
             beta: $type, y: *mut $type, incy: $int) {
                let trans = one_of(trans, TRANS)?;
                let (form, shape) = if one_of(layout, LAYOUT)? {
                    (!trans, (n.wide(), m.wide()))
                } else {
                    (trans, (m.wide(), n.wide()))
                };
                vectors::gemv(form, shape, alpha, (a, lda.wide()), (x, incx.wide()), beta, (y, incy.wide()))
            });
        /// The sum of the products of the elements of x and y.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $dot(
            n: $int,
            x: *const $type,
            incx: $int,
            y: *const $type,
            incy: $int,
        ) -> $type {
            let mut sum = 0.0;
            let result = &raw mut sum;
            // SAFETY: The contract of the BLAS; the sum is this call's.
            unsafe {
                let cpu = || (<$type as OnCpu<$family>>::vectors().dot)(&n, x, &incx, y, &incy);
                if is_small(n.wide(), 1) {
                    return cpu();
                }
                let call = vectors::dot(n.wide(), (x, incx.wide()), (y, incy.wide()), result);
                way::run::<$family, $type>(Routine::$DOT, call, || *result = cpu());
                // The device has written it behind the compiler's back.
                result.read_volatile()
            }
        }
    };
    (@ $family:ty, $type:ty, $name:ident $routine:ident $(if $small:expr,)? $doc:literal; ($($arg:ident: $kind:ty),*) $parse:block) => {
        #[doc = $doc]
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $name($($arg: $kind),*) {
            type Function = unsafe extern "C" fn($($kind),*);
            static CPU: OnceLock<Function> = OnceLock::new();
            // SAFETY: The contract of the BLAS; what is wrong goes to the CPU's BLAS as it came, to the
            // function of the same name and so of the same type.
            unsafe {
                let parse = || $parse;
                let cpu = || {
                    let function = CPU.get_or_init(|| {
                        let name = const {
                            match std::ffi::CStr::from_bytes_with_nul(
                                concat!(stringify!($name), "\0").as_bytes(),
                            ) {
                                Ok(name) => name,
                                Err(_) => panic!("names hold no zero bytes"),
                            }
                        };
                        std::mem::transmute::<*mut c_void, Function>(symbol(name))
                    });
                    function($($arg),*);
                };
                $(if $small {
                    return cpu();
                })?
                way::run::<$family, $type>(Routine::$routine, parse(), cpu);
            }
        }
    };
}

cblas!(Lp64, i32, f32: cblas_sgemm cblas_ssyrk cblas_ssymm cblas_strsm cblas_sgemv cblas_sdot
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
cblas!(Lp64, i32, f64: cblas_dgemm cblas_dsyrk cblas_dsymm cblas_dtrsm cblas_dgemv cblas_ddot
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);
cblas!(Ilp64, i64, f32: cblas_sgemm64_ cblas_ssyrk64_ cblas_ssymm64_ cblas_strsm64_ cblas_sgemv64_ cblas_sdot64_
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
cblas!(Ilp64, i64, f64: cblas_dgemm64_ cblas_dsyrk64_ cblas_dsymm64_ cblas_dtrsm64_ cblas_dgemv64_ cblas_ddot64_
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);
cblas!(ScipyLp64, i32, f32: scipy_cblas_sgemm scipy_cblas_ssyrk scipy_cblas_ssymm scipy_cblas_strsm scipy_cblas_sgemv scipy_cblas_sdot
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
cblas!(ScipyLp64, i32, f64: scipy_cblas_dgemm scipy_cblas_dsyrk scipy_cblas_dsymm scipy_cblas_dtrsm scipy_cblas_dgemv scipy_cblas_ddot
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);
cblas!(ScipyIlp64, i64, f32: scipy_cblas_sgemm64_ scipy_cblas_ssyrk64_ scipy_cblas_ssymm64_ scipy_cblas_strsm64_ scipy_cblas_sgemv64_ scipy_cblas_sdot64_
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
cblas!(ScipyIlp64, i64, f64: scipy_cblas_dgemm64_ scipy_cblas_dsyrk64_ scipy_cblas_dsymm64_ scipy_cblas_dtrsm64_ scipy_cblas_dgemv64_ scipy_cblas_ddot64_
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);

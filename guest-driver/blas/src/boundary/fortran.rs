// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The BLAS's own names. All arguments are pointers; letters may be of either case.
//!
//! Compilers of Fortran pass the lengths of letters behind the other arguments and other callers do not,
//! so they are not looked at; the CPU's BLAS gets them.
// UNSAFETY: exported names must not be mangled, and callers hand over raw pointers.
#![expect(unsafe_code)]

use std::ffi::c_char;

use super::arguments::{self, Shape};
use super::vectors::{self, is_small};
use crate::cpu::{Int, OnCpu};
use crate::operation::Side;
use crate::routine::Routine;
use crate::view::Triangle;
use crate::way::{self, Refused};

/// The value of a letter, if it is one of the given.
///
/// # Safety
///
/// `letter` may be read.
unsafe fn one_of<V: Copy>(letter: *const c_char, values: &[(u8, V)]) -> Result<V, Refused> {
    // SAFETY: As the caller promises.
    let letter = unsafe { *letter } as u8;
    let known = values
        .iter()
        .find(|(known, _)| letter.eq_ignore_ascii_case(known));
    known.map(|&(_, value)| value).ok_or(Refused::WRONG)
}

const TRANS: &[(u8, bool)] = &[(b'N', false), (b'T', true), (b'C', true)];
const UPLO: &[(u8, Triangle)] = &[(b'U', Triangle::Upper), (b'L', Triangle::Lower)];
const SIDE: &[(u8, Side)] = &[(b'L', Side::Left), (b'R', Side::Right)];
const UNIT: &[(u8, bool)] = &[(b'N', false), (b'U', true)];

macro_rules! fortran {
    ($type:ty: $gemm:ident $syrk:ident $symm:ident $trsm:ident $gemv:ident $dot:ident
     $GEMM:ident $SYRK:ident $SYMM:ident $TRSM:ident $GEMV:ident $DOT:ident) => {
        /// C = alpha·op(A)·op(B) + beta·C.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $gemm(
            transa: *const c_char,
            transb: *const c_char,
            m: *const Int,
            n: *const Int,
            k: *const Int,
            alpha: *const $type,
            a: *const $type,
            lda: *const Int,
            b: *const $type,
            ldb: *const Int,
            beta: *const $type,
            c: *mut $type,
            ldc: *const Int,
        ) {
            // SAFETY: The contract of the BLAS: numbers and letters may be read, matrices are as they
            // say; what is wrong goes to the CPU's BLAS as it came.
            unsafe {
                let parse = || {
                    arguments::gemm(
                        (one_of(transa, TRANS)?, one_of(transb, TRANS)?),
                        Shape {
                            m: *m,
                            n: *n,
                            k: *k,
                        },
                        *alpha,
                        (a, *lda),
                        (b, *ldb),
                        *beta,
                        (c, *ldc),
                    )
                };
                way::run(Routine::$GEMM, parse(), || {
                    let cpu = <$type>::cpu().functions();
                    (cpu.gemm)(
                        transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, 1, 1,
                    );
                });
            }
        }

        /// C = alpha·op(A)·op(A)ᵀ + beta·C, in one triangle.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $syrk(
            uplo: *const c_char,
            trans: *const c_char,
            n: *const Int,
            k: *const Int,
            alpha: *const $type,
            a: *const $type,
            lda: *const Int,
            beta: *const $type,
            c: *mut $type,
            ldc: *const Int,
        ) {
            // SAFETY: As above.
            unsafe {
                let parse = || {
                    arguments::syrk(
                        (one_of(uplo, UPLO)?, one_of(trans, TRANS)?),
                        (*n, *k),
                        *alpha,
                        (a, *lda),
                        *beta,
                        (c, *ldc),
                    )
                };
                way::run(Routine::$SYRK, parse(), || {
                    let cpu = <$type>::cpu().functions();
                    (cpu.syrk)(uplo, trans, n, k, alpha, a, lda, beta, c, ldc, 1, 1);
                });
            }
        }

        /// C = alpha·A·B + beta·C or alpha·B·A + beta·C, A symmetric.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $symm(
            side: *const c_char,
            uplo: *const c_char,
            m: *const Int,
            n: *const Int,
            alpha: *const $type,
            a: *const $type,
            lda: *const Int,
            b: *const $type,
            ldb: *const Int,
            beta: *const $type,
            c: *mut $type,
            ldc: *const Int,
        ) {
            // SAFETY: As above.
            unsafe {
                let parse = || {
                    arguments::symm(
                        (one_of(side, SIDE)?, one_of(uplo, UPLO)?),
                        (*m, *n),
                        *alpha,
                        (a, *lda),
                        (b, *ldb),
                        *beta,
                        (c, *ldc),
                    )
                };
                way::run(Routine::$SYMM, parse(), || {
                    let cpu = <$type>::cpu().functions();
                    (cpu.symm)(side, uplo, m, n, alpha, a, lda, b, ldb, beta, c, ldc, 1, 1);
                });
            }
        }

        /// Solves op(A)·X = alpha·B or X·op(A) = alpha·B, A triangular, X in the place of B.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $trsm(
            side: *const c_char,
            uplo: *const c_char,
            transa: *const c_char,
            diag: *const c_char,
            m: *const Int,
            n: *const Int,
            alpha: *const $type,
            a: *const $type,
            lda: *const Int,
            b: *mut $type,
            ldb: *const Int,
        ) {
            // SAFETY: As above.
            unsafe {
                let parse = || {
                    arguments::trsm(
                        (
                            one_of(side, SIDE)?,
                            one_of(uplo, UPLO)?,
                            one_of(transa, TRANS)?,
                            one_of(diag, UNIT)?,
                        ),
                        (*m, *n),
                        *alpha,
                        (a, *lda),
                        (b, *ldb),
                    )
                };
                way::run(Routine::$TRSM, parse(), || {
                    let cpu = <$type>::cpu().functions();
                    (cpu.trsm)(
                        side, uplo, transa, diag, m, n, alpha, a, lda, b, ldb, 1, 1, 1, 1,
                    );
                });
            }
        }

        /// y = alpha·op(A)·x + beta·y.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $gemv(
            trans: *const c_char,
            m: *const Int,
            n: *const Int,
            alpha: *const $type,
            a: *const $type,
            lda: *const Int,
            x: *const $type,
            incx: *const Int,
            beta: *const $type,
            y: *mut $type,
            incy: *const Int,
        ) {
            // SAFETY: As above.
            unsafe {
                let cpu = || {
                    let function = <$type>::vectors().gemv;
                    function(trans, m, n, alpha, a, lda, x, incx, beta, y, incy, 1);
                };
                if is_small(*m, *n) {
                    return cpu();
                }
                let parse = || {
                    vectors::gemv(
                        one_of(trans, TRANS)?,
                        (*m, *n),
                        *alpha,
                        (a, *lda),
                        (x, *incx),
                        *beta,
                        (y, *incy),
                    )
                };
                way::run(Routine::$GEMV, parse(), cpu);
            }
        }

        /// The sum of the products of the elements of x and y.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $dot(
            n: *const Int,
            x: *const $type,
            incx: *const Int,
            y: *const $type,
            incy: *const Int,
        ) -> $type {
            let mut sum = 0.0;
            let result = &raw mut sum;
            // SAFETY: As above; the sum is this call's.
            unsafe {
                let cpu = || (<$type>::vectors().dot)(n, x, incx, y, incy);
                if is_small(*n, 1) {
                    return cpu();
                }
                let call = vectors::dot(*n, (x, *incx), (y, *incy), result);
                way::run(Routine::$DOT, call, || *result = cpu());
                // The device has written it behind the compiler's back.
                result.read_volatile()
            }
        }
    };
}

fortran!(f32: sgemm_ ssyrk_ ssymm_ strsm_ sgemv_ sdot_
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
fortran!(f64: dgemm_ dsyrk_ dsymm_ dtrsm_ dgemv_ ddot_
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);

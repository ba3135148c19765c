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
use crate::cpu::{Ilp64, Integer as _, Lp64, OnCpu, ScipyIlp64, ScipyLp64};
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
    ($family:ty, $int:ty, $type:ty: $gemm:ident $syrk:ident $symm:ident $trsm:ident $gemv:ident $dot:ident
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
            m: *const $int,
            n: *const $int,
            k: *const $int,
            alpha: *const $type,
            a: *const $type,
            lda: *const $int,
            b: *const $type,
            ldb: *const $int,
            beta: *const $type,
            c: *mut $type,
            ldc: *const $int,
        ) {
            // SAFETY: The contract of the BLAS: numbers and letters may be read, matrices are as they
            // say; what is wrong goes to the CPU's BLAS as it came.
            unsafe {
                let parse = || {
                    arguments::gemm(
                        (one_of(transa, TRANS)?, one_of(transb, TRANS)?),
                        Shape {
                            m: (*m).wide(),
                            n: (*n).wide(),
                            k: (*k).wide(),
                        },
                        *alpha,
                        (a, (*lda).wide()),
                        (b, (*ldb).wide()),
                        *beta,
                        (c, (*ldc).wide()),
                    )
                };
                way::run::<$family, $type>(Routine::$GEMM, parse(), || {
                    let cpu = <$type as OnCpu<$family>>::cpu().functions();
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
            n: *const $int,
            k: *const $int,
            alpha: *const $type,
            a: *const $type,
            lda: *const $int,
            beta: *const $type,
            c: *mut $type,
            ldc: *const $int,
        ) {
            // SAFETY: As above.
            unsafe {
                let parse = || {
                    arguments::syrk(
                        (one_of(uplo, UPLO)?, one_of(trans, TRANS)?),
                        ((*n).wide(), (*k).wide()),
                        *alpha,
                        (a, (*lda).wide()),
                        *beta,
                        (c, (*ldc).wide()),
                    )
                };
                way::run::<$family, $type>(Routine::$SYRK, parse(), || {
                    let cpu = <$type as OnCpu<$family>>::cpu().functions();
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
            m: *const $int,
            n: *const $int,
            alpha: *const $type,
            a: *const $type,
            lda: *const $int,
            b: *const $type,
            ldb: *const $int,
            beta: *const $type,
            c: *mut $type,
            ldc: *const $int,
        ) {
            // SAFETY: As above.
            unsafe {
                let parse = || {
                    arguments::symm(
                        (one_of(side, SIDE)?, one_of(uplo, UPLO)?),
                        ((*m).wide(), (*n).wide()),
                        *alpha,
                        (a, (*lda).wide()),
                        (b, (*ldb).wide()),
                        *beta,
                        (c, (*ldc).wide()),
                    )
                };
                way::run::<$family, $type>(Routine::$SYMM, parse(), || {
                    let cpu = <$type as OnCpu<$family>>::cpu().functions();
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
            m: *const $int,
            n: *const $int,
            alpha: *const $type,
            a: *const $type,
            lda: *const $int,
            b: *mut $type,
            ldb: *const $int,
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
                        ((*m).wide(), (*n).wide()),
                        *alpha,
                        (a, (*lda).wide()),
                        (b, (*ldb).wide()),
                    )
                };
                way::run::<$family, $type>(Routine::$TRSM, parse(), || {
                    let cpu = <$type as OnCpu<$family>>::cpu().functions();
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
            m: *const $int,
            n: *const $int,
            alpha: *const $type,
            a: *const $type,
            lda: *const $int,
            x: *const $type,
            incx: *const $int,
            beta: *const $type,
            y: *mut $type,
            incy: *const $int,
        ) {
            // SAFETY: As above.
            unsafe {
                let cpu = || {
                    let function = <$type as OnCpu<$family>>::vectors().gemv;
                    function(trans, m, n, alpha, a, lda, x, incx, beta, y, incy, 1);
                };
                if is_small((*m).wide(), (*n).wide()) {
                    return cpu();
                }
                let parse = || {
                    vectors::gemv(
                        one_of(trans, TRANS)?,
                        ((*m).wide(), (*n).wide()),
                        *alpha,
                        (a, (*lda).wide()),
                        (x, (*incx).wide()),
                        *beta,
                        (y, (*incy).wide()),
                    )
                };
                way::run::<$family, $type>(Routine::$GEMV, parse(), cpu);
            }
        }

        /// The sum of the products of the elements of x and y.
        ///
        /// # Safety
        ///
        /// The contract of the BLAS.
        #[no_mangle]
        pub unsafe extern "C" fn $dot(
            n: *const $int,
            x: *const $type,
            incx: *const $int,
            y: *const $type,
            incy: *const $int,
        ) -> $type {
            let mut sum = 0.0;
            let result = &raw mut sum;
            // SAFETY: As above; the sum is this call's.
            unsafe {
                let cpu = || (<$type as OnCpu<$family>>::vectors().dot)(n, x, incx, y, incy);
                if is_small((*n).wide(), 1) {
                    return cpu();
                }
                let call = vectors::dot(
                    (*n).wide(),
                    (x, (*incx).wide()),
                    (y, (*incy).wide()),
                    result,
                );
                way::run::<$family, $type>(Routine::$DOT, call, || *result = cpu());
                // The device has written it behind the compiler's back.
                result.read_volatile()
            }
        }
    };
}

fortran!(Lp64, i32, f32: sgemm_ ssyrk_ ssymm_ strsm_ sgemv_ sdot_
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
fortran!(Lp64, i32, f64: dgemm_ dsyrk_ dsymm_ dtrsm_ dgemv_ ddot_
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);
fortran!(Ilp64, i64, f32: sgemm_64_ ssyrk_64_ ssymm_64_ strsm_64_ sgemv_64_ sdot_64_
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
fortran!(Ilp64, i64, f64: dgemm_64_ dsyrk_64_ dsymm_64_ dtrsm_64_ dgemv_64_ ddot_64_
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);
fortran!(ScipyLp64, i32, f32: scipy_sgemm_ scipy_ssyrk_ scipy_ssymm_ scipy_strsm_ scipy_sgemv_ scipy_sdot_
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
fortran!(ScipyLp64, i32, f64: scipy_dgemm_ scipy_dsyrk_ scipy_dsymm_ scipy_dtrsm_ scipy_dgemv_ scipy_ddot_
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);
fortran!(ScipyIlp64, i64, f32: scipy_sgemm_64_ scipy_ssyrk_64_ scipy_ssymm_64_ scipy_strsm_64_ scipy_sgemv_64_ scipy_sdot_64_
    Sgemm Ssyrk Ssymm Strsm Sgemv Sdot);
fortran!(ScipyIlp64, i64, f64: scipy_dgemm_64_ scipy_dsyrk_64_ scipy_dsymm_64_ scipy_dtrsm_64_ scipy_dgemv_64_ scipy_ddot_64_
    Dgemm Dsyrk Dsymm Dtrsm Dgemv Ddot);

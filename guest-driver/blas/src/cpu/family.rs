// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names that libraries have a BLAS under. One that programs bring along has names of its own, lest it be
//! taken for the machine's, and often integers of 64 bits.
// UNSAFETY: symbols become functions of the BLAS's types.
#![expect(unsafe_code)]

use std::ffi::c_void;
use std::sync::OnceLock;

use super::functions::{DotFn, GemmFn, GemvFn, Integer, SymmFn, SyrkFn, TrsmFn};
use super::{symbol, Blas, Functions};
use crate::cpu::functions::VectorFunctions;
use crate::real::Real;

/// Names of one form.
pub trait Family: 'static {
    /// Their integer.
    type Int: Integer;
}

/// `dgemm_`, `cblas_dgemm`: the BLAS's own.
#[derive(Debug)]
pub struct Lp64;
/// `dgemm_64_`, `cblas_dgemm64_`: OpenBLAS for Julia and others.
#[derive(Debug)]
pub struct Ilp64;
/// `scipy_dgemm_`, `scipy_cblas_dgemm`: OpenBLAS in scipy's wheels.
#[derive(Debug)]
pub struct ScipyLp64;
/// `scipy_dgemm_64_`, `scipy_cblas_dgemm64_`: OpenBLAS in numpy's wheels.
#[derive(Debug)]
pub struct ScipyIlp64;

impl Family for Lp64 {
    type Int = i32;
}

impl Family for Ilp64 {
    type Int = i64;
}

impl Family for ScipyLp64 {
    type Int = i32;
}

impl Family for ScipyIlp64 {
    type Int = i64;
}

/// A precision that the CPU's BLAS has functions of, by the names of a family.
pub trait OnCpu<F: Family>: Real {
    /// The CPU's BLAS of level 3.
    fn cpu() -> &'static Blas<Self, F::Int>;
    /// Its functions of levels 1 and 2.
    fn vectors() -> &'static VectorFunctions<Self, F::Int>;
}

macro_rules! on_cpu {
    ($family:ty, $int:ty, $type:ty: $gemm:literal $syrk:literal $symm:literal $trsm:literal
     $gemv:literal $dot:literal) => {
        impl OnCpu<$family> for $type {
            fn cpu() -> &'static Blas<Self, $int> {
                static CPU: OnceLock<Blas<$type, $int>> = OnceLock::new();
                CPU.get_or_init(|| {
                    // SAFETY: A library that is a BLAS has functions of these types under these
                    // names; the lengths behind their arguments are what Fortran compilers pass, and
                    // a function in C ignores them.
                    unsafe {
                        use std::mem::transmute;
                        Blas::new(Functions {
                            gemm: transmute::<*mut c_void, GemmFn<$type, $int>>(symbol($gemm)),
                            syrk: transmute::<*mut c_void, SyrkFn<$type, $int>>(symbol($syrk)),
                            symm: transmute::<*mut c_void, SymmFn<$type, $int>>(symbol($symm)),
                            trsm: transmute::<*mut c_void, TrsmFn<$type, $int>>(symbol($trsm)),
                        })
                    }
                })
            }

            fn vectors() -> &'static VectorFunctions<Self, $int> {
                static CPU: OnceLock<VectorFunctions<$type, $int>> = OnceLock::new();
                CPU.get_or_init(|| {
                    // SAFETY: As above.
                    unsafe {
                        use std::mem::transmute;
                        VectorFunctions {
                            gemv: transmute::<*mut c_void, GemvFn<$type, $int>>(symbol($gemv)),
                            dot: transmute::<*mut c_void, DotFn<$type, $int>>(symbol($dot)),
                        }
                    }
                })
            }
        }
    };
}

on_cpu!(Lp64, i32, f32: c"sgemm_" c"ssyrk_" c"ssymm_" c"strsm_" c"sgemv_" c"sdot_");
on_cpu!(Lp64, i32, f64: c"dgemm_" c"dsyrk_" c"dsymm_" c"dtrsm_" c"dgemv_" c"ddot_");
on_cpu!(Ilp64, i64, f32: c"sgemm_64_" c"ssyrk_64_" c"ssymm_64_" c"strsm_64_" c"sgemv_64_" c"sdot_64_");
on_cpu!(Ilp64, i64, f64: c"dgemm_64_" c"dsyrk_64_" c"dsymm_64_" c"dtrsm_64_" c"dgemv_64_" c"ddot_64_");
on_cpu!(ScipyLp64, i32, f32: c"scipy_sgemm_" c"scipy_ssyrk_" c"scipy_ssymm_" c"scipy_strsm_" c"scipy_sgemv_" c"scipy_sdot_");
on_cpu!(ScipyLp64, i32, f64: c"scipy_dgemm_" c"scipy_dsyrk_" c"scipy_dsymm_" c"scipy_dtrsm_" c"scipy_dgemv_" c"scipy_ddot_");
on_cpu!(ScipyIlp64, i64, f32: c"scipy_sgemm_64_" c"scipy_ssyrk_64_" c"scipy_ssymm_64_" c"scipy_strsm_64_" c"scipy_sgemv_64_" c"scipy_sdot_64_");
on_cpu!(ScipyIlp64, i64, f64: c"scipy_dgemm_64_" c"scipy_dsyrk_64_" c"scipy_dsymm_64_" c"scipy_dtrsm_64_" c"scipy_dgemv_64_" c"scipy_ddot_64_");

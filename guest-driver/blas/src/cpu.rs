// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The CPU's BLAS: the functions of the same names in the library behind this one, and the operations made
//! by them.
// UNSAFETY: functions of the BLAS's types are called, which take matrices by bare addresses.
#![expect(unsafe_code)]

mod functions;
mod symbols;

use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use crate::operation::{Call, Product, Side, Symm, Syrk, Trsm};
use crate::real::Real;
use crate::view::Triangle;

pub use functions::{Functions, Int, VectorFunctions};
pub use symbols::symbol;

use functions::{DotFn, GemmFn, GemvFn, SymmFn, SyrkFn, TrsmFn};

/// Makes operations by the CPU.
///
/// # Invariants
///
/// The functions are a BLAS's: they read and write what its definition says of their arguments, and nothing
/// else.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<T>(Functions<T>);

impl<T: Real> Cpu<T> {
    /// Makes operations by functions.
    ///
    /// # Safety
    ///
    /// They are a BLAS's.
    pub const unsafe fn new(functions: Functions<T>) -> Self {
        // INVARIANT: As the caller promises.
        Self(functions)
    }

    /// The functions.
    pub fn functions(&self) -> &Functions<T> {
        &self.0
    }

    /// Makes a call.
    pub fn call(&self, call: Call<'_, T>) {
        match call {
            Call::Gemm(product) => self.gemm(product),
            Call::Syrk(syrk) => self.syrk(syrk),
            Call::Symm(symm) => self.symm(symm),
            Call::Trsm(trsm) => self.trsm(trsm),
        }
    }

    /// Makes a product.
    pub fn gemm(&self, product: Product<'_, T>) {
        product.assert_fits();
        let (a, b) = (product.a.stored.matrix(), product.b.stored.matrix());
        let c = product.c.matrix();
        // SAFETY: The sizes, which fit each other, and leading dimensions are the views', whose elements may be
        // read and written as long as this call has them. The function is a BLAS's.
        unsafe {
            (self.0.gemm)(
                transposition(product.a.trans),
                transposition(product.b.trans),
                &int(c.rows),
                &int(c.cols),
                &int(product.depth()),
                &product.alpha,
                a.at,
                &int(a.ld),
                b.at,
                &int(b.ld),
                &product.beta,
                c.at,
                &int(c.ld),
                1,
                1,
            );
        }
    }

    /// Makes a product of a matrix with its transpose.
    pub fn syrk(&self, syrk: Syrk<'_, T>) {
        syrk.assert_fits();
        let (a, c) = (syrk.a.stored.matrix(), syrk.c.matrix());
        // SAFETY: As for `gemm`; of C only the triangle is accessed.
        unsafe {
            (self.0.syrk)(
                uplo(syrk.c.triangle()),
                transposition(syrk.a.trans),
                &int(c.rows),
                &int(syrk.a.cols()),
                &syrk.alpha,
                a.at,
                &int(a.ld),
                &syrk.beta,
                c.at,
                &int(c.ld),
                1,
                1,
            );
        }
    }

    /// Makes a product with a symmetric matrix.
    pub fn symm(&self, symm: Symm<'_, T>) {
        symm.assert_fits();
        let (a, b, c) = (symm.a.matrix(), symm.b.matrix(), symm.c.matrix());
        // SAFETY: As for `gemm`; of A only the triangle is read.
        unsafe {
            (self.0.symm)(
                side(symm.side),
                uplo(symm.a.triangle()),
                &int(c.rows),
                &int(c.cols),
                &symm.alpha,
                a.at,
                &int(a.ld),
                b.at,
                &int(b.ld),
                &symm.beta,
                c.at,
                &int(c.ld),
                1,
                1,
            );
        }
    }

    /// Solves triangular systems.
    pub fn trsm(&self, trsm: Trsm<'_, T>) {
        trsm.assert_fits();
        let (a, b) = (trsm.a.matrix(), trsm.b.matrix());
        let diagonal = if trsm.unit { c"U" } else { c"N" };
        // SAFETY: As for `gemm`, with B as the destination; of A only the triangle is read.
        unsafe {
            (self.0.trsm)(
                side(trsm.side),
                uplo(trsm.a.triangle()),
                transposition(trsm.trans),
                diagonal.as_ptr(),
                &int(b.rows),
                &int(b.cols),
                &trsm.alpha,
                a.at,
                &int(a.ld),
                b.at,
                &int(b.ld),
                1,
                1,
                1,
                1,
            );
        }
    }
}

fn transposition(trans: bool) -> *const c_char {
    let letter = if trans { c"T" } else { c"N" };
    letter.as_ptr()
}

fn uplo(triangle: Triangle) -> *const c_char {
    let letter = match triangle {
        Triangle::Upper => c"U",
        Triangle::Lower => c"L",
    };
    letter.as_ptr()
}

fn side(side: Side) -> *const c_char {
    let letter = match side {
        Side::Left => c"L",
        Side::Right => c"R",
    };
    letter.as_ptr()
}

/// A size, which came from an integer of the BLAS's.
fn int(size: usize) -> Int {
    Int::try_from(size).expect("parts of a call are no larger than its matrices")
}

/// A precision that the CPU's BLAS has functions of.
pub trait OnCpu: Real {
    /// Makes operations by the CPU.
    fn cpu() -> &'static Cpu<Self>;
    /// The CPU's functions of levels 1 and 2.
    fn vectors() -> &'static VectorFunctions<Self>;
}

macro_rules! on_cpu {
    ($type:ty: $gemm:literal $syrk:literal $symm:literal $trsm:literal
     $gemv:literal $dot:literal) => {
        impl OnCpu for $type {
            fn cpu() -> &'static Cpu<Self> {
                static CPU: OnceLock<Cpu<$type>> = OnceLock::new();
                CPU.get_or_init(|| {
                    // SAFETY: A library that is a BLAS has functions of these types under these
                    // names; the lengths behind their arguments are what Fortran compilers pass, and
                    // a function in C ignores them.
                    unsafe {
                        Cpu::new(Functions {
                            gemm: std::mem::transmute::<*mut c_void, GemmFn<$type>>(symbol($gemm)),
                            syrk: std::mem::transmute::<*mut c_void, SyrkFn<$type>>(symbol($syrk)),
                            symm: std::mem::transmute::<*mut c_void, SymmFn<$type>>(symbol($symm)),
                            trsm: std::mem::transmute::<*mut c_void, TrsmFn<$type>>(symbol($trsm)),
                        })
                    }
                })
            }

            fn vectors() -> &'static VectorFunctions<Self> {
                static CPU: OnceLock<VectorFunctions<$type>> = OnceLock::new();
                CPU.get_or_init(|| {
                    // SAFETY: As above.
                    unsafe {
                        VectorFunctions {
                            gemv: std::mem::transmute::<*mut c_void, GemvFn<$type>>(symbol($gemv)),
                            dot: std::mem::transmute::<*mut c_void, DotFn<$type>>(symbol($dot)),
                        }
                    }
                })
            }
        }
    };
}

on_cpu!(f32: c"sgemm_" c"ssyrk_" c"ssymm_" c"strsm_" c"sgemv_" c"sdot_");
on_cpu!(f64: c"dgemm_" c"dsyrk_" c"dsymm_" c"dtrsm_" c"dgemv_" c"ddot_");

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The CPU's BLAS: the functions of the same names in the library behind this one, and the operations made
//! by them.
// UNSAFETY: functions of the BLAS's types are called, which take matrices by bare addresses.
#![expect(unsafe_code)]

mod family;
mod functions;
mod symbols;

use std::ffi::c_char;

use crate::operation::{Call, Product, Side, Symm, Syrk, Trsm};
use crate::real::Real;
use crate::view::Triangle;

pub use family::{Family, Ilp64, Lp64, OnCpu, ScipyIlp64, ScipyLp64};
pub use functions::{Functions, Integer};
pub use symbols::symbol;

/// Makes operations by the CPU.
pub trait Cpu<T: Real> {
    /// Makes a product.
    fn gemm(&self, product: Product<'_, T>);

    /// Makes a product of a matrix with its transpose.
    fn syrk(&self, syrk: Syrk<'_, T>);

    /// Makes a product with a symmetric matrix.
    fn symm(&self, symm: Symm<'_, T>);

    /// Solves triangular systems.
    fn trsm(&self, trsm: Trsm<'_, T>);

    /// Makes a call.
    fn call(&self, call: Call<'_, T>) {
        match call {
            Call::Gemm(product) => self.gemm(product),
            Call::Syrk(syrk) => self.syrk(syrk),
            Call::Symm(symm) => self.symm(symm),
            Call::Trsm(trsm) => self.trsm(trsm),
        }
    }
}

/// A BLAS of some integer.
///
/// # Invariants
///
/// The functions are a BLAS's: they read and write what its definition says of their arguments, and nothing
/// else.
#[derive(Clone, Copy, Debug)]
pub struct Blas<T, I>(Functions<T, I>);

impl<T: Real, I: Integer> Blas<T, I> {
    /// A BLAS of some functions.
    ///
    /// # Safety
    ///
    /// They are a BLAS's.
    pub const unsafe fn new(functions: Functions<T, I>) -> Self {
        // INVARIANT: As the caller promises.
        Self(functions)
    }

    /// The functions.
    pub fn functions(&self) -> &Functions<T, I> {
        &self.0
    }
}

impl<T: Real, I: Integer> Cpu<T> for Blas<T, I> {
    fn gemm(&self, product: Product<'_, T>) {
        product.assert_fits();
        let (a, b) = (product.a.stored.matrix(), product.b.stored.matrix());
        let c = product.c.matrix();
        // SAFETY: The sizes, which fit each other, and leading dimensions are the views', whose elements may be
        // read and written as long as this call has them. The function is a BLAS's.
        unsafe {
            (self.0.gemm)(
                transposition(product.a.trans),
                transposition(product.b.trans),
                &int::<I>(c.rows),
                &int::<I>(c.cols),
                &int::<I>(product.depth()),
                &product.alpha,
                a.at,
                &int::<I>(a.ld),
                b.at,
                &int::<I>(b.ld),
                &product.beta,
                c.at,
                &int::<I>(c.ld),
                1,
                1,
            );
        }
    }

    fn syrk(&self, syrk: Syrk<'_, T>) {
        syrk.assert_fits();
        let (a, c) = (syrk.a.stored.matrix(), syrk.c.matrix());
        // SAFETY: As for `gemm`; of C only the triangle is accessed.
        unsafe {
            (self.0.syrk)(
                uplo(syrk.c.triangle()),
                transposition(syrk.a.trans),
                &int::<I>(c.rows),
                &int::<I>(syrk.a.cols()),
                &syrk.alpha,
                a.at,
                &int::<I>(a.ld),
                &syrk.beta,
                c.at,
                &int::<I>(c.ld),
                1,
                1,
            );
        }
    }

    fn symm(&self, symm: Symm<'_, T>) {
        symm.assert_fits();
        let (a, b, c) = (symm.a.matrix(), symm.b.matrix(), symm.c.matrix());
        // SAFETY: As for `gemm`; of A only the triangle is read.
        unsafe {
            (self.0.symm)(
                side(symm.side),
                uplo(symm.a.triangle()),
                &int::<I>(c.rows),
                &int::<I>(c.cols),
                &symm.alpha,
                a.at,
                &int::<I>(a.ld),
                b.at,
                &int::<I>(b.ld),
                &symm.beta,
                c.at,
                &int::<I>(c.ld),
                1,
                1,
            );
        }
    }

    fn trsm(&self, trsm: Trsm<'_, T>) {
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
                &int::<I>(b.rows),
                &int::<I>(b.cols),
                &trsm.alpha,
                a.at,
                &int::<I>(a.ld),
                b.at,
                &int::<I>(b.ld),
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
fn int<I: Integer>(size: usize) -> I {
    I::of(size).expect("parts of a call are no larger than its matrices")
}

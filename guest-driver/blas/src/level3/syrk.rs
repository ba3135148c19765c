// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Product of a matrix with its transpose, of which one triangle is stored.
//!
//! Below (or above) the diagonal it is a product like any other, block column by block column. Blocks on
//! the diagonal are made whole in memory beside the program's, and the CPU adds the half that is
//! stored: the other half of C is the program's own and is not touched.
// UNSAFETY: triangles are combined by bare addresses.
#![expect(unsafe_code)]

use crate::cpu::{Cpu, Int};
use crate::device::{Device, Product};
use crate::level3::{Offload, Triangle};
use crate::matrix::{Matrix, Operand};
use crate::outcome::Reason;
use crate::real::Real;

/// Columns of a block: on the diagonal twice the work is done that is needed, beside it the CPU does
/// nothing.
const BLOCK: usize = 256;

/// alpha·op(A)·op(A)ᵀ + beta·C.
#[derive(Clone, Copy, Debug)]
pub struct Syrk<T> {
    /// The triangle of C that is stored.
    pub triangle: Triangle,
    /// Factor of the product.
    pub alpha: T,
    /// op(A), n×k.
    pub a: Operand<T>,
    /// Factor of the old C.
    pub beta: T,
    /// Destination, n×n.
    pub c: Matrix<T>,
}

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Makes the triangle, wherever.
    ///
    /// # Safety
    ///
    /// As [`gemm`](Self::gemm), of the stored triangle of C.
    pub unsafe fn syrk(&mut self, syrk: &Syrk<T>) {
        let (n, k) = (syrk.c.rows, syrk.a.cols());
        let Some(scratch) = self.pool.take(BLOCK * BLOCK * size_of::<T>()) else {
            self.outcome.failed(Reason::Busy);
            // SAFETY: As the caller promises.
            return unsafe { syrk.on_cpu(self.cpu) };
        };
        for start in (0..n).step_by(BLOCK) {
            let width = BLOCK.min(n - start);
            let own = syrk.a.block(start, 0, width, k);
            let (row, rows) = match syrk.triangle {
                Triangle::Lower => (start + width, n - start - width),
                Triangle::Upper => (0, start),
            };
            let diagonal = scratch.matrix(0, width, width);
            // SAFETY:
            // - Both blocks of C lie in the stored triangle, of which the caller speaks.
            // - `diagonal` lies in memory that only this call uses, and has been written by the time
            //   it is added.
            unsafe {
                self.gemm(&Product {
                    alpha: syrk.alpha,
                    a: syrk.a.block(row, 0, rows, k),
                    b: own.transposed(),
                    beta: syrk.beta,
                    c: syrk.c.block(row, start, rows, width),
                });
                self.gemm(&Product {
                    alpha: syrk.alpha,
                    a: own,
                    b: own.transposed(),
                    beta: T::ZERO,
                    c: diagonal,
                });
                let c = syrk.c.block(start, start, width, width);
                add_triangle(&c, syrk.beta, &diagonal, syrk.triangle);
            }
        }
        self.pool.give(scratch);
    }
}

impl<T: Real> Syrk<T> {
    /// Lets the CPU make it.
    ///
    /// # Safety
    ///
    /// As [`Product::on_cpu`].
    pub unsafe fn on_cpu(&self, cpu: &Cpu<T>) {
        let uplo = self.triangle.letter();
        let trans = if self.a.trans { c"T" } else { c"N" };
        let int = |size: usize| size as Int;
        // SAFETY: The shape is the one that the caller of the BLAS gave.
        unsafe {
            (cpu.syrk)(
                uplo.as_ptr(),
                trans.as_ptr(),
                &int(self.c.rows),
                &int(self.a.cols()),
                &self.alpha,
                self.a.stored.at,
                &int(self.a.stored.ld),
                &self.beta,
                self.c.at,
                &int(self.c.ld),
                1,
                1,
            );
        }
    }
}

/// C = beta·C + P in one triangle; C is not read if beta is 0.
///
/// # Safety
///
/// The triangle of `c` may be read and written, and `product`, of the same shape, has been written.
unsafe fn add_triangle<T: Real>(c: &Matrix<T>, beta: T, product: &Matrix<T>, triangle: Triangle) {
    for col in 0..c.cols {
        let rows = match triangle {
            Triangle::Lower => col..c.rows,
            Triangle::Upper => 0..col + 1,
        };
        for row in rows {
            let to = c.element(row, col);
            // SAFETY: An element of the triangle, and one of the product.
            unsafe {
                let value = *product.element(row, col);
                *to = if beta == T::ZERO {
                    value
                } else {
                    value + beta * *to
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::level3::reference::{Bench, Fault};
    use crate::level3::Triangle;

    #[test]
    fn either_triangle_is_made_and_the_other_left_alone() {
        for triangle in [Triangle::Lower, Triangle::Upper] {
            for trans in [false, true] {
                for (alpha, beta) in [(1.0, 0.0), (-1.0, 1.0), (2.0, 0.5)] {
                    let mut bench = Bench::<f64>::new(Fault::Never);
                    bench.poison_c = beta == 0.0;
                    bench.check_syrk(600, 70, triangle, trans, alpha, beta);
                    assert_eq!(bench.outcome().failure, None);
                }
            }
        }
    }

    #[test]
    fn failure_at_any_command_is_made_good() {
        let mut at = 0;
        loop {
            let mut bench = Bench::<f32>::new(Fault::HalfWay(at));
            bench.check_syrk(520, 64, Triangle::Lower, at % 2 == 0, 1.0, 1.0);
            if bench.outcome().failure.is_none() {
                break;
            }
            at += 1;
        }
        assert!(at > 3, "{at} commands are too few to say anything");
    }
}

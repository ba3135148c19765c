// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Product with a symmetric matrix, of which one triangle is stored.
//!
//! A is cut into strips, one for each block on its diagonal. What lies beside the block is stored in one
//! place or, transposed, in another, and is used where it is; the block itself is made whole in memory
//! beside the program's.
// UNSAFETY: blocks are made whole by bare addresses.
#![expect(unsafe_code)]

use crate::cpu::{Cpu, Int};
use crate::device::{Device, Product};
use crate::level3::{Offload, Side, Triangle};
use crate::matrix::{Matrix, Operand};
use crate::outcome::Reason;
use crate::real::Real;

/// Rows of a strip: as many products of this depth, and as much for the CPU to put together.
const BLOCK: usize = 256;

/// alpha·A·B + beta·C, or alpha·B·A + beta·C.
#[derive(Clone, Copy, Debug)]
pub struct Symm<T> {
    /// Where A stands.
    pub side: Side,
    /// The triangle of A that is stored.
    pub triangle: Triangle,
    /// Factor of the product.
    pub alpha: T,
    /// The symmetric matrix.
    pub a: Matrix<T>,
    /// The other one.
    pub b: Matrix<T>,
    /// Factor of the old C.
    pub beta: T,
    /// Destination, of the shape of B.
    pub c: Matrix<T>,
}

impl<T: Real> Symm<T> {
    /// A block of the whole symmetric matrix that lies on one side of the diagonal.
    fn beside(&self, row: usize, col: usize, rows: usize, cols: usize) -> Operand<T> {
        if (row > col) == (self.triangle == Triangle::Lower) {
            return Operand::plain(self.a.block(row, col, rows, cols));
        }
        Operand::plain(self.a.block(col, row, cols, rows)).transposed()
    }

    /// Lets the CPU make it.
    ///
    /// # Safety
    ///
    /// As [`Product::on_cpu`].
    pub unsafe fn on_cpu(&self, cpu: &Cpu<T>) {
        let int = |size: usize| size as Int;
        // SAFETY: The shape is the one that the caller of the BLAS gave.
        unsafe {
            (cpu.symm)(
                self.side.letter().as_ptr(),
                self.triangle.letter().as_ptr(),
                &int(self.c.rows),
                &int(self.c.cols),
                &self.alpha,
                self.a.at,
                &int(self.a.ld),
                self.b.at,
                &int(self.b.ld),
                &self.beta,
                self.c.at,
                &int(self.c.ld),
                1,
                1,
            );
        }
    }
}

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Makes the product, wherever.
    ///
    /// # Safety
    ///
    /// As [`gemm`](Self::gemm); of A only the stored triangle is read.
    pub unsafe fn symm(&mut self, symm: &Symm<T>) {
        let order = symm.a.rows;
        let Some(scratch) = self.pool.take(BLOCK * BLOCK * size_of::<T>()) else {
            self.outcome.failed(Reason::Busy);
            // SAFETY: As the caller promises.
            return unsafe { symm.on_cpu(self.cpu) };
        };
        for start in (0..order).step_by(BLOCK) {
            let width = BLOCK.min(order - start);
            let end = start + width;
            let whole = scratch.matrix(0, width, width);
            let stored = symm.a.block(start, start, width, width);
            // SAFETY: The stored triangle may be read; `whole` lies in memory that only this call uses.
            unsafe { make_whole(&whole, &stored, symm.triangle) };
            // Factor of the strip, and where in B it meets it.
            let ranges = [(start, width), (0, start), (end, order - end)];
            for (from, length) in ranges {
                if length == 0 {
                    continue;
                }
                let beta = if from == start { symm.beta } else { T::ONE };
                let strip = |row, col, rows, cols| {
                    if from == start {
                        Operand::plain(whole)
                    } else {
                        symm.beside(row, col, rows, cols)
                    }
                };
                let product = match symm.side {
                    Side::Left => Product {
                        alpha: symm.alpha,
                        a: strip(start, from, width, length),
                        b: Operand::plain(symm.b.block(from, 0, length, symm.b.cols)),
                        beta,
                        c: symm.c.block(start, 0, width, symm.c.cols),
                    },
                    Side::Right => Product {
                        alpha: symm.alpha,
                        a: Operand::plain(symm.b.block(0, from, symm.b.rows, length)),
                        b: strip(from, start, length, width),
                        beta,
                        c: symm.c.block(0, start, symm.c.rows, width),
                    },
                };
                // SAFETY: All are parts of the matrices that the caller speaks of, but for `whole`.
                unsafe { self.gemm(&product) };
            }
        }
        self.pool.give(scratch);
    }
}

/// Makes a symmetric matrix of its stored triangle.
///
/// # Safety
///
/// The triangle of `stored` may be read; `whole`, of the same shape, may be written.
unsafe fn make_whole<T: Real>(whole: &Matrix<T>, stored: &Matrix<T>, triangle: Triangle) {
    for col in 0..stored.cols {
        let rows = match triangle {
            Triangle::Lower => col..stored.rows,
            Triangle::Upper => 0..col + 1,
        };
        for row in rows {
            // SAFETY: An element of the triangle, and two of the whole.
            unsafe {
                let value = *stored.element(row, col);
                *whole.element(row, col) = value;
                *whole.element(col, row) = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::level3::reference::{Bench, Fault};
    use crate::level3::{Side, Triangle};

    #[test]
    fn either_side_and_triangle_gives_the_cpus_result() {
        for side in [Side::Left, Side::Right] {
            for triangle in [Triangle::Lower, Triangle::Upper] {
                for (alpha, beta) in [(1.0, 0.0), (-1.0, 1.0), (2.0, 0.5)] {
                    let mut bench = Bench::<f64>::new(Fault::Never);
                    bench.poison_c = beta == 0.0;
                    let shape = match side {
                        Side::Left => (600, 60),
                        Side::Right => (60, 600),
                    };
                    bench.check_symm(shape, side, triangle, alpha, beta);
                    assert_eq!(bench.outcome().failure, None);
                }
            }
        }
    }

    #[test]
    fn failure_at_any_command_is_made_good() {
        let mut at = 0;
        loop {
            let mut bench = Bench::<f64>::new(Fault::HalfWay(at));
            bench.check_symm((520, 64), Side::Left, Triangle::Lower, 1.0, 0.0);
            if bench.outcome().failure.is_none() {
                break;
            }
            at += 1;
        }
        assert!(at > 3, "{at} commands are too few to say anything");
    }
}

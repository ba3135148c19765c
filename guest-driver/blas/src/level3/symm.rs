// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Product with a symmetric matrix, of which one triangle is stored.
//!
//! A is cut into strips, one for each block on its diagonal. What lies beside the block is stored in one
//! place or, transposed, in another, and is used where it is; the block itself is made whole in memory
//! beside the program's.

use crate::device::Device;
use crate::level3::Offload;
use crate::operation::{Operand, Product, Side, Symm};
use crate::outcome::Reason;
use crate::real::Real;
use crate::view::{Stored, Triangle};

/// Rows of a strip: as many products of this depth, and as much for the CPU to put together.
const BLOCK: usize = 256;

/// A block of the whole symmetric matrix that lies on one side of the diagonal.
fn beside<'a, T: Real>(
    a: &Stored<'a, T>,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
) -> Operand<'a, T> {
    if (row > col) == (a.triangle() == Triangle::Lower) {
        return Operand::plain(a.block(row, col, rows, cols));
    }
    Operand::plain(a.block(col, row, cols, rows)).transposed()
}

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Makes the product, wherever.
    pub fn symm(&mut self, symm: Symm<'_, T>) {
        let Some(mut scratch) = self.pool.take(BLOCK * BLOCK * size_of::<T>()) else {
            self.outcome.failed(Reason::Busy);
            return self.cpu.symm(symm);
        };
        let Symm {
            side,
            alpha,
            a,
            b,
            beta,
            mut c,
        } = symm;
        let (order, m, n) = (a.order(), c.rows(), c.cols());
        for start in (0..order).step_by(BLOCK) {
            let width = BLOCK.min(order - start);
            let end = start + width;
            let mut whole = scratch.matrix(width, width);
            a.diagonal(start, width).unfold(&mut whole);
            // Factor of the strip, and where in B it meets it.
            let ranges = [(start, width), (0, start), (end, order - end)];
            for (from, length) in ranges {
                if length == 0 {
                    continue;
                }
                let beta = if from == start { beta } else { T::ONE };
                let strip = |row, col, rows, cols| {
                    if from == start {
                        Operand::plain(whole.as_view())
                    } else {
                        beside(&a, row, col, rows, cols)
                    }
                };
                let c = c.reborrow();
                self.gemm(match side {
                    Side::Left => Product {
                        alpha,
                        a: strip(start, from, width, length),
                        b: Operand::plain(b.block(from, 0, length, n)),
                        beta,
                        c: c.block(start, 0, width, n),
                    },
                    Side::Right => Product {
                        alpha,
                        a: Operand::plain(b.block(0, from, m, length)),
                        b: strip(from, start, length, width),
                        beta,
                        c: c.block(0, start, m, width),
                    },
                });
            }
        }
        self.pool.give(scratch);
    }
}

#[cfg(test)]
mod tests {
    use crate::operation::Side;
    use crate::reference::{Bench, Fault};
    use crate::view::Triangle;

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

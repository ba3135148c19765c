// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Product of a matrix with its transpose, of which one triangle is stored.
//!
//! Below (or above) the diagonal it is a product like any other, block column by block column. Blocks on
//! the diagonal are made whole in memory beside the program's, and the CPU adds the half that is
//! stored: the other half of C is the program's own and is not touched.

use crate::device::Device;
use crate::level3::Offload;
use crate::operation::{Product, Syrk};
use crate::outcome::Reason;
use crate::real::Real;
use crate::view::Triangle;

/// Columns of a block: on the diagonal twice the work is done that is needed, beside it the CPU does
/// nothing.
const BLOCK: usize = 256;

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Makes the triangle, wherever.
    pub fn syrk(&mut self, syrk: Syrk<'_, T>) {
        let Some(mut scratch) = self.pool.take(BLOCK * BLOCK * size_of::<T>()) else {
            self.outcome.failed(Reason::Busy);
            return self.cpu.syrk(syrk);
        };
        let Syrk {
            alpha,
            a,
            beta,
            mut c,
        } = syrk;
        let (n, k) = (c.order(), a.cols());
        for start in (0..n).step_by(BLOCK) {
            let width = BLOCK.min(n - start);
            let own = a.block(start, 0, width, k);
            let (beside, mut diagonal) = c.strip(start, width);
            let row = match diagonal.triangle() {
                Triangle::Lower => start + width,
                Triangle::Upper => 0,
            };
            self.gemm(Product {
                alpha,
                a: a.block(row, 0, beside.rows(), k),
                b: own.transposed(),
                beta,
                c: beside,
            });
            let mut whole = scratch.matrix(width, width);
            self.gemm(Product {
                alpha,
                a: own,
                b: own.transposed(),
                beta: T::ZERO,
                c: whole.reborrow(),
            });
            diagonal.add(beta, whole.as_view());
        }
        self.pool.give(scratch);
    }
}

#[cfg(test)]
mod tests {
    use crate::reference::{Bench, Fault};
    use crate::view::Triangle;

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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Triangular systems, op(A)·X = alpha·B or X·op(A) = alpha·B, with X in the place of B.
//!
//! The system is halved until it is small: one half is solved, its solution taken out of the other half
//! by a product, and that one solved. Small systems are the CPU's. If their unknowns are rows of B, the
//! device gathers those rows in one piece for it and puts the solution back: the CPU would touch a part
//! of every page of B, and all of them would come back to it, system by system.

use crate::device::{Device, Work};
use crate::level3::Offload;
use crate::operation::{Operand, Product, Side, Trsm};
use crate::outcome::Reason;
use crate::real::Real;
use crate::view::Triangle;

/// Unknowns of a system that the CPU solves.
const SMALL: usize = 64;

/// A system in two halves, and what one has to do with the other.
struct Halves<'a, T> {
    /// Does not depend on the other.
    first: Trsm<'a, T>,
    /// Holds once the solution of the first was taken out of it.
    second: Trsm<'a, T>,
    /// Factor of the first's solution in the second.
    factor: Operand<'a, T>,
}

impl<'a, T: Real> Trsm<'a, T> {
    /// The unknowns with the lower numbers do not depend on the others.
    fn is_forward(&self) -> bool {
        let lower = (self.a.triangle() == Triangle::Lower) != self.trans;
        lower == (self.side == Side::Left)
    }

    /// The system of the first `low` unknowns and that of the others.
    fn halves(self, low: usize) -> Halves<'a, T> {
        let high = self.a.order() - low;
        let forward = self.is_forward();
        let (b_low, b_high) = match self.side {
            Side::Left => self.b.split_rows(low),
            Side::Right => self.b.split_cols(low),
        };
        let part = |start, count, alpha, b| Trsm {
            a: self.a.diagonal(start, count),
            alpha,
            b,
            ..self
        };
        let (first, second, known, open) = if forward {
            let first = part(0, low, self.alpha, b_low);
            (
                first,
                part(low, high, T::ONE, b_high),
                (0, low),
                (low, high),
            )
        } else {
            let first = part(low, high, self.alpha, b_high);
            (first, part(0, low, T::ONE, b_low), (low, high), (0, low))
        };
        // Equations of the second half by unknowns of the first one.
        let (rows, cols) = match self.side {
            Side::Left => (open, known),
            Side::Right => (known, open),
        };
        let factor = if self.trans {
            Operand::plain(self.a.block(cols.0, rows.0, cols.1, rows.1)).transposed()
        } else {
            Operand::plain(self.a.block(rows.0, cols.0, rows.1, cols.1))
        };
        Halves {
            first,
            second,
            factor,
        }
    }
}

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Solves the system, wherever.
    pub fn trsm(&mut self, trsm: Trsm<'_, T>) {
        let order = trsm.a.order();
        if order <= SMALL {
            return self.small(trsm);
        }
        let alpha = trsm.alpha;
        let Halves {
            mut first,
            mut second,
            factor,
        } = trsm.halves((order / 2).next_multiple_of(SMALL));
        self.trsm(first.reborrow());
        let solution = Operand::plain(first.b.as_view());
        let (a, b) = match first.side {
            Side::Left => (factor, solution),
            Side::Right => (solution, factor),
        };
        self.gemm(Product {
            alpha: -T::ONE,
            a,
            b,
            beta: alpha,
            c: second.b.reborrow(),
        });
        self.trsm(second);
    }

    /// Solves a small system by the CPU.
    fn small(&mut self, mut trsm: Trsm<'_, T>) {
        let matrix = trsm.b.matrix();
        let gathered = trsm.side == Side::Left && matrix.ld > matrix.rows;
        let scratch = match self.outcome.failure {
            None if gathered => self.pool.take(matrix.bytes() as usize),
            _ => None,
        };
        let Some(mut scratch) = scratch else {
            return self.cpu.trsm(trsm);
        };
        let mut rows = scratch.matrix(matrix.rows, matrix.cols);
        let gather = Work::Copy {
            to: rows.reborrow(),
            from: trsm.b.as_view(),
        };
        if let Err(reason) = self.one(gather) {
            self.outcome.failed(reason);
            self.cpu.trsm(trsm);
        } else {
            self.cpu.trsm(Trsm {
                b: rows.reborrow(),
                ..trsm
            });
            let scatter = Work::Copy {
                to: trsm.b.reborrow(),
                from: rows.as_view(),
            };
            if let Err(reason) = self.one(scatter) {
                self.outcome.failed(reason);
                trsm.b.copy_from(rows.as_view());
            }
        }
        self.pool.give(scratch);
    }

    /// Does one piece of work.
    fn one(&self, work: Work<'_, T>) -> Result<(), Reason> {
        self.device.run(vec![work]).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::operation::Side;
    use crate::reference::{Bench, Fault};
    use crate::view::Triangle;

    #[test]
    fn every_kind_of_system_gives_the_cpus_solution() {
        for side in [Side::Left, Side::Right] {
            for triangle in [Triangle::Lower, Triangle::Upper] {
                for (trans, unit, alpha) in [
                    (false, false, 1.0),
                    (true, false, -2.0),
                    (false, true, 0.5),
                    (true, true, 1.0),
                ] {
                    let mut bench = Bench::<f64>::new(Fault::Never);
                    let shape = match side {
                        Side::Left => (200, 60),
                        Side::Right => (60, 200),
                    };
                    bench.check_trsm(shape, side, triangle, trans, unit, alpha);
                    assert_eq!(bench.outcome().failure, None);
                    assert!(bench.outcome().on_device > 0);
                }
            }
        }
    }

    #[test]
    fn failure_at_any_command_is_made_good() {
        for side in [Side::Left, Side::Right] {
            let mut at = 0;
            loop {
                let mut bench = Bench::<f64>::new(Fault::HalfWay(at));
                let shape = match side {
                    Side::Left => (200, 90),
                    Side::Right => (90, 200),
                };
                bench.check_trsm(shape, side, Triangle::Lower, false, false, 1.0);
                if bench.outcome().failure.is_none() {
                    break;
                }
                at += 1;
            }
            assert!(at > 3, "{at} commands are too few to say anything");
        }
    }
}

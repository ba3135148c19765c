// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Triangular systems, op(A)·X = alpha·B or X·op(A) = alpha·B, with X in the place of B.
//!
//! The system is halved until it is small: one half is solved, its solution taken out of the other half
//! by a product, and that one solved. Small systems are the CPU's. If their unknowns are rows of B, the
//! device gathers those rows in one piece for it and puts the solution back: the CPU would touch a part
//! of every page of B, and all of them would come back to it, system by system.
// UNSAFETY: the CPU's BLAS is called by bare addresses.
#![expect(unsafe_code)]

use crate::cpu::{Cpu, Int};
use crate::device::{copy, Device, Product};
use crate::level3::gemm::put_back;
use crate::level3::{Offload, Side, Triangle};
use crate::matrix::{Matrix, Operand};
use crate::outcome::Reason;
use crate::real::Real;

/// Unknowns of a system that the CPU solves.
const SMALL: usize = 64;

/// A triangular system.
#[derive(Clone, Copy, Debug)]
pub struct Trsm<T> {
    /// Where A stands.
    pub side: Side,
    /// The triangle of A, as it is stored, that counts.
    pub triangle: Triangle,
    /// op(A).
    pub a: Operand<T>,
    /// The diagonal of A is taken for ones.
    pub unit: bool,
    /// Factor of B.
    pub alpha: T,
    /// Right-hand sides, then the solution.
    pub b: Matrix<T>,
}

impl<T: Real> Trsm<T> {
    /// Unknowns.
    fn order(&self) -> usize {
        self.a.stored.rows
    }

    /// The unknowns with the lower numbers do not depend on the others.
    fn is_forward(&self) -> bool {
        let lower = (self.triangle == Triangle::Lower) != self.a.trans;
        lower == (self.side == Side::Left)
    }

    /// The part of B that holds these unknowns.
    fn unknowns(&self, start: usize, count: usize) -> Matrix<T> {
        match self.side {
            Side::Left => self.b.block(start, 0, count, self.b.cols),
            Side::Right => self.b.block(0, start, self.b.rows, count),
        }
    }

    /// The system of these unknowns alone.
    fn part(&self, start: usize, count: usize, alpha: T) -> Self {
        Self {
            a: self.a.block(start, start, count, count),
            b: self.unknowns(start, count),
            alpha,
            ..*self
        }
    }

    /// Takes the solution for some unknowns out of the equations for others, which get the factor.
    fn elimination(
        &self,
        (from, known): (usize, usize),
        (to, open): (usize, usize),
        alpha: T,
    ) -> Product<T> {
        let solution = Operand::plain(self.unknowns(from, known));
        let (a, b) = match self.side {
            Side::Left => (self.a.block(to, from, open, known), solution),
            Side::Right => (solution, self.a.block(from, to, known, open)),
        };
        Product {
            alpha: -T::ONE,
            a,
            b,
            beta: alpha,
            c: self.unknowns(to, open),
        }
    }

    /// Lets the CPU solve it.
    ///
    /// # Safety
    ///
    /// As [`Product::on_cpu`], with B as the destination.
    pub unsafe fn on_cpu(&self, cpu: &Cpu<T>) {
        let int = |size: usize| size as Int;
        let trans = if self.a.trans { c"T" } else { c"N" };
        let diagonal = if self.unit { c"U" } else { c"N" };
        // SAFETY: The shape is the one that the caller of the BLAS gave, or a part of it.
        unsafe {
            (cpu.trsm)(
                self.side.letter().as_ptr(),
                self.triangle.letter().as_ptr(),
                trans.as_ptr(),
                diagonal.as_ptr(),
                &int(self.b.rows),
                &int(self.b.cols),
                &self.alpha,
                self.a.stored.at,
                &int(self.a.stored.ld),
                self.b.at,
                &int(self.b.ld),
                1,
                1,
                1,
                1,
            );
        }
    }
}

impl<T: Real, D: Device> Offload<'_, T, D> {
    /// Solves the system, wherever.
    ///
    /// # Safety
    ///
    /// The triangle of A may be read, B may be read and written, nobody else writes to them, and they
    /// have no element in common.
    pub unsafe fn trsm(&mut self, trsm: &Trsm<T>) {
        let order = trsm.order();
        if order <= SMALL {
            // SAFETY: As the caller promises.
            return unsafe { self.small(trsm) };
        }
        let low = (order / 2).next_multiple_of(SMALL);
        let (first, second) = if trsm.is_forward() {
            ((0, low), (low, order - low))
        } else {
            ((low, order - low), (0, low))
        };
        // SAFETY: Parts of the system that the caller speaks of; the elimination reads one part of B and
        // writes the other.
        unsafe {
            self.trsm(&trsm.part(first.0, first.1, trsm.alpha));
            self.gemm(&trsm.elimination(first, second, trsm.alpha));
            self.trsm(&trsm.part(second.0, second.1, T::ONE));
        }
    }

    /// Solves a small system by the CPU.
    ///
    /// # Safety
    ///
    /// As [`trsm`](Self::trsm).
    unsafe fn small(&mut self, trsm: &Trsm<T>) {
        let gathered = trsm.side == Side::Left && trsm.b.ld > trsm.b.rows;
        let scratch = match self.outcome.failure {
            None if gathered => self.pool.take(trsm.b.bytes() as usize),
            _ => None,
        };
        let Some(scratch) = scratch else {
            // SAFETY: As the caller promises.
            return unsafe { trsm.on_cpu(self.cpu) };
        };
        let rows = scratch.matrix(0, trsm.b.rows, trsm.b.cols);
        // SAFETY:
        // - B is the caller's to read and write; `rows` lies in memory that only this call uses.
        // - A copy that fails is made by the CPU, so that `rows` holds B, and then B the solution.
        unsafe {
            if let Err(reason) = self.one(copy(&rows, &trsm.b)) {
                self.outcome.failed(reason);
                trsm.on_cpu(self.cpu);
            } else {
                Trsm { b: rows, ..*trsm }.on_cpu(self.cpu);
                if let Err(reason) = self.one(copy(&trsm.b, &rows)) {
                    self.outcome.failed(reason);
                    put_back(&trsm.b, &rows);
                }
            }
        }
        self.pool.give(scratch);
    }

    /// Runs one command.
    ///
    /// # Safety
    ///
    /// As [`Device::run`].
    unsafe fn one(&self, command: coax::Command) -> Result<(), Reason> {
        // SAFETY: As the caller promises.
        let done = unsafe { self.device.run(&[command]) };
        done.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::level3::reference::{Bench, Fault};
    use crate::level3::{Side, Triangle};

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

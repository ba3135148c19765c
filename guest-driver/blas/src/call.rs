// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A call of the program, from its arguments to who does it.
// UNSAFETY: the memory that a call names is the program's promise.
#![expect(unsafe_code)]

use std::time::Instant;

use crate::cpu::{Cpu, Int, OnCpu};
use crate::device::{Device, Product};
use crate::footprint::Footprint;
use crate::level3::symm::Symm;
use crate::level3::syrk::Syrk;
use crate::level3::trsm::Trsm;
use crate::level3::{Offload, Side, Triangle};
use crate::matrix::{Matrix, Operand};
use crate::model::{Cost, LEAST_FLOPS};
use crate::outcome::{Outcome, Reason};
use crate::rates;
use crate::real::Real;
use crate::session::{self, Session};
use crate::settings::settings;
use crate::stats::{self, Routine};

/// A call whose arguments are right, in column-major form.
#[derive(Clone, Copy, Debug)]
pub enum Call<T> {
    /// `GEMM`.
    Gemm(Product<T>),
    /// `SYRK`.
    Syrk(Syrk<T>),
    /// `SYMM`.
    Symm(Symm<T>),
    /// `TRSM`.
    Trsm(Trsm<T>),
}

/// A matrix of the given size, unless a number in it is wrong.
pub fn matrix<T>(at: *const T, rows: Int, cols: Int, ld: Int) -> Option<Matrix<T>> {
    if rows < 0 || cols < 0 || ld < rows.max(1) {
        return None;
    }
    Some(Matrix {
        at: at.cast_mut(),
        rows: rows as usize,
        cols: cols as usize,
        ld: ld as usize,
    })
}

/// op(A) of the given size, stored as it is or transposed.
pub fn operand<T>(at: *const T, trans: bool, rows: Int, cols: Int, ld: Int) -> Option<Operand<T>> {
    let (rows, cols) = if trans { (cols, rows) } else { (rows, cols) };
    Some(Operand {
        stored: matrix(at, rows, cols, ld)?,
        trans,
    })
}

/// The order of a square matrix on one side of an m×n one.
pub fn order(side: Side, m: Int, n: Int) -> Int {
    match side {
        Side::Left => m,
        Side::Right => n,
    }
}

impl<T: OnCpu> Call<T> {
    /// Lets the device or the CPU do a call, and counts it. `hand_on` gives it to the CPU's BLAS as it came;
    /// `None` is a call with wrong arguments.
    ///
    /// # Safety
    ///
    /// Matrices are the BLAS's: those read are not written meanwhile, the destination is accessed by
    /// nobody else.
    pub unsafe fn run(call: Option<Self>, routine: Routine, hand_on: impl FnOnce()) {
        let Some(call) = call else {
            stats::on_cpu(routine, Reason::Arguments);
            return hand_on();
        };
        // SAFETY: As the caller promises.
        let reason = match unsafe { call.try_offload(routine) } {
            Ok((outcome, seconds)) => return stats::offloaded(routine, &outcome, seconds),
            Err(reason) => reason,
        };
        stats::on_cpu(routine, reason);
        let begin = Instant::now();
        hand_on();
        let flops = call.flops();
        if flops >= LEAST_FLOPS {
            rates::observe(routine, flops, begin.elapsed().as_secs_f64());
        }
    }

    /// Does the call with the device, or says why not and touches nothing.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run).
    unsafe fn try_offload(&self, routine: Routine) -> Result<(Outcome, f64), Reason> {
        let flops = self.flops();
        let least = settings().least_flops;
        // A call of no operations is the CPU's in any case.
        if flops <= 0.0 || flops < least.unwrap_or(LEAST_FLOPS) {
            return Err(Reason::Small);
        }
        if !self.is_ordinary() {
            return Err(Reason::Arguments);
        }
        session::with(|session| {
            let expected = match least {
                None => Some(self.expected(session, routine)?),
                Some(_) => None,
            };
            let begin = Instant::now();
            if expected.is_none_or(|(cost, _)| cost.pages > 0.0) {
                session.fetch(&Footprint::of(&self.fetched()).ranges);
            }
            let mut offload = Offload::new(session, T::cpu(), &session.pool);
            // SAFETY: As the caller promises; matrices that overlap were sorted out above.
            unsafe { self.offload(&mut offload) };
            let seconds = begin.elapsed().as_secs_f64();
            if let Some((_, expected)) = expected {
                session.delay.learn(expected, seconds);
            }
            Ok((offload.outcome, seconds))
        })
        .unwrap_or(Err(Reason::Absent))
    }

    /// What the call costs and how many seconds it is expected to take the device, if those are well below
    /// the CPU's.
    fn expected(&self, session: &Session, routine: Routine) -> Result<(Cost, f64), Reason> {
        let known = session.times::<T>(routine, self.flops());
        let (model, cpu_flop) = known.ok_or(Reason::Small)?;
        let footprint = self.footprint();
        let pages = footprint.pages();
        let (mut cost, mut there) = (self.cost(pages, pages), 0.0);
        if !model.is_worth(&cost, cpu_flop) {
            // Not if all pages have to move, but they may be where the device has them already.
            let near = pages - footprint.spread;
            let in_place = self.cost(pages, footprint.spread);
            if !model.is_worth_there(&in_place, cpu_flop, near) {
                return Err(Reason::Slower);
            }
            let spots = footprint.spots();
            let found = session.find(&spots);
            let all = near / spots.len().max(1) as f64;
            there = all * found.to_come_back;
            cost = self.cost(pages, pages - all * found.in_place);
            if !model.is_worth_there(&cost, cpu_flop, there) {
                return Err(Reason::Slower);
            }
        }
        let delayed = model.slower(session.delay.factor());
        if !delayed.is_worth_there(&cost, cpu_flop, there) {
            session.delay.forget();
            return Err(Reason::Slower);
        }
        Ok((cost, model.seconds(&cost, cpu_flop)))
    }
}

impl<T: Real> Call<T> {
    /// Whether the device does with it what the BLAS's contract says. The rest is left to the CPU's BLAS,
    /// so that it ends as it always does: overlapping matrices in whatever way that library has.
    fn is_ordinary(&self) -> bool {
        let (alpha, inputs, destination) = match self {
            Call::Gemm(call) => (call.alpha, [call.a.stored, call.b.stored], call.c),
            Call::Syrk(call) => (call.alpha, [call.a.stored; 2], call.c),
            Call::Symm(call) => (call.alpha, [call.a, call.b], call.c),
            Call::Trsm(call) => (call.alpha, [call.a.stored; 2], call.b),
        };
        // With alpha = 0 A and B are not read, and there is next to nothing to do.
        alpha != T::ZERO
            && destination.is_sound()
            && inputs
                .iter()
                .all(|input| input.is_sound() && !input.overlaps(&destination))
    }

    unsafe fn offload<D: Device>(&self, offload: &mut Offload<'_, T, D>) {
        // SAFETY: As the caller promises.
        unsafe {
            match self {
                Call::Gemm(call) => offload.gemm(call),
                Call::Syrk(call) => offload.syrk(call),
                Call::Symm(call) => offload.symm(call),
                Call::Trsm(call) => offload.trsm(call),
            }
        }
    }

    /// Lets the CPU do the call.
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run).
    pub unsafe fn on_cpu(&self, cpu: &Cpu<T>) {
        // SAFETY: As the caller promises.
        unsafe {
            match self {
                Call::Gemm(call) => call.on_cpu(cpu),
                Call::Syrk(call) => call.on_cpu(cpu),
                Call::Symm(call) => call.on_cpu(cpu),
                Call::Trsm(call) => call.on_cpu(cpu),
            }
        }
    }
}

/// The arguments of the four operations, as both interfaces have them once letters are understood.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows of the destination.
    pub m: Int,
    /// Columns of the destination.
    pub n: Int,
    /// Depth, where there is one.
    pub k: Int,
}

impl<T: Real> Call<T> {
    /// `GEMM`.
    pub fn gemm(
        (trans_a, trans_b): (bool, bool),
        shape: Shape,
        alpha: T,
        (a, lda): (*const T, Int),
        (b, ldb): (*const T, Int),
        beta: T,
        (c, ldc): (*mut T, Int),
    ) -> Option<Self> {
        let Shape { m, n, k } = shape;
        Some(Call::Gemm(Product {
            alpha,
            a: operand(a, trans_a, m, k, lda)?,
            b: operand(b, trans_b, k, n, ldb)?,
            beta,
            c: matrix(c, m, n, ldc)?,
        }))
    }

    /// `SYRK`, of order `n`.
    pub fn syrk(
        (triangle, trans): (Triangle, bool),
        (n, k): (Int, Int),
        alpha: T,
        (a, lda): (*const T, Int),
        beta: T,
        (c, ldc): (*mut T, Int),
    ) -> Option<Self> {
        Some(Call::Syrk(Syrk {
            triangle,
            alpha,
            a: operand(a, trans, n, k, lda)?,
            beta,
            c: matrix(c, n, n, ldc)?,
        }))
    }

    /// `SYMM`.
    pub fn symm(
        (side, triangle): (Side, Triangle),
        (m, n): (Int, Int),
        alpha: T,
        (a, lda): (*const T, Int),
        (b, ldb): (*const T, Int),
        beta: T,
        (c, ldc): (*mut T, Int),
    ) -> Option<Self> {
        let order = order(side, m, n);
        Some(Call::Symm(Symm {
            side,
            triangle,
            alpha,
            a: matrix(a, order, order, lda)?,
            b: matrix(b, m, n, ldb)?,
            beta,
            c: matrix(c, m, n, ldc)?,
        }))
    }

    /// `TRSM`.
    pub fn trsm(
        (side, triangle, trans, unit): (Side, Triangle, bool, bool),
        (m, n): (Int, Int),
        alpha: T,
        (a, lda): (*const T, Int),
        (b, ldb): (*mut T, Int),
    ) -> Option<Self> {
        let order = order(side, m, n);
        Some(Call::Trsm(Trsm {
            side,
            triangle,
            a: operand(a, trans, order, order, lda)?,
            unit,
            alpha,
            b: matrix(b, m, n, ldb)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(at: usize) -> *mut f64 {
        std::ptr::without_provenance_mut(at)
    }

    fn product(shape: Shape, lds: [Int; 3], c: usize) -> Option<Call<f64>> {
        let (a, b) = (address(0x10000), address(0x20000));
        let c = (address(c), lds[2]);
        Call::gemm((false, true), shape, 1.0, (a, lds[0]), (b, lds[1]), 0.0, c)
    }

    #[test]
    fn wrong_sizes_make_no_call() {
        let shape = Shape { m: 3, n: 4, k: 5 };
        assert!(product(shape, [3, 4, 3], 0x30000).is_some());
        for lds in [[2, 4, 3], [3, 3, 3], [3, 4, 2], [3, 4, -1]] {
            assert!(product(shape, lds, 0x30000).is_none(), "{lds:?}");
        }
        let negative = Shape { m: -1, ..shape };
        assert!(product(negative, [3, 4, 3], 0x30000).is_none());
        // Nothing to do is no mistake, but a leading dimension of 0 is one.
        let empty = Shape { m: 0, n: 0, k: 0 };
        assert!(product(empty, [1, 1, 1], 0x30000).is_some());
        assert!(product(empty, [1, 1, 0], 0x30000).is_none());
    }

    #[test]
    fn overlapping_misaligned_and_zeroed_calls_are_not_ordinary() {
        let shape = Shape { m: 3, n: 4, k: 5 };
        let ordinary = |c| product(shape, [3, 4, 3], c).is_some_and(|call| call.is_ordinary());
        assert!(ordinary(0x30000));
        assert!(!ordinary(0x10008));
        assert!(!ordinary(0x20008));
        assert!(!ordinary(0x30004));
        let Some(Call::Gemm(product)) = product(shape, [3, 4, 3], 0x30000) else {
            panic!("the sizes are right");
        };
        let zeroed = Product {
            alpha: 0.0,
            ..product
        };
        assert!(!Call::Gemm(zeroed).is_ordinary());
    }

    #[test]
    fn call_of_nothing_costs_nothing() {
        let shape = Shape { m: 3, n: 4, k: 0 };
        let call = product(shape, [3, 4, 3], 0x30000).expect("the sizes are right");
        assert_eq!(call.flops(), 0.0);
    }
}

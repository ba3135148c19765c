// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Measures the device once a process has asked for enough, and the CPU if none of its calls was seen
//! before one that is too large to try.
// UNSAFETY: both sides are given the measurement's own matrices by address.
#![expect(unsafe_code)]

use std::time::Instant;

use coax::Command;

use crate::call::Call;
use crate::cpu::Cpu;
use crate::device::{Device, Product};
use crate::footprint::Footprint;
use crate::level3::gemm::put_back;
use crate::level3::symm::Symm;
use crate::level3::syrk::Syrk;
use crate::level3::trsm::Trsm;
use crate::level3::{Side, Triangle};
use crate::matrix::{Matrix, Operand};
use crate::model::Model;
use crate::real::Real;
use crate::scratch::{Pool, Scratch};
use crate::stats::Kind;

/// Rows and columns of what the CPU does: a small part of a call that is worth measuring.
const CPU_SIZE: usize = 96;
/// Rows and columns of the product that the device makes: 2 to 3 ms of its time, and a few hundred pages.
const DEVICE_SIZE: usize = 256;

/// Seconds of an operation of the CPU in a routine, by two calls of it.
pub fn cpu<T: Real>(kind: Kind, cpu: &Cpu<T>) -> Option<f64> {
    let matrices = Matrices::<T>::new(&Pool::new(), CPU_SIZE)?;
    let call = matrices.call(kind);
    // The first call makes the CPU's BLAS ready.
    // SAFETY: All matrices lie in memory that only this function uses; the destination is none of the
    // others.
    let seconds = best(2, || unsafe { call.on_cpu(cpu) });
    Some(seconds / call.flops())
}

/// Measures the device. One that fails is not worth anything.
pub fn device<T: Real, D: Device>(device: &D) -> Model {
    // A pool of its own, whose memory goes to the system afterwards.
    try_device::<T, D>(device, &Pool::new()).unwrap_or(Model::USELESS)
}

fn try_device<T: Real, D: Device>(device: &D, pool: &Pool) -> Option<Model> {
    let first = Matrices::<T>::new(pool, CPU_SIZE)?;
    let second = Matrices::<T>::new(pool, DEVICE_SIZE)?;
    let mut fine = true;
    let fetch = |matrices: &Matrices<T>| {
        device.fetch(&Footprint::of(&[matrices.a, matrices.b, matrices.c]).ranges);
    };
    let mut run = |command| {
        // SAFETY: The command's matrices lie in memory that only this function uses.
        fine &= unsafe { device.run(&[command]) }
            .into_iter()
            .all(|done| done.is_ok());
    };
    // SAFETY: Both matrices are this function's, and the device has let go of them.
    let back = |matrices: &Matrices<T>| unsafe {
        for matrix in [&matrices.a, &matrices.b, &matrices.c] {
            put_back(&matrices.other, matrix);
        }
    };
    // The first pages to move take the kernel and an emulator through much for the first time.
    fetch(&first);
    run(first.product().command());
    back(&first);
    run(Command::nop());
    let command = best(5, || run(Command::nop()));
    let cold = best(1, || {
        fetch(&second);
        run(second.product().command());
    });
    let warm = best(2, || run(second.product().command()));
    let vector = best(5, || run(second.vector().command()));
    let home = best(1, || back(&second));
    let stay = best(1, || back(&second));

    let call = Call::Gemm(second.product());
    let footprint = call.footprint();
    let pages = footprint.pages();
    let flops = call.flops();
    let column = Call::Gemm(second.vector()).footprint().pages();
    let touch = (vector - command).max(0.0) / column;
    fine.then(|| Model {
        // Never nothing, however the two fell out.
        device_flop: (warm - command - pages * touch).max(0.5 * (warm - command)) / flops,
        touch,
        page: ((cold - warm).max(0.0) + (home - stay).max(0.0)) / pages,
        back: (home - stay).max(0.0) / pages,
        command,
    })
}

/// Matrices of the measurement's own, of which no page has been with the device.
struct Matrices<T> {
    a: Matrix<T>,
    b: Matrix<T>,
    c: Matrix<T>,
    other: Matrix<T>,
    _scratch: Scratch,
}

impl<T: Real> Matrices<T> {
    fn new(pool: &Pool, size: usize) -> Option<Self> {
        let bytes = size * size * size_of::<T>();
        let scratch = pool.take(4 * bytes)?.in_small_pages();
        let matrix = |n: usize| {
            let matrix = scratch.matrix::<T>(n * bytes, size, size);
            // SAFETY: The memory is this value's alone.
            unsafe { fill(&matrix) };
            matrix
        };
        Some(Self {
            a: matrix(0),
            b: matrix(1),
            c: matrix(2),
            other: matrix(3),
            _scratch: scratch,
        })
    }

    fn product(&self) -> Product<T> {
        Product {
            alpha: T::ONE,
            a: Operand::plain(self.a),
            b: Operand::plain(self.b),
            beta: T::ZERO,
            c: self.c,
        }
    }

    /// A times a column of B.
    fn vector(&self) -> Product<T> {
        Product {
            b: Operand::plain(self.b.block(0, 0, self.b.rows, 1)),
            c: self.c.block(0, 0, self.c.rows, 1),
            ..self.product()
        }
    }

    fn call(&self, kind: Kind) -> Call<T> {
        let (alpha, beta) = (T::ONE, T::ZERO);
        let (side, triangle) = (Side::Left, Triangle::Lower);
        let (a, c) = (Operand::plain(self.a), self.c);
        match kind {
            Kind::Gemm => Call::Gemm(self.product()),
            Kind::Syrk => Call::Syrk(Syrk {
                triangle,
                alpha,
                a,
                beta,
                c,
            }),
            Kind::Symm => Call::Symm(Symm {
                side,
                triangle,
                alpha,
                a: self.a,
                b: self.b,
                beta,
                c,
            }),
            Kind::Trsm => Call::Trsm(Trsm {
                side,
                triangle,
                a,
                unit: false,
                alpha,
                b: c,
            }),
        }
    }
}

/// Seconds that something takes when it is fastest.
fn best(times: usize, mut what: impl FnMut()) -> f64 {
    (0..times)
        .map(|_| {
            let begin = Instant::now();
            what();
            begin.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// Numbers that are neither 0 nor denormal, and a diagonal that is far from singular.
///
/// # Safety
///
/// The matrix may be written.
unsafe fn fill<T: Real>(matrix: &Matrix<T>) {
    for col in 0..matrix.cols {
        for row in 0..matrix.rows {
            let value = 0.5 + ((row * 7 + col * 13) % 32) as f32 / 64.0;
            let value = if row == col { 64.0 } else { value };
            // SAFETY: An element of the matrix.
            unsafe { *matrix.element(row, col) = T::from_f32(value) };
        }
    }
}

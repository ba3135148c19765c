// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Measures the device once a process has asked for enough, and the CPU if none of its calls was seen
//! before one that is too large to try.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Instant;

use crate::cpu::Cpu;
use crate::device::{Device, Work};
use crate::model::Model;
use crate::operation::{Call, Operand, Product, Side, Symm, Syrk, Trsm};
use crate::real::Real;
use crate::routine::Kind;
use crate::scratch::{Pool, Scratch};
use crate::view::{Stored, StoredMut, Triangle, ViewMut};

/// Rows and columns of what the CPU does: a small part of a call that is worth measuring.
const CPU_SIZE: usize = 96;
/// Rows and columns of the product that the device makes: 2 to 3 ms of its time, and a few hundred pages.
const DEVICE_SIZE: usize = 256;

/// Seconds of an operation of the CPU in a routine, by two calls of it.
pub fn cpu<T: Real>(kind: Kind, cpu: &dyn Cpu<T>) -> Option<f64> {
    let mut memory = memory::<T>(&Pool::new(), CPU_SIZE)?;
    let mut matrices = Matrices::<T>::new(&mut memory, CPU_SIZE);
    // The first call makes the CPU's BLAS ready.
    let seconds = best(2, || cpu.call(matrices.call(kind)));
    Some(seconds / matrices.call(kind).size().flops())
}

/// Measures the device. One that fails is not worth anything.
pub fn device<T: Real, D: Device>(device: &D) -> Model {
    // A pool of its own, whose memory goes to the system afterwards.
    try_device::<T, D>(device, &Pool::new()).unwrap_or(Model::USELESS)
}

fn try_device<T: Real, D: Device>(device: &D, pool: &Pool) -> Option<Model> {
    let mut memories = (
        memory::<T>(pool, CPU_SIZE)?,
        memory::<T>(pool, DEVICE_SIZE)?,
    );
    let mut first = Matrices::<T>::new(&mut memories.0, CPU_SIZE);
    let mut second = Matrices::<T>::new(&mut memories.1, DEVICE_SIZE);
    let fine = Cell::new(true);
    let run = |work: Work<'_, T>| {
        let done = device.run(vec![work]).iter().all(Result::is_ok);
        fine.set(fine.get() && done);
    };
    let fetch = |product: Product<'_, T>| device.fetch(&Call::Gemm(product).footprint().ranges);
    // The first pages to move take the kernel and an emulator through much for the first time.
    fetch(first.product());
    run(Work::Product(first.product()));
    first.take_back();
    run(Work::Nothing);
    let command = best(5, || run(Work::Nothing));
    let cold = best(1, || {
        fetch(second.product());
        run(Work::Product(second.product()));
    });
    let warm = best(2, || run(Work::Product(second.product())));
    let vector = best(5, || run(Work::Product(second.vector())));
    let home = best(1, || second.take_back());
    let stay = best(1, || second.take_back());

    let column = Call::Gemm(second.vector()).footprint().pages();
    let call = Call::Gemm(second.product());
    let pages = call.footprint().pages();
    let touch = (vector - command).max(0.0) / column;
    fine.get().then(|| Model {
        // Never nothing, however the two fell out.
        device_flop: (warm - command - pages * touch).max(0.5 * (warm - command))
            / call.size().flops(),
        touch,
        page: ((cold - warm).max(0.0) + (home - stay).max(0.0)) / pages,
        back: (home - stay).max(0.0) / pages,
        command,
    })
}

/// Memory for [`Matrices`], of which no page has been with the device.
fn memory<T: Real>(pool: &Pool, size: usize) -> Option<Scratch> {
    Some(
        pool.take(4 * size * size * size_of::<T>())?
            .in_small_pages(),
    )
}

/// Square matrices of the measurement's own.
struct Matrices<'a, T> {
    a: ViewMut<'a, T>,
    b: ViewMut<'a, T>,
    c: ViewMut<'a, T>,
    other: ViewMut<'a, T>,
}

impl<'a, T: Real> Matrices<'a, T> {
    fn new(memory: &'a mut Scratch, size: usize) -> Self {
        let mut matrices = memory.matrices(&[(size, size); 4]).into_iter();
        let mut next = || {
            let mut matrix = matrices.next().expect("there are four");
            matrix.fill(element);
            matrix
        };
        Self {
            a: next(),
            b: next(),
            c: next(),
            other: next(),
        }
    }

    fn product(&mut self) -> Product<'_, T> {
        Product {
            alpha: T::ONE,
            a: Operand::plain(self.a.as_view()),
            b: Operand::plain(self.b.as_view()),
            beta: T::ZERO,
            c: self.c.reborrow(),
        }
    }

    /// A times a column of B.
    fn vector(&mut self) -> Product<'_, T> {
        let product = self.product();
        let size = product.depth();
        Product {
            b: product.b.block(0, 0, size, 1),
            c: product.c.block(0, 0, size, 1),
            ..product
        }
    }

    /// Has the CPU read all and write one, so that their pages come to it.
    fn take_back(&mut self) {
        for matrix in [&self.a, &self.b, &self.c] {
            self.other.copy_from(matrix.as_view());
        }
    }

    fn call(&mut self, kind: Kind) -> Call<'_, T> {
        let (alpha, beta) = (T::ONE, T::ZERO);
        let (side, triangle) = (Side::Left, Triangle::Lower);
        let (a, b, c) = (self.a.as_view(), self.b.as_view(), self.c.reborrow());
        match kind {
            Kind::Gemm => Call::Gemm(Product {
                alpha,
                a: Operand::plain(a),
                b: Operand::plain(b),
                beta,
                c,
            }),
            Kind::Syrk => Call::Syrk(Syrk {
                alpha,
                a: Operand::plain(a),
                beta,
                c: StoredMut::of(c, triangle),
            }),
            Kind::Symm => Call::Symm(Symm {
                side,
                alpha,
                a: Stored::of(a, triangle),
                b,
                beta,
                c,
            }),
            Kind::Trsm => Call::Trsm(Trsm {
                side,
                a: Stored::of(a, triangle),
                trans: false,
                unit: false,
                alpha,
                b: c,
            }),
        }
    }
}

/// Numbers that are neither 0 nor denormal, and a diagonal that is far from singular.
fn element<T: Real>(row: usize, col: usize) -> T {
    if row == col {
        return T::from_f32(64.0);
    }
    T::from_f32(0.5 + ((row * 7 + col * 13) % 32) as f32 / 64.0)
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

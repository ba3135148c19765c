// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long the CPU and the device take for a call, by a measurement of each on this machine.
//!
//! Whether a call is worth offloading depends on the machine alone: on one the CPU is emulated and fifty
//! times slower than the device, on another it is as fast and pages only cost. So the first call that
//! is large enough waits for a measurement, a small fraction of its own time.
// UNSAFETY: both sides are given the measurement's own matrices by address.
#![expect(unsafe_code)]

use std::time::Instant;

use coax::abi::wire::PAGE_SIZE;
use coax::Command;

use crate::cpu::Cpu;
use crate::device::{Device, Product};
use crate::level3::gemm::put_back;
use crate::matrix::{Matrix, Operand};
use crate::real::Real;
use crate::scratch::{Pool, Scratch};

/// Rows and columns of the product that the CPU makes: a small part of a call that is worth measuring.
const CPU_SIZE: usize = 96;
/// Rows and columns of the product that the device makes: 2 to 3 ms of its time, and a few hundred pages.
const DEVICE_SIZE: usize = 256;
/// Rows and columns of a first product that nothing is measured at.
const WARM_UP_SIZE: usize = 96;
/// Operations that a process must have asked for before anything is measured: ten times as many as the
/// measurement lets the CPU do, so that a call that waits for it is a tenth slower at most.
pub const MEASURED_FLOPS: f64 = 64e6;
/// Operations below which a call goes to the CPU without a look: a command alone takes as long.
pub const LEAST_FLOPS: f64 = 2e6;
/// What the device must take at most, of the CPU's time: a measurement of small matrices is not exact
/// for large ones.
const MARGIN: f64 = 0.8;

/// What a call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Operations that the CPU would do.
    pub flops: f64,
    /// Operations that the device does instead.
    pub device_flops: f64,
    /// Operations that are left to the CPU.
    pub rest_flops: f64,
    /// Bytes of the matrices.
    pub bytes: f64,
    /// Commands.
    pub commands: f64,
}

/// Times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// An operation of the CPU.
    pub cpu_flop: f64,
    /// An operation of the device, on memory that it has.
    pub device_flop: f64,
    /// Moving a page to the device and back.
    pub page: f64,
    /// A command that does nothing.
    pub command: f64,
}

impl Model {
    /// Whether the device is sooner done, if all matrices have to move.
    pub fn is_worth(&self, cost: &Cost) -> bool {
        let device = cost.device_flops * self.device_flop
            + cost.rest_flops * self.cpu_flop
            + cost.bytes / PAGE_SIZE as f64 * self.page
            + cost.commands * self.command;
        device < MARGIN * cost.flops * self.cpu_flop
    }

    /// Measures both sides. A device that fails is not worth anything.
    pub fn measure<T: Real, D: Device>(device: &D, cpu: &Cpu<T>) -> Self {
        // A pool of its own, whose memory goes to the system afterwards.
        Self::try_measure(device, cpu, &Pool::new()).unwrap_or(Self {
            cpu_flop: 0.0,
            device_flop: 0.0,
            page: 0.0,
            command: 0.0,
        })
    }

    fn try_measure<T: Real, D: Device>(device: &D, cpu: &Cpu<T>, pool: &Pool) -> Option<Self> {
        let first = Matrices::<T>::new(pool, WARM_UP_SIZE)?;
        let second = Matrices::<T>::new(pool, DEVICE_SIZE)?;
        let part = |size| second.product().block(0, 0, size, size);
        // SAFETY: All matrices lie in memory that only this function uses; C is none of the others.
        unsafe {
            // A first small call makes the CPU's BLAS ready.
            part(CPU_SIZE / 4).on_cpu(cpu);
            let cpu_time = best(2, || part(CPU_SIZE).on_cpu(cpu));

            let mut fine = true;
            let mut run = |command| fine &= device.run(&[command]).into_iter().all(|r| r.is_ok());
            // The first pages to move take the kernel and an emulator through much for the first time.
            run(first.product().command());
            put_back(&first.other, &first.c);
            run(Command::nop());
            let command = best(3, || run(Command::nop()));
            let cold = best(1, || run(second.product().command()));
            let warm = best(2, || run(second.product().command()));
            let back = best(1, || put_back(&second.other, &second.c));

            let pages = second.c.bytes() as f64 / PAGE_SIZE as f64;
            fine.then(|| Self {
                cpu_flop: cpu_time / flops(CPU_SIZE),
                device_flop: (warm - command).max(0.0) / flops(DEVICE_SIZE),
                page: (cold - warm).max(0.0) / (3.0 * pages) + back / pages,
                command,
            })
        }
    }
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
        let scratch = pool.take(4 * bytes)?;
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
}

/// Operations of a product of square matrices.
fn flops(size: usize) -> f64 {
    2.0 * (size * size * size) as f64
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

/// Numbers that are neither 0 nor denormal.
///
/// # Safety
///
/// The matrix may be written.
unsafe fn fill<T: Real>(matrix: &Matrix<T>) {
    for col in 0..matrix.cols {
        for row in 0..matrix.rows {
            let value = 0.5 + ((row * 7 + col * 13) % 32) as f32 / 64.0;
            // SAFETY: An element of the matrix.
            unsafe { *matrix.element(row, col) = T::from_f32(value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An emulated CPU: 1 ns an operation, and a device at 20 Gflop/s.
    const EMULATED: Model = Model {
        cpu_flop: 1e-9,
        device_flop: 5e-11,
        page: 20e-6,
        command: 100e-6,
    };

    fn product(n: f64) -> Cost {
        Cost {
            flops: 2.0 * n * n * n,
            device_flops: 2.0 * n * n * n,
            rest_flops: 0.0,
            bytes: 3.0 * 8.0 * n * n,
            commands: 2.0,
        }
    }

    #[test]
    fn large_products_are_worth_it_and_small_ones_are_not() {
        assert!(EMULATED.is_worth(&product(512.0)));
        assert!(!EMULATED.is_worth(&product(40.0)));
    }

    #[test]
    fn pages_decide_where_there_is_little_to_do_on_each() {
        // As many operations as a product of 512³, on matrices that take a hundred times the memory.
        let flat = Cost {
            bytes: 100.0 * product(512.0).bytes,
            ..product(512.0)
        };
        assert!(!EMULATED.is_worth(&flat));
    }

    #[test]
    fn device_that_could_not_be_measured_is_worth_nothing() {
        let failed = Model {
            cpu_flop: 0.0,
            device_flop: 0.0,
            page: 0.0,
            command: 0.0,
        };
        assert!(!failed.is_worth(&product(4096.0)));
    }
}

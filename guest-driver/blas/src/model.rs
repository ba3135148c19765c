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
use crate::scratch::Pool;

/// Rows and columns of the matrices measured with.
const SIZE: usize = 128;
/// Operations of their product.
const FLOPS: f64 = 2.0 * (SIZE * SIZE * SIZE) as f64;
/// Operations below which a call is not worth measuring, and goes to the CPU.
pub const LEAST_FLOPS: f64 = 4.0 * FLOPS;
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
        let bytes = SIZE * SIZE * size_of::<T>();
        let scratch = pool.take(5 * bytes)?;
        let matrix = |n: usize| scratch.matrix::<T>(n * bytes, SIZE, SIZE);
        for n in 0..5 {
            // SAFETY: The memory is this function's alone.
            unsafe { fill(&matrix(n)) };
        }
        let product = |c| Product {
            alpha: T::ONE,
            a: Operand::plain(matrix(0)),
            b: Operand::plain(matrix(1)),
            beta: T::ZERO,
            c,
        };
        // SAFETY: All matrices lie in memory that only this function uses; C is none of the others.
        unsafe {
            let on_cpu = |c| product(c).on_cpu(cpu);
            // The first call makes the CPU's BLAS ready.
            on_cpu(matrix(2));
            let cpu_time = time(|| on_cpu(matrix(2))).min(time(|| on_cpu(matrix(2))));

            let run =
                |command: Command| device.run(&[command]).into_iter().all(|done| done.is_ok());
            let mut fine = run(Command::nop());
            let nop = (0..3).map(|_| time(|| fine &= run(Command::nop())));
            let command = nop.fold(f64::INFINITY, f64::min);

            let command_of = |c| product(c).command();
            let cold = time(|| fine &= run(command_of(matrix(3))));
            let back = time(|| put_back(&matrix(4), &matrix(3)));
            // What was read just now is out of the CPU's way in this one, which measures C's page alone.
            fine &= run(command_of(matrix(3)));
            let warm = (0..3).map(|_| time(|| fine &= run(command_of(matrix(3)))));
            let warm = warm.fold(f64::INFINITY, f64::min);

            let pages = bytes as f64 / PAGE_SIZE as f64;
            fine.then(|| Self {
                cpu_flop: cpu_time / FLOPS,
                device_flop: (warm - command).max(0.0) / FLOPS,
                page: (cold - warm).max(0.0) / (3.0 * pages) + back / pages,
                command,
            })
        }
    }
}

/// Seconds that something takes.
fn time(what: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    what();
    begin.elapsed().as_secs_f64()
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

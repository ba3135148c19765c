// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that does its commands on the memory of the test, with failures where they are wanted.
// UNSAFETY: commands name memory by bare addresses, as the real ones do.
#![expect(unsafe_code)]

use std::cell::Cell;

use coax::abi::wire::{self, GEMM_TRANS_A, GEMM_TRANS_B};
use coax::{Command, PageRange};

use super::TestReal;
use crate::device::{Device, Work};
use crate::footprint::Found;
use crate::outcome::Reason;
use crate::real::Real;

/// When the device fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Never.
    Never,
    /// In the middle of the command with this number, and at all after it.
    HalfWay(usize),
}

/// A device of two engines.
pub struct TestDevice {
    fault: Fault,
    commands: Cell<usize>,
}

impl TestDevice {
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            commands: Cell::new(0),
        }
    }

    /// Commands that it was given.
    pub fn commands(&self) -> usize {
        self.commands.get()
    }
}

impl Device for TestDevice {
    fn engines(&self) -> usize {
        2
    }

    fn fetch(&self, _ranges: &[PageRange]) {}

    fn find(&self, _ranges: &[PageRange]) -> Found {
        Found::default()
    }

    fn run<T: Real>(&self, work: Vec<Work<'_, T>>) -> Vec<Result<(), Reason>> {
        let one = |work: Work<'_, T>| {
            let number = self.commands.replace(self.commands.get() + 1);
            let fails = matches!(self.fault, Fault::HalfWay(at) if number >= at);
            // SAFETY: The command reads and writes what the work's views do, which are this call's.
            unsafe { execute(&work.command(), fails) };
            if fails {
                Err(Reason::Fault)
            } else {
                Ok(())
            }
        };
        work.into_iter().map(one).collect()
    }
}

fn pointer<T>(address: u64) -> *mut T {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Does a command, or about half of it.
///
/// # Safety
///
/// Memory that it reads may be read, and memory that it writes written.
unsafe fn execute(command: &Command, half: bool) {
    let args = command.args.map(|arg| arg as usize);
    match command.opcode {
        wire::OP_COPY => {
            let bytes = if half { args[2] / 2 } else { args[2] };
            // SAFETY: As the caller promises.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    pointer::<u8>(command.args[1]),
                    pointer::<u8>(command.args[0]),
                    bytes,
                );
            }
        }
        wire::OP_COPY_ROWS => {
            let [dst, src, row, rows, to, from, ..] = args;
            let rows = if half { rows / 2 } else { rows };
            for n in 0..rows {
                // SAFETY: As the caller promises.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        pointer::<u8>((src + n * from) as u64),
                        pointer::<u8>((dst + n * to) as u64),
                        row,
                    );
                }
            }
        }
        // SAFETY: As the caller promises.
        wire::OP_SGEMM => unsafe { product::<f32>(command, half, matrixmultiply::sgemm) },
        // SAFETY: As the caller promises.
        wire::OP_DGEMM => unsafe { product::<f64>(command, half, matrixmultiply::dgemm) },
        wire::OP_NOP => {}
        opcode => panic!("opcode {opcode}"),
    }
}

type Multiply<T> = unsafe fn(
    usize,
    usize,
    usize,
    T,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    *mut T,
    isize,
    isize,
);

/// A matrix product, or that of the first half of the columns.
unsafe fn product<T: TestReal>(command: &Command, half: bool, multiply: Multiply<T>) {
    let [m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, flags] = command.args;
    let strides = |ld: u64, trans: bool| match (ld as isize, trans) {
        (ld, false) => (1, ld),
        (ld, true) => (ld, 1),
    };
    let a_strides = strides(lda, flags & GEMM_TRANS_A != 0);
    let b_strides = strides(ldb, flags & GEMM_TRANS_B != 0);
    let n = if half { n / 2 } else { n };
    // SAFETY: As the caller promises.
    unsafe {
        multiply(
            m as usize,
            k as usize,
            n as usize,
            T::from_bits_of(alpha),
            pointer(a),
            a_strides.0,
            a_strides.1,
            pointer(b),
            b_strides.0,
            b_strides.1,
            T::from_bits_of(beta),
            pointer(c),
            1,
            ldc as isize,
        );
    }
}

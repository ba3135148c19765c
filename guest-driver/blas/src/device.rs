// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operations ask of a device.
// UNSAFETY: commands name memory by bare addresses; `Device::run` says what that demands.
#![expect(unsafe_code)]

use coax::{Command, PageRange};

use crate::matrix::{Matrix, Operand};
use crate::outcome::Reason;
use crate::real::Real;

/// Runs commands on the memory of this process.
pub trait Device {
    /// Commands that run at the same time.
    fn engines(&self) -> usize;

    /// Moves what is mapped of ranges to the device at once, where it has memory that pages move to
    /// when it touches them. What does not move is used where it is.
    fn fetch(&self, ranges: &[PageRange]);

    /// Where the pages of ranges are.
    fn find(&self, ranges: &[PageRange]) -> Found;

    /// Runs commands that do not depend on each other, and tells of each whether it was done. When this
    /// returns the device has let go of the memory. A command that failed may have written a part of
    /// its destination.
    ///
    /// # Safety
    ///
    /// Memory that the commands read is not written during the call, and memory that they write is not
    /// accessed; either may be any mapped or unmapped address.
    unsafe fn run(&self, commands: &[Command]) -> Vec<Result<(), Reason>>;
}

/// Pages, counted by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Those that the device uses where they are: in its memory, or of files and shared.
    pub in_place: f64,
    /// Those of them that come to the CPU when it touches them.
    pub to_come_back: f64,
}

/// alpha·op(A)·op(B) + beta·C.
#[derive(Clone, Copy, Debug)]
pub struct Product<T> {
    /// Factor of the product.
    pub alpha: T,
    /// First factor, m×k.
    pub a: Operand<T>,
    /// Second factor, k×n.
    pub b: Operand<T>,
    /// Factor of the old C.
    pub beta: T,
    /// Destination, m×n.
    pub c: Matrix<T>,
}

impl<T: Real> Product<T> {
    /// Depth of the product.
    pub fn depth(&self) -> usize {
        self.a.cols()
    }

    /// The part of the product that makes a block of C.
    pub fn block(&self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        let depth = self.depth();
        Self {
            a: self.a.block(row, 0, rows, depth),
            b: self.b.block(0, col, depth, cols),
            c: self.c.block(row, col, rows, cols),
            ..*self
        }
    }

    /// The command that makes it.
    pub fn command(&self) -> Command {
        use coax::abi::wire::{GEMM_TRANS_A, GEMM_TRANS_B};
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        Command::new(
            T::GEMM,
            &[
                self.c.rows as u64,
                self.c.cols as u64,
                self.depth() as u64,
                self.a.stored.address(),
                self.a.stored.ld as u64,
                self.b.stored.address(),
                self.b.stored.ld as u64,
                self.c.address(),
                self.c.ld as u64,
                self.alpha.low_bits(),
                self.beta.low_bits(),
                flag(self.a.trans, GEMM_TRANS_A) | flag(self.b.trans, GEMM_TRANS_B),
            ],
        )
    }
}

/// The command that copies a matrix to one of the same shape.
pub fn copy<T>(to: &Matrix<T>, from: &Matrix<T>) -> Command {
    if to.stride() == to.column_bytes() && from.stride() == from.column_bytes() {
        return Command::copy(to.address(), from.address(), from.bytes());
    }
    Command::copy_rows(
        to.address(),
        from.address(),
        from.column_bytes(),
        from.cols as u64,
        (to.stride(), from.stride()),
    )
}

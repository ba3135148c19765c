// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operations ask of a device.
#![forbid(unsafe_code)]

use coax::abi::wire::{GEMM_TRANS_A, GEMM_TRANS_B};
use coax::{Command, PageRange};

use crate::footprint::Found;
use crate::operation::Product;
use crate::outcome::Reason;
use crate::real::Real;
use crate::view::{View, ViewMut};

/// Does work on the memory of this process.
pub trait Device {
    /// Commands that run at the same time.
    fn engines(&self) -> usize;

    /// Moves what is mapped of ranges to the device at once, where it has memory that pages move to
    /// when it touches them. What does not move is used where it is.
    fn fetch(&self, ranges: &[PageRange]);

    /// Where the pages of ranges are.
    fn find(&self, ranges: &[PageRange]) -> Found;

    /// Does pieces of work, in any order or at the same time, and tells of each whether it was done. When this
    /// returns the device has let go of the memory. A piece that failed may have been written in part.
    fn run<T: Real>(&self, work: Vec<Work<'_, T>>) -> Vec<Result<(), Reason>>;
}

/// A piece of work, with the memory that it needs for as long as it takes.
#[derive(Debug)]
pub enum Work<'a, T> {
    /// A matrix product.
    Product(Product<'a, T>),
    /// A copy of a matrix to one of the same shape.
    Copy {
        /// What is written.
        to: ViewMut<'a, T>,
        /// What is read.
        from: View<'a, T>,
    },
    /// Nothing.
    Nothing,
}

impl<T: Real> Work<'_, T> {
    /// The command for it. It reads and writes what the views of this work do, and nothing else.
    ///
    /// # Panics
    ///
    /// If matrices do not fit each other.
    pub fn command(&self) -> Command {
        match self {
            Work::Product(product) => multiply(product),
            Work::Copy { to, from } => copy(to, from),
            Work::Nothing => Command::nop(),
        }
    }
}

fn multiply<T: Real>(product: &Product<'_, T>) -> Command {
    product.assert_fits();
    let flag = |set: bool, bit: u64| if set { bit } else { 0 };
    let (a, b) = (product.a.stored.matrix(), product.b.stored.matrix());
    let c = product.c.matrix();
    Command::new(
        T::GEMM,
        &[
            c.rows as u64,
            c.cols as u64,
            product.depth() as u64,
            a.address(),
            a.ld as u64,
            b.address(),
            b.ld as u64,
            c.address(),
            c.ld as u64,
            product.alpha.low_bits(),
            product.beta.low_bits(),
            flag(product.a.trans, GEMM_TRANS_A) | flag(product.b.trans, GEMM_TRANS_B),
        ],
    )
}

fn copy<T: Real>(to: &ViewMut<'_, T>, from: &View<'_, T>) -> Command {
    let (to, from) = (to.matrix(), from.matrix());
    assert_eq!((to.rows, to.cols), (from.rows, from.cols));
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

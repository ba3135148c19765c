// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two precisions.
#![forbid(unsafe_code)]

use std::fmt::Debug;
use std::ops::{Add, Mul, Neg};

use coax::abi::wire;

/// A real number that the device multiplies matrices of.
pub trait Real:
    Copy + Debug + PartialEq + Add<Output = Self> + Mul<Output = Self> + Neg<Output = Self> + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Opcode of the matrix product.
    const GEMM: u32;

    /// The bits, in the low bytes of the integer.
    fn low_bits(self) -> u64;

    /// From a number that either precision holds.
    fn from_f32(value: f32) -> Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const GEMM: u32 = wire::OP_SGEMM;

    fn low_bits(self) -> u64 {
        self.to_bits().into()
    }

    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const GEMM: u32 = wire::OP_DGEMM;

    fn low_bits(self) -> u64 {
        self.to_bits()
    }

    fn from_f32(value: f32) -> Self {
        value.into()
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operations, made of matrix products on the device.
//!
//! A program never notices what becomes of the device: whatever it cannot do is done again, or for the
//! first time, by the CPU, part by part. That needs C as it was where C counts; see [`gemm`].

pub mod gemm;
pub mod symm;
pub mod syrk;
pub mod trsm;

#[cfg(test)]
mod reference;

use std::ffi::CStr;

use crate::cpu::Cpu;
use crate::device::Device;
use crate::outcome::Outcome;
use crate::scratch::Pool;

/// Which triangle of a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// The upper one.
    Upper,
    /// The lower one.
    Lower,
}

impl Triangle {
    /// The BLAS's letter.
    pub fn letter(self) -> &'static CStr {
        match self {
            Triangle::Upper => c"U",
            Triangle::Lower => c"L",
        }
    }

    /// The same triangle of the transpose.
    pub fn flipped(self) -> Self {
        match self {
            Triangle::Upper => Triangle::Lower,
            Triangle::Lower => Triangle::Upper,
        }
    }
}

/// On which side of the other one a matrix stands in a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before it.
    Left,
    /// Behind it.
    Right,
}

impl Side {
    /// The BLAS's letter.
    pub fn letter(self) -> &'static CStr {
        match self {
            Side::Left => c"L",
            Side::Right => c"R",
        }
    }

    /// The same side of the transposed product.
    pub fn flipped(self) -> Self {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// One call of the program on its way over the device.
pub struct Offload<'a, T, D> {
    /// Does the products.
    pub device: &'a D,
    /// Does what is left.
    pub cpu: &'a Cpu<T>,
    /// Memory for what the device works beside the program's.
    pub pool: &'a Pool,
    /// What became of the parts.
    pub outcome: Outcome,
}

impl<'a, T, D: Device> Offload<'a, T, D> {
    /// A call that nothing has been done of.
    pub fn new(device: &'a D, cpu: &'a Cpu<T>, pool: &'a Pool) -> Self {
        Self {
            device,
            cpu,
            pool,
            outcome: Outcome::default(),
        }
    }
}

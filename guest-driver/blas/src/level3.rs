// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operations, made of matrix products on the device.
//!
//! A program never notices what becomes of the device: whatever it cannot do is done again, or for the
//! first time, by the CPU, part by part. That needs C as it was where C counts; see [`gemm`].
#![forbid(unsafe_code)]

pub mod gemm;
mod symm;
mod syrk;
mod trsm;

use crate::cpu::Cpu;
use crate::device::Device;
use crate::operation::Call;
use crate::outcome::Outcome;
use crate::real::Real;
use crate::scratch::Pool;

/// One call of the program on its way over the device.
pub struct Offload<'a, T: Real, D> {
    /// Does the products.
    pub device: &'a D,
    /// Does what is left.
    pub cpu: &'a dyn Cpu<T>,
    /// Memory for what the device works beside the program's.
    pub pool: &'a Pool,
    /// What became of the parts.
    pub outcome: Outcome,
}

impl<'a, T: Real, D: Device> Offload<'a, T, D> {
    /// A call that nothing has been done of.
    pub fn new(device: &'a D, cpu: &'a dyn Cpu<T>, pool: &'a Pool) -> Self {
        Self {
            device,
            cpu,
            pool,
            outcome: Outcome::default(),
        }
    }
    /// Makes a call, wherever.
    pub fn call(&mut self, call: Call<'_, T>) {
        match call {
            Call::Gemm(product) => self.gemm(product),
            Call::Syrk(syrk) => self.syrk(syrk),
            Call::Symm(symm) => self.symm(symm),
            Call::Trsm(trsm) => self.trsm(trsm),
        }
    }
}

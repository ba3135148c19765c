// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a call costs, on either side, in operations, pages and commands.
#![forbid(unsafe_code)]

use coax::abi::wire::PAGE_SIZE;

use crate::call::Call;
use crate::footprint::Footprint;
use crate::matrix::Matrix;
use crate::model::Cost;
use crate::real::Real;

/// Operations of the CPU for an element that it puts together for the device: a few accesses.
const TOUCH_FLOPS: f64 = 8.0;
/// Rows and columns of the blocks that `syrk` and `symm` put together.
const BLOCK: f64 = 256.0;
/// Unknowns of a system that the CPU solves in `trsm`.
const SMALL: f64 = 64.0;

/// A size as a number to count with.
fn number(size: usize) -> f64 {
    size as f64
}

/// Pages of so many elements.
fn pages_of<T>(elements: f64) -> f64 {
    elements * size_of::<T>() as f64 / PAGE_SIZE as f64
}

impl<T: Real> Call<T> {
    /// Operations of the CPU.
    pub fn flops(&self) -> f64 {
        match self {
            Call::Gemm(call) => {
                2.0 * number(call.c.rows) * number(call.c.cols) * number(call.depth())
            }
            Call::Syrk(call) => number(call.c.rows) * number(call.c.rows) * number(call.a.cols()),
            Call::Symm(call) => {
                2.0 * number(call.c.rows) * number(call.c.cols) * number(call.a.rows)
            }
            Call::Trsm(call) => {
                number(call.b.rows) * number(call.b.cols) * number(call.a.stored.rows)
            }
        }
    }

    /// The program's memory that the device uses.
    pub fn footprint(&self) -> Footprint {
        match self {
            Call::Gemm(call) => Footprint::of(&[call.a.stored, call.b.stored, call.c]),
            Call::Syrk(call) if number(call.c.rows) > BLOCK => {
                Footprint::of(&[call.a.stored, call.c])
            }
            Call::Syrk(call) => Footprint::of(&[call.a.stored]),
            Call::Symm(call) if number(call.a.rows) > BLOCK => {
                Footprint::of(&[call.a, call.b, call.c])
            }
            Call::Symm(call) => Footprint::of(&[call.b, call.c]),
            Call::Trsm(call) => Footprint::of(&[call.a.stored, call.b]),
        }
    }

    /// What the call costs, if so many pages of its footprint of `touched` have to move.
    pub fn cost(&self, touched: f64, moving: f64) -> Cost {
        let flops = self.flops();
        match self {
            Call::Gemm(call) => Cost {
                flops,
                device_flops: flops,
                rest_flops: 0.0,
                touched,
                pages: moving,
                commands: if call.beta == T::ZERO { 1.0 } else { 2.0 },
            },
            Call::Syrk(call) => {
                let (n, k) = (number(call.c.rows), number(call.a.cols()));
                let diagonal = n * n.min(BLOCK);
                Cost {
                    flops,
                    device_flops: (n * n + diagonal) * k,
                    rest_flops: TOUCH_FLOPS * diagonal,
                    touched: touched + pages_of::<T>(diagonal),
                    pages: moving + pages_of::<T>(diagonal),
                    commands: 3.0 * (n / BLOCK).ceil(),
                }
            }
            Call::Symm(call) => {
                let order = number(call.a.rows);
                let diagonal = order * order.min(BLOCK);
                Cost {
                    flops,
                    device_flops: flops,
                    rest_flops: TOUCH_FLOPS * diagonal,
                    touched: touched + pages_of::<T>(diagonal),
                    pages: moving + pages_of::<T>(diagonal),
                    commands: 6.0 * (order / BLOCK).ceil(),
                }
            }
            Call::Trsm(call) => {
                let (m, n) = (number(call.b.rows), number(call.b.cols));
                let order = number(call.a.stored.rows);
                Cost {
                    flops,
                    device_flops: flops,
                    rest_flops: m * n * order.min(SMALL),
                    // What the CPU solves comes back to it, with the diagonal of A.
                    touched,
                    pages: 2.0 * moving,
                    commands: 4.0 * (order / SMALL).ceil(),
                }
            }
        }
    }

    /// The matrices that the device goes over as a whole, and before the CPU does.
    pub fn fetched(&self) -> Vec<Matrix<T>> {
        match self {
            Call::Gemm(call) => vec![call.a.stored, call.b.stored, call.c],
            Call::Syrk(call) if number(call.c.rows) > BLOCK => vec![call.a.stored, call.c],
            Call::Syrk(call) => vec![call.a.stored],
            Call::Symm(call) => vec![call.b, call.c],
            Call::Trsm(_) => Vec::new(),
        }
    }
}

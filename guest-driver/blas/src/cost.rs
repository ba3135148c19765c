// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a call costs, on either side, in operations, pages and commands.
#![forbid(unsafe_code)]

use coax::abi::wire::PAGE_SIZE;

use crate::footprint::Footprint;
use crate::model::Cost;
use crate::operation::Call;
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

impl<T: Real> Call<'_, T> {
    /// The program's memory that the device uses.
    pub fn footprint(&self) -> Footprint {
        match self {
            Call::Gemm(call) => {
                let (a, b) = (call.a.stored.matrix(), call.b.stored.matrix());
                Footprint::of(&[a, b, call.c.matrix()])
            }
            Call::Syrk(call) if number(call.c.order()) > BLOCK => {
                Footprint::of(&[call.a.stored.matrix(), call.c.matrix()])
            }
            Call::Syrk(call) => Footprint::of(&[call.a.stored.matrix()]),
            Call::Symm(call) if number(call.a.order()) > BLOCK => {
                Footprint::of(&[call.a.matrix(), call.b.matrix(), call.c.matrix()])
            }
            Call::Symm(call) => Footprint::of(&[call.b.matrix(), call.c.matrix()]),
            Call::Trsm(call) => Footprint::of(&[call.a.matrix(), call.b.matrix()]),
        }
    }

    /// What the call costs, if so many pages of its footprint of `touched` have to move.
    pub fn cost(&self, touched: f64, moving: f64) -> Cost {
        let flops = self.size().flops();
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
                let (n, k) = (number(call.c.order()), number(call.a.cols()));
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
                let order = number(call.a.order());
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
                let (m, n) = (number(call.b.rows()), number(call.b.cols()));
                let order = number(call.a.order());
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

    /// What of it the device goes over as a whole, and before the CPU does.
    pub fn fetched(&self) -> Footprint {
        match self {
            Call::Symm(call) => Footprint::of(&[call.b.matrix(), call.c.matrix()]),
            Call::Trsm(_) => Footprint::default(),
            Call::Gemm(_) | Call::Syrk(_) => self.footprint(),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a call costs, on either side, in operations, pages and commands.
#![forbid(unsafe_code)]

use coax::abi::wire::PAGE_SIZE;

use crate::call::Call;
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
    /// What the call costs.
    pub fn cost(&self) -> Cost {
        match self {
            Call::Gemm(call) => {
                let (m, n) = (number(call.c.rows), number(call.c.cols));
                let flops = 2.0 * m * n * number(call.depth());
                Cost {
                    flops,
                    device_flops: flops,
                    rest_flops: 0.0,
                    pages: call.a.stored.pages() + call.b.stored.pages() + call.c.pages(),
                    commands: if call.beta == T::ZERO { 1.0 } else { 2.0 },
                }
            }
            Call::Syrk(call) => {
                let (n, k) = (number(call.c.rows), number(call.a.cols()));
                let diagonal = n * n.min(BLOCK);
                let beside = if n > BLOCK { call.c.pages() } else { 0.0 };
                Cost {
                    flops: n * n * k,
                    device_flops: (n * n + diagonal) * k,
                    rest_flops: TOUCH_FLOPS * diagonal,
                    pages: call.a.stored.pages() + beside + pages_of::<T>(diagonal),
                    commands: 3.0 * (n / BLOCK).ceil(),
                }
            }
            Call::Symm(call) => {
                let (m, n) = (number(call.c.rows), number(call.c.cols));
                let order = number(call.a.rows);
                let flops = 2.0 * m * n * order;
                let diagonal = order * order.min(BLOCK);
                let beside = if order > BLOCK { call.a.pages() } else { 0.0 };
                Cost {
                    flops,
                    device_flops: flops,
                    rest_flops: TOUCH_FLOPS * diagonal,
                    pages: call.b.pages() + call.c.pages() + beside + pages_of::<T>(diagonal),
                    commands: 6.0 * (order / BLOCK).ceil(),
                }
            }
            Call::Trsm(call) => {
                let (m, n) = (number(call.b.rows), number(call.b.cols));
                let order = number(call.a.stored.rows);
                let flops = m * n * order;
                Cost {
                    flops,
                    device_flops: flops,
                    rest_flops: m * n * order.min(SMALL),
                    // What the CPU solves comes back to it, with the diagonal of A.
                    pages: 2.0 * (call.a.stored.pages() + call.b.pages()),
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

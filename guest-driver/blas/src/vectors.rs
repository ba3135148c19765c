// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls of levels 1 and 2 as matrix products.
//!
//! A vector of n elements, `inc` apart, is a matrix of one row with the leading dimension `inc`. Vectors
//! with other increments than positive ones are left to the CPU.
#![forbid(unsafe_code)]

use crate::call::{matrix, Call};
use crate::cpu::Int;
use crate::device::Product;
use crate::level3::gemm::LEAST_VOLUME;
use crate::matrix::{Matrix, Operand};
use crate::model::LEAST_FLOPS;
use crate::real::Real;
use crate::settings::settings;

/// Whether a call of so many elements is the CPU's without a look. Programs make very many of them, and
/// they are not counted.
pub fn is_small(rows: Int, cols: Int) -> bool {
    let least = settings().least_flops.unwrap_or(LEAST_FLOPS);
    let volume = f64::from(rows) * f64::from(cols);
    volume < LEAST_VOLUME as f64 || 2.0 * volume < least
}

/// A vector, and the distance of its elements.
pub type Vector<P> = (P, Int);

/// A vector as a row, and as a column.
fn row<T>((at, inc): Vector<*const T>, n: Int) -> Option<Operand<T>> {
    Some(Operand::plain(matrix(at, 1, n, inc)?))
}

fn column<T>(vector: Vector<*const T>, n: Int) -> Option<Operand<T>> {
    row(vector, n).map(Operand::transposed)
}

impl<T: Real> Call<T> {
    /// `GEMV`: y = alpha·op(A)·x + beta·y, A of `m` rows and `n` columns.
    pub fn gemv(
        trans: bool,
        (m, n): (Int, Int),
        alpha: T,
        (a, lda): (*const T, Int),
        x: Vector<*const T>,
        beta: T,
        (y, incy): Vector<*mut T>,
    ) -> Option<Self> {
        let stored = matrix(a, m, n, lda)?;
        let a = Operand { stored, trans };
        let (rows, cols) = if trans { (n, m) } else { (m, n) };
        // The device writes a column at once, and a row element by element.
        Some(Call::Gemm(if incy == 1 {
            Product {
                alpha,
                a,
                b: column(x, cols)?,
                beta,
                c: matrix(y, rows, 1, rows.max(1))?,
            }
        } else {
            Product {
                alpha,
                a: row(x, cols)?,
                b: a.transposed(),
                beta,
                c: matrix(y, 1, rows, incy)?,
            }
        }))
    }

    /// `DOT`: the sum of the products of the elements of x and y, into `result`.
    pub fn dot(n: Int, x: Vector<*const T>, y: Vector<*const T>, result: *mut T) -> Option<Self> {
        let c = Matrix {
            at: result,
            rows: 1,
            cols: 1,
            ld: 1,
        };
        Some(Call::Gemm(Product {
            alpha: T::ONE,
            a: row(x, n)?,
            b: column(y, n)?,
            beta: T::ZERO,
            c,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: usize) -> *mut f64 {
        std::ptr::without_provenance_mut(address)
    }

    fn product(call: Option<Call<f64>>) -> Product<f64> {
        match call {
            Some(Call::Gemm(product)) => product,
            call => panic!("no product: {call:?}"),
        }
    }

    /// Rows, columns and depth, which must fit each other.
    fn shape(product: &Product<f64>) -> (usize, usize, usize) {
        let b = product.b;
        assert_eq!(b.transposed().cols(), product.depth());
        assert_eq!(b.cols(), product.c.cols);
        (product.c.rows, product.c.cols, product.depth())
    }

    #[test]
    fn matrix_times_vector_is_a_column_or_a_row() {
        for (trans, (rows, cols)) in [(false, (3, 5)), (true, (5, 3))] {
            let call = |incy| {
                let (a, x, y) = ((at(0x1000).cast_const(), 4), at(0x2000), at(0x3000));
                Call::gemv(trans, (3, 5), 1.0, a, (x, 7), 0.5, (y, incy))
            };
            assert_eq!(shape(&product(call(1))), (rows, 1, cols));
            let apart = product(call(2));
            assert_eq!(shape(&apart), (1, rows, cols));
            assert_eq!((apart.a.stored.ld, apart.c.ld), (7, 2));
            assert!(call(0).is_none() && call(-1).is_none());
        }
    }

    #[test]
    fn product_of_vectors_is_one_number() {
        let (x, y) = ((at(0x1000).cast_const(), 2), (at(0x2000).cast_const(), 3));
        let inner = product(Call::dot(9, x, y, at(0x3000)));
        assert_eq!(shape(&inner), (1, 1, 9));
        assert!(Call::dot(9, (x.0, 0), y, at(0x3000)).is_none());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls of levels 1 and 2 as matrix products.
//!
//! A vector of n elements, `inc` apart, is a matrix of one row with the leading dimension `inc`. Vectors
//! with other increments than positive ones are left to the CPU.
// UNSAFETY: views are made of the program's pointers.
#![expect(unsafe_code)]

use super::arguments::{matrix, product, Checked, Int, RawOperand};
use crate::level3::gemm::LEAST_VOLUME;
use crate::matrix::Matrix;
use crate::model::LEAST_FLOPS;
use crate::real::Real;
use crate::settings::settings;
use crate::way::Refused;

/// Whether a call of so many elements is the CPU's without a look. Programs make very many of them, and
/// they are not counted.
pub fn is_small(rows: Int, cols: Int) -> bool {
    let least = settings().least_flops.unwrap_or(LEAST_FLOPS);
    let volume = rows as f64 * cols as f64;
    volume < LEAST_VOLUME as f64 || 2.0 * volume < least
}

/// A vector, and the distance of its elements.
pub type Vector<P> = (P, Int);

/// A vector as a row, and as a column.
fn row<T>((at, inc): Vector<*const T>, n: Int) -> Result<RawOperand<T>, Refused> {
    Ok(RawOperand {
        stored: matrix(at, 1, n, inc)?,
        trans: false,
    })
}

fn column<T>(vector: Vector<*const T>, n: Int) -> Result<RawOperand<T>, Refused> {
    row(vector, n).map(transposed)
}

fn transposed<T>(operand: RawOperand<T>) -> RawOperand<T> {
    RawOperand {
        trans: !operand.trans,
        ..operand
    }
}

/// `GEMV`: y = alpha·op(A)·x + beta·y, A of `m` rows and `n` columns.
///
/// # Safety
///
/// The contract of the BLAS, for `'a`: A and x are of the given sizes and are not written, y is and is
/// accessed by nobody else. They may overlap.
pub unsafe fn gemv<'a, T: Real>(
    trans: bool,
    (m, n): (Int, Int),
    alpha: T,
    (a, lda): (*const T, Int),
    x: Vector<*const T>,
    beta: T,
    (y, incy): Vector<*mut T>,
) -> Checked<'a, T> {
    let stored = matrix(a, m, n, lda)?;
    let a = RawOperand { stored, trans };
    let (rows, cols) = if trans { (n, m) } else { (m, n) };
    // The device writes a column at once, and a row element by element.
    let (first, second, c) = if incy == 1 {
        (a, column(x, cols)?, matrix(y, rows, 1, rows.max(1))?)
    } else {
        (row(x, cols)?, transposed(a), matrix(y, 1, rows, incy)?)
    };
    // SAFETY: As the caller promises: a vector is a matrix of its elements, and of no others.
    unsafe { product(alpha, first, second, beta, c) }
}

/// `DOT`: the sum of the products of the elements of x and y, into `result`.
///
/// # Safety
///
/// As [`gemv`], with `result` as the destination.
pub unsafe fn dot<'a, T: Real>(
    n: Int,
    x: Vector<*const T>,
    y: Vector<*const T>,
    result: *mut T,
) -> Checked<'a, T> {
    let c = Matrix {
        at: result,
        rows: 1,
        cols: 1,
        ld: 1,
    };
    // SAFETY: As for `gemv`.
    unsafe { product(T::ONE, row(x, n)?, column(y, n)?, T::ZERO, c) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Call, Product};

    fn at(address: usize) -> *mut f64 {
        std::ptr::without_provenance_mut(address)
    }

    fn made(call: Checked<'_, f64>) -> Product<'_, f64> {
        match call {
            Ok(Call::Gemm(product)) => product,
            call => panic!("no product: {call:?}"),
        }
    }

    /// Rows, columns and depth, which must fit each other.
    fn shape(product: &Product<'_, f64>) -> (usize, usize, usize) {
        product.assert_fits();
        (product.c.rows(), product.c.cols(), product.depth())
    }

    #[test]
    fn matrix_times_vector_is_a_column_or_a_row() {
        for (trans, (rows, cols)) in [(false, (3000, 5000)), (true, (5000, 3000))] {
            let call = |incy| {
                let a = (at(0x1000_0000).cast_const(), 4000);
                let (x, y) = (at(0x4000_0000), at(0x5000_0000));
                // SAFETY: Nobody accesses the matrices, which are not there.
                unsafe { gemv(trans, (3000, 5000), 1.0, a, (x, 7), 0.5, (y, incy)) }
            };
            assert_eq!(shape(&made(call(1))), (rows, 1, cols));
            let apart = made(call(2));
            assert_eq!(shape(&apart), (1, rows, cols));
            let (x, y) = (apart.a.stored.matrix(), apart.c.matrix());
            assert_eq!((x.ld, y.ld), (7, 2));
            for incy in [0, -1] {
                assert_eq!(call(incy).err(), Some(Refused::WRONG));
            }
        }
    }

    #[test]
    fn product_of_vectors_is_one_number() {
        let many = 9_000_000;
        let (x, y) = (
            (at(0x1000_0000).cast_const(), 2),
            (at(0x4000_0000).cast_const(), 3),
        );
        // SAFETY: Nobody accesses the vectors, which are not there.
        let call = |x| unsafe { dot(many, x, y, at(0x9000_0000)) };
        assert_eq!(shape(&made(call(x))), (1, 1, many as usize));
        assert_eq!(call((x.0, 0)).err(), Some(Refused::WRONG));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Multiplication of matrices in local memory, by the crate `matrixmultiply`.
// UNSAFETY: the crate's functions take pointers and strides.
#![expect(unsafe_code)]

use std::fmt::Debug;
use std::ops::{Add, Mul};

use zerocopy::{FromBytes, Immutable, IntoBytes};

// Elements are copied from guest memory, which is little-endian, as they are.
const _: () = assert!(cfg!(target_endian = "little"));

/// A floating-point type.
pub trait Element:
    Copy
    + Debug
    + PartialEq
    + Add<Output = Self>
    + Mul<Output = Self>
    + FromBytes
    + IntoBytes
    + Immutable
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// The number with these bits, in the low bytes of the integer.
    fn from_low_bits(bits: u64) -> Self;

    /// C = α·A·B + β·C; C is not read if β is 0.
    ///
    /// # Safety
    ///
    /// - `a`, `b` and `c` with their strides (of rows, of columns) address only elements that
    ///   are valid for reads, those of `c` also for writes, for m×k, k×n and m×n elements.
    /// - Elements of `c` are distinct from each other and from those of `a` and `b`.
    #[expect(clippy::too_many_arguments, reason = "the shape of the BLAS")]
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        alpha: Self,
        a: *const Self,
        a_strides: (isize, isize),
        b: *const Self,
        b_strides: (isize, isize),
        beta: Self,
        c: *mut Self,
        c_strides: (isize, isize),
    );
}

macro_rules! element {
    ($type:ty, $bits:ty, $gemm:path) => {
        impl Element for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn from_low_bits(bits: u64) -> Self {
                Self::from_bits(bits as $bits)
            }

            unsafe fn gemm(
                m: usize,
                k: usize,
                n: usize,
                alpha: Self,
                a: *const Self,
                a_strides: (isize, isize),
                b: *const Self,
                b_strides: (isize, isize),
                beta: Self,
                c: *mut Self,
                c_strides: (isize, isize),
            ) {
                // SAFETY: the conditions are those of this function.
                unsafe {
                    $gemm(
                        m,
                        k,
                        n,
                        alpha,
                        a,
                        a_strides.0,
                        a_strides.1,
                        b,
                        b_strides.0,
                        b_strides.1,
                        beta,
                        c,
                        c_strides.0,
                        c_strides.1,
                    );
                }
            }
        }
    };
}

element!(f32, u32, matrixmultiply::sgemm);
element!(f64, u64, matrixmultiply::dgemm);

/// Shape of an operand in a local buffer: op(X) has `rows` × `cols` elements, X is stored
/// column by column without gaps.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    pub rows: usize,
    pub cols: usize,
    pub trans: bool,
}

impl Tile {
    /// Distance of rows and of columns of op(X) in elements.
    fn strides(self) -> (isize, isize) {
        // Tiles have some hundred thousand elements at most.
        if self.trans {
            (self.cols as isize, 1)
        } else {
            (1, self.rows as isize)
        }
    }
}

/// C = α·op(A)·op(B), added to C if `accumulate`; C is stored column by column without gaps.
pub fn multiply_tiles<T: Element>(
    alpha: T,
    (a, a_tile): (&[T], Tile),
    (b, b_tile): (&[T], Tile),
    accumulate: bool,
    c: &mut [T],
) {
    let (m, k, n) = (a_tile.rows, a_tile.cols, b_tile.cols);
    assert_eq!(b_tile.rows, k);
    assert!(m * k <= a.len() && k * n <= b.len() && m * n <= c.len());
    let beta = if accumulate { T::ONE } else { T::ZERO };
    // SAFETY:
    // - The strides walk m×k, k×n and m×n elements without gaps, which the slices hold, as
    //   asserted.
    // - The elements of `c` are distinct since it has no gaps, and apart from those of `a` and
    //   `b` since it is borrowed mutably.
    unsafe {
        T::gemm(
            m,
            k,
            n,
            alpha,
            a.as_ptr(),
            a_tile.strides(),
            b.as_ptr(),
            b_tile.strides(),
            beta,
            c.as_mut_ptr(),
            (1, m as isize),
        );
    }
}

/// C = A·B for square column-major matrices of `n` rows in local memory: the yardstick of the
/// benchmark, by the same crate.
pub fn multiply<T: Element>(n: usize, a: &[T], b: &[T], c: &mut [T]) {
    let tile = Tile {
        rows: n,
        cols: n,
        trans: false,
    };
    multiply_tiles(T::ONE, (a, tile), (b, tile), false, c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_that_is_not_accumulated_ignores_what_was_there() {
        let mut c = [f64::NAN];
        multiply(1, &[2.0], &[3.0], &mut c);
        assert_eq!(c, [6.0]);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arguments of a call, as both interfaces have them once letters are understood, checked in this order:
//!
//! 1. sizes and leading dimensions: a wrong one is for the CPU's BLAS to complain of;
//! 2. the number of operations: most calls are too small, and cost no more than this;
//! 3. addresses: matrices that are misaligned, wrap around or overlap the destination, and calls with
//!    alpha = 0, end as they always do, in whatever way the CPU's BLAS has.
//!
//! What is left is memory that the program has promised, and becomes views.
// UNSAFETY: views are made of the program's pointers.
#![expect(unsafe_code)]

use crate::decision;
use crate::matrix::Matrix;
use crate::operation::{order, Call, Operand, Product, Side, Size, Symm, Syrk, Trsm};
use crate::outcome::Reason;
use crate::real::Real;
use crate::routine::Kind;
use crate::settings::settings;
use crate::view::{Stored, StoredMut, Triangle, View, ViewMut};
use crate::way::Refused;

/// A number of a call, of either interface.
pub type Int = i64;
/// A call, or why it is the CPU's.
pub type Checked<'a, T> = Result<Call<'a, T>, Refused>;

/// Sizes of a product.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows of the destination.
    pub m: Int,
    /// Columns of the destination.
    pub n: Int,
    /// Depth.
    pub k: Int,
}

/// op(A) in the program's memory.
#[derive(Clone, Copy, Debug)]
pub struct RawOperand<T> {
    /// As it is stored.
    pub stored: Matrix<T>,
    /// Its transpose is meant.
    pub trans: bool,
}

/// A matrix of the given size, unless a number in it is wrong.
pub fn matrix<T>(at: *const T, rows: Int, cols: Int, ld: Int) -> Result<Matrix<T>, Refused> {
    if ld < rows.max(1) {
        return Err(Refused::WRONG);
    }
    let size = |number: Int| usize::try_from(number).map_err(|_negative| Refused::WRONG);
    let (rows, cols, ld) = (size(rows)?, size(cols)?, size(ld)?);
    Ok(Matrix {
        at: at.cast_mut(),
        rows,
        cols,
        // Where there is no next column it may be anywhere, at the end of all addresses too.
        ld: if cols > 1 { ld } else { rows.max(1) },
    })
}

/// op(A) of the given size, stored as it is or transposed.
fn operand<T>(
    (at, ld): (*const T, Int),
    trans: bool,
    rows: Int,
    cols: Int,
) -> Result<RawOperand<T>, Refused> {
    let (rows, cols) = if trans { (cols, rows) } else { (rows, cols) };
    Ok(RawOperand {
        stored: matrix(at, rows, cols, ld)?,
        trans,
    })
}

/// The size of a call with a destination.
fn size<T>(kind: Kind, destination: &Matrix<T>, k: usize) -> Size {
    Size {
        kind,
        m: destination.rows,
        n: destination.cols,
        k,
    }
}

/// Whether the device does with a call what the BLAS's contract says: not if it is too small, or its matrices
/// are not as that has them.
fn admit<T: Real>(
    size: Size,
    alpha: T,
    inputs: &[Matrix<T>],
    destination: &Matrix<T>,
) -> Result<(), Refused> {
    let refused = |reason| {
        Err(Refused {
            reason,
            size: Some(size),
        })
    };
    if let Some(reason) = decision::by_size(size.flops(), settings().least_flops) {
        return refused(reason);
    }
    let apart = |input: &Matrix<T>| input.is_sound() && !input.overlaps(destination);
    // With alpha = 0 the inputs are not read, and there is next to nothing to do.
    if alpha == T::ZERO || !destination.is_sound() || !inputs.iter().all(apart) {
        return refused(Reason::Arguments);
    }
    Ok(())
}

/// `GEMM`.
///
/// # Safety
///
/// The contract of the BLAS, for `'a`: A and B are matrices of the given sizes and are not written, C is
/// one and is accessed by nobody else. They may overlap.
pub unsafe fn gemm<'a, T: Real>(
    (trans_a, trans_b): (bool, bool),
    shape: Shape,
    alpha: T,
    a: (*const T, Int),
    b: (*const T, Int),
    beta: T,
    (c, ldc): (*mut T, Int),
) -> Checked<'a, T> {
    let Shape { m, n, k } = shape;
    let a = operand(a, trans_a, m, k)?;
    let b = operand(b, trans_b, k, n)?;
    let c = matrix(c, m, n, ldc)?;
    // SAFETY: As the caller promises.
    unsafe { product(alpha, a, b, beta, c) }
}

/// A product of matrices whose numbers are right.
///
/// # Safety
///
/// As [`gemm`].
pub unsafe fn product<'a, T: Real>(
    alpha: T,
    a: RawOperand<T>,
    b: RawOperand<T>,
    beta: T,
    c: Matrix<T>,
) -> Checked<'a, T> {
    let depth = if a.trans {
        a.stored.rows
    } else {
        a.stored.cols
    };
    admit(
        size(Kind::Gemm, &c, depth),
        alpha,
        &[a.stored, b.stored],
        &c,
    )?;
    // SAFETY: The memory is as the caller promises. `matrix` has seen to it that columns are apart, and
    // `admit` that elements are aligned and none of C is one of A or B: who reads those reads no C.
    unsafe {
        let view = |operand: RawOperand<T>| Operand {
            stored: View::new(operand.stored),
            trans: operand.trans,
        };
        Ok(Call::Gemm(Product {
            alpha,
            a: view(a),
            b: view(b),
            beta,
            c: ViewMut::new(c),
        }))
    }
}

/// `SYRK`, of order `n`.
///
/// # Safety
///
/// As [`gemm`]; of C only the triangle is promised.
pub unsafe fn syrk<'a, T: Real>(
    (triangle, trans): (Triangle, bool),
    (n, k): (Int, Int),
    alpha: T,
    a: (*const T, Int),
    beta: T,
    (c, ldc): (*mut T, Int),
) -> Checked<'a, T> {
    let a = operand(a, trans, n, k)?;
    let c = matrix(c, n, n, ldc)?;
    let depth = if trans { a.stored.rows } else { a.stored.cols };
    admit(size(Kind::Syrk, &c, depth), alpha, &[a.stored], &c)?;
    // SAFETY: As in `product`; C is square.
    unsafe {
        Ok(Call::Syrk(Syrk {
            alpha,
            a: Operand {
                stored: View::new(a.stored),
                trans,
            },
            beta,
            c: StoredMut::new(c, triangle),
        }))
    }
}

/// `SYMM`.
///
/// # Safety
///
/// As [`gemm`]; of A only the triangle is promised.
pub unsafe fn symm<'a, T: Real>(
    (side, triangle): (Side, Triangle),
    (m, n): (Int, Int),
    alpha: T,
    (a, lda): (*const T, Int),
    (b, ldb): (*const T, Int),
    beta: T,
    (c, ldc): (*mut T, Int),
) -> Checked<'a, T> {
    let order = order(side, (m, n));
    let a = matrix(a, order, order, lda)?;
    let b = matrix(b, m, n, ldb)?;
    let c = matrix(c, m, n, ldc)?;
    admit(size(Kind::Symm, &c, a.rows), alpha, &[a, b], &c)?;
    // SAFETY: As in `product`; A is square.
    unsafe {
        Ok(Call::Symm(Symm {
            side,
            alpha,
            a: Stored::new(a, triangle),
            b: View::new(b),
            beta,
            c: ViewMut::new(c),
        }))
    }
}

/// `TRSM`.
///
/// # Safety
///
/// As [`gemm`], with B as the destination; of A only the triangle is promised.
pub unsafe fn trsm<'a, T: Real>(
    (side, triangle, trans, unit): (Side, Triangle, bool, bool),
    (m, n): (Int, Int),
    alpha: T,
    (a, lda): (*const T, Int),
    (b, ldb): (*mut T, Int),
) -> Checked<'a, T> {
    let order = order(side, (m, n));
    let a = matrix(a, order, order, lda)?;
    let b = matrix(b, m, n, ldb)?;
    admit(size(Kind::Trsm, &b, a.rows), alpha, &[a], &b)?;
    // SAFETY: As in `product`; A is square.
    unsafe {
        Ok(Call::Trsm(Trsm {
            side,
            a: Stored::new(a, triangle),
            trans,
            unit,
            alpha,
            b: ViewMut::new(b),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(at: usize) -> *mut f64 {
        std::ptr::without_provenance_mut(at)
    }

    const SHAPE: Shape = Shape {
        m: 300,
        n: 400,
        k: 500,
    };

    fn product(shape: Shape, lds: [Int; 3], alpha: f64, c: usize) -> Result<f64, Refused> {
        let (a, b) = (address(0x1000_0000), address(0x2000_0000));
        let c = (address(c), lds[2]);
        // SAFETY: Nobody accesses the matrices, which are not there.
        let call = unsafe {
            gemm(
                (false, true),
                shape,
                alpha,
                (a, lds[0]),
                (b, lds[1]),
                0.0,
                c,
            )
        };
        call.map(|call| call.size().flops())
    }

    fn refused(reason: Reason, Shape { m, n, k }: Shape) -> Result<f64, Refused> {
        let [m, n, k] = [m, n, k].map(|size| usize::try_from(size).expect("not negative"));
        let kind = Kind::Gemm;
        let size = Some(Size { kind, m, n, k });
        Err(Refused { reason, size })
    }

    #[test]
    fn wrong_sizes_make_no_call() {
        let at = 0x3000_0000;
        assert_eq!(product(SHAPE, [300, 400, 300], 1.0, at), Ok(120e6));
        for lds in [
            [299, 400, 300],
            [300, 399, 300],
            [300, 400, 299],
            [300, 400, -1],
        ] {
            let call = product(SHAPE, lds, 1.0, at);
            assert_eq!(call, Err(Refused::WRONG), "{lds:?}");
        }
        let negative = Shape { m: -1, ..SHAPE };
        let call = product(negative, [300, 400, 300], 1.0, at);
        assert_eq!(call, Err(Refused::WRONG));
        // Nothing to do is no mistake, but a leading dimension of 0 is one.
        let empty = Shape { m: 0, n: 0, k: 0 };
        let call = product(empty, [1, 1, 1], 1.0, at);
        assert_eq!(call, refused(Reason::Small, empty));
        assert_eq!(product(empty, [1, 1, 0], 1.0, at), Err(Refused::WRONG));
    }

    #[test]
    fn overlapping_misaligned_and_zeroed_calls_are_the_cpus_with_their_size() {
        let call = |alpha, c| product(SHAPE, [300, 400, 300], alpha, c);
        let refused = refused(Reason::Arguments, SHAPE);
        assert!(call(1.0, 0x3000_0000).is_ok());
        assert_eq!(call(1.0, 0x1000_0008), refused);
        assert_eq!(call(1.0, 0x2000_0008), refused);
        assert_eq!(call(1.0, 0x3000_0004), refused);
        assert_eq!(call(0.0, 0x3000_0000), refused);
    }

    #[test]
    fn columns_may_be_as_far_from_each_other_as_addresses_go() {
        let flops = |n, ld| {
            let shape = Shape {
                m: 3000,
                n,
                k: 4000,
            };
            let lds = [3000, 4000, ld];
            product(shape, lds, 1.0, 0x3000_0000).map_err(|refused| refused.reason)
        };
        // Of one column the next one is nowhere, and its distance in bytes is 0 as a number of 64 bits.
        assert_eq!(flops(1, 1 << 61), Ok(24e6));
        assert_eq!(flops(2, 1 << 61), Err(Reason::Arguments));
        assert_eq!(flops(2, 1 << 59), Ok(48e6));
        assert_eq!(flops(2, Int::MAX), Err(Reason::Arguments));
        assert_eq!(flops(Int::MAX, Int::MAX), Err(Reason::Arguments));
    }

    #[test]
    fn call_that_is_too_small_is_not_looked_at_more_closely() {
        let shape = Shape { m: 3, n: 4, k: 5 };
        let call = product(shape, [3, 4, 3], 0.0, 0x1000_0004);
        assert_eq!(call, refused(Reason::Small, shape));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The four operations, in column-major form, on memory that may be accessed.
#![forbid(unsafe_code)]

use std::fmt;

use crate::real::Real;
use crate::routine::Kind;
use crate::view::{Stored, StoredMut, View, ViewMut};

/// A call whose arguments are right.
#[derive(Debug)]
pub enum Call<'a, T> {
    /// `GEMM`.
    Gemm(Product<'a, T>),
    /// `SYRK`.
    Syrk(Syrk<'a, T>),
    /// `SYMM`.
    Symm(Symm<'a, T>),
    /// `TRSM`.
    Trsm(Trsm<'a, T>),
}

/// What a call does, and on how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The operation.
    pub kind: Kind,
    /// Rows of the destination.
    pub m: usize,
    /// Its columns.
    pub n: usize,
    /// Depth of a product; order of the square matrix of `SYMM` and `TRSM`.
    pub k: usize,
}

impl Size {
    /// Operations of the CPU.
    pub fn flops(&self) -> f64 {
        let volume = self.m as f64 * self.n as f64 * self.k as f64;
        match self.kind {
            Kind::Gemm | Kind::Symm => 2.0 * volume,
            // Of the destination, or of A, there is a half.
            Kind::Syrk | Kind::Trsm => volume,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}×{}×{}", self.m, self.n, self.k)
    }
}

impl<T: Real> Call<'_, T> {
    /// What it does, and on how much.
    pub fn size(&self) -> Size {
        let (kind, m, n, k) = match self {
            Call::Gemm(call) => (Kind::Gemm, call.c.rows(), call.c.cols(), call.depth()),
            Call::Syrk(call) => (Kind::Syrk, call.c.order(), call.c.order(), call.a.cols()),
            Call::Symm(call) => (Kind::Symm, call.c.rows(), call.c.cols(), call.a.order()),
            Call::Trsm(call) => (Kind::Trsm, call.b.rows(), call.b.cols(), call.a.order()),
        };
        Size { kind, m, n, k }
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
    /// The same side of the transposed product.
    pub fn flipped(self) -> Self {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// op(A): a matrix, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, T> {
    /// As it is stored.
    pub stored: View<'a, T>,
    /// Its transpose is meant.
    pub trans: bool,
}

impl<'a, T: Real> Operand<'a, T> {
    /// The matrix itself.
    pub fn plain(stored: View<'a, T>) -> Self {
        Self {
            stored,
            trans: false,
        }
    }

    /// Rows of op(A).
    pub fn rows(&self) -> usize {
        self.transposed().cols()
    }

    /// Columns of op(A).
    pub fn cols(&self) -> usize {
        if self.trans {
            self.stored.rows()
        } else {
            self.stored.cols()
        }
    }

    /// A part of op(A).
    pub fn block(&self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        let stored = if self.trans {
            self.stored.block(col, row, cols, rows)
        } else {
            self.stored.block(row, col, rows, cols)
        };
        Self {
            stored,
            trans: self.trans,
        }
    }

    /// The transpose of op(A).
    pub fn transposed(self) -> Self {
        Self {
            stored: self.stored,
            trans: !self.trans,
        }
    }
}

/// alpha·op(A)·op(B) + beta·C.
#[derive(Debug)]
pub struct Product<'a, T> {
    /// Factor of the product.
    pub alpha: T,
    /// First factor, m×k.
    pub a: Operand<'a, T>,
    /// Second factor, k×n.
    pub b: Operand<'a, T>,
    /// Factor of the old C.
    pub beta: T,
    /// Destination, m×n.
    pub c: ViewMut<'a, T>,
}

impl<T: Real> Product<'_, T> {
    /// Depth of the product.
    pub fn depth(&self) -> usize {
        self.a.cols()
    }

    /// The same for a shorter time.
    pub fn reborrow(&mut self) -> Product<'_, T> {
        Product {
            c: self.c.reborrow(),
            ..*self
        }
    }

    /// The product of the rows before `row`, and of the others.
    pub fn split_rows(self, row: usize) -> (Self, Self) {
        let (depth, others) = (self.depth(), self.c.rows() - row);
        let (upper, lower) = self.c.split_rows(row);
        let (first, second) = (
            self.a.block(0, 0, row, depth),
            self.a.block(row, 0, others, depth),
        );
        let part = |a, c| Product { a, c, ..self };
        (part(first, upper), part(second, lower))
    }

    /// The product of the columns before `col`, and of the others.
    pub fn split_cols(self, col: usize) -> (Self, Self) {
        let (depth, others) = (self.depth(), self.c.cols() - col);
        let (left, right) = self.c.split_cols(col);
        let (first, second) = (
            self.b.block(0, 0, depth, col),
            self.b.block(0, col, depth, others),
        );
        let part = |b, c| Product { b, c, ..self };
        (part(first, left), part(second, right))
    }

    /// Panics unless the matrices fit each other: who hands them on by address relies on it.
    pub fn assert_fits(&self) {
        let (m, n) = (self.c.rows(), self.c.cols());
        let inner = (self.depth(), self.b.rows());
        assert!(self.a.rows() == m && self.b.cols() == n && inner.0 == inner.1);
    }
}

/// alpha·op(A)·op(A)ᵀ + beta·C, of which one triangle is stored.
#[derive(Debug)]
pub struct Syrk<'a, T> {
    /// Factor of the product.
    pub alpha: T,
    /// op(A), n×k.
    pub a: Operand<'a, T>,
    /// Factor of the old C.
    pub beta: T,
    /// Destination, n×n.
    pub c: StoredMut<'a, T>,
}

impl<T: Real> Syrk<'_, T> {
    /// Panics unless the matrices fit each other: who hands them on by address relies on it.
    pub fn assert_fits(&self) {
        assert_eq!(self.a.rows(), self.c.order());
    }
}

/// alpha·A·B + beta·C, or alpha·B·A + beta·C, A symmetric.
#[derive(Debug)]
pub struct Symm<'a, T> {
    /// Where A stands.
    pub side: Side,
    /// Factor of the product.
    pub alpha: T,
    /// The symmetric matrix.
    pub a: Stored<'a, T>,
    /// The other one.
    pub b: View<'a, T>,
    /// Factor of the old C.
    pub beta: T,
    /// Destination, of the shape of B.
    pub c: ViewMut<'a, T>,
}

impl<T: Real> Symm<'_, T> {
    /// Panics unless the matrices fit each other: who hands them on by address relies on it.
    pub fn assert_fits(&self) {
        let (m, n) = (self.c.rows(), self.c.cols());
        assert_eq!((self.b.rows(), self.b.cols()), (m, n));
        assert_eq!(self.a.order(), order(self.side, (m, n)));
    }
}

/// A triangular system, op(A)·X = alpha·B or X·op(A) = alpha·B, with X in the place of B.
#[derive(Debug)]
pub struct Trsm<'a, T> {
    /// Where A stands.
    pub side: Side,
    /// A, as it is stored.
    pub a: Stored<'a, T>,
    /// Its transpose is meant.
    pub trans: bool,
    /// The diagonal of A is taken for ones.
    pub unit: bool,
    /// Factor of B.
    pub alpha: T,
    /// Right-hand sides, then the solution.
    pub b: ViewMut<'a, T>,
}

impl<T: Real> Trsm<'_, T> {
    /// The same for a shorter time.
    pub fn reborrow(&mut self) -> Trsm<'_, T> {
        Trsm {
            b: self.b.reborrow(),
            ..*self
        }
    }

    /// Panics unless the matrices fit each other: who hands them on by address relies on it.
    pub fn assert_fits(&self) {
        let shape = (self.b.rows(), self.b.cols());
        assert_eq!(self.a.order(), order(self.side, shape));
    }
}

/// The order of a square matrix on one side of an m×n one.
pub fn order<N>(side: Side, (m, n): (N, N)) -> N {
    match side {
        Side::Left => m,
        Side::Right => n,
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, AssertUnwindSafe};

    use super::*;
    use crate::view::Triangle;

    #[test]
    fn block_of_a_transpose_is_the_transposed_block() {
        let elements = [0.0; 9 * 7];
        let stored = View::of(&elements, (5, 7), 9);
        let operand = Operand::plain(stored).transposed();
        assert_eq!((operand.rows(), operand.cols()), (7, 5));
        let block = operand.block(6, 1, 1, 4);
        assert_eq!(block.stored.matrix(), stored.block(1, 6, 4, 1).matrix());
    }

    #[test]
    fn matrices_that_do_not_fit_are_refused() {
        let (elements, shape) = ([0.0; 12], (3, 4));
        let square = Stored::of(View::of(&elements, (3, 3), 3), Triangle::Lower);
        let other = Operand::plain(View::of(&elements, shape, 3));
        let fits = |side| {
            let mut c = [0.0; 12];
            let symm = Symm {
                side,
                alpha: 1.0,
                a: square,
                b: other.stored,
                beta: 0.0,
                c: ViewMut::of(&mut c, shape, 3),
            };
            catch_unwind(AssertUnwindSafe(|| symm.assert_fits())).is_ok()
        };
        assert!(fits(Side::Left) && !fits(Side::Right));
        let mut c = [0.0; 9];
        let mut product = Product {
            alpha: 1.0,
            a: other,
            b: other.transposed(),
            beta: 0.0,
            c: ViewMut::of(&mut c, (3, 3), 3),
        };
        product.assert_fits();
        product.a = other.transposed();
        assert!(catch_unwind(AssertUnwindSafe(|| product.assert_fits())).is_err());
    }
}

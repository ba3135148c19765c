// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Square matrices of which one triangle may be accessed: the other is the program's own.
// UNSAFETY: elements are accessed by address; the views' invariants say which.
#![expect(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::{View, ViewMut};
use crate::matrix::Matrix;
use crate::real::Real;

/// Which triangle of a square matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// The upper one.
    Upper,
    /// The lower one.
    Lower,
}

impl Triangle {
    /// The same triangle of the transpose.
    pub fn flipped(self) -> Self {
        match self {
            Triangle::Upper => Triangle::Lower,
            Triangle::Lower => Triangle::Upper,
        }
    }

    /// Rows of a column that lie in the triangle of a matrix of some order, the diagonal included.
    fn rows(self, col: usize, order: usize) -> Range<usize> {
        match self {
            Triangle::Lower => col..order,
            Triangle::Upper => 0..col + 1,
        }
    }

    /// Whether a block lies in the triangle.
    fn holds(self, row: usize, col: usize, rows: usize, cols: usize) -> bool {
        let inside = match self {
            Triangle::Lower => col + cols <= row + 1,
            Triangle::Upper => row + rows <= col + 1,
        };
        inside || rows == 0 || cols == 0
    }
}

/// A triangle of a square matrix that may be read.
///
/// # Invariants
///
/// The matrix is square. For `'a` the elements of the triangle may be read, and nobody writes to them.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a, T> {
    matrix: Matrix<T>,
    triangle: Triangle,
    memory: PhantomData<&'a T>,
}

/// A triangle of a square matrix that may be read and written.
///
/// # Invariants
///
/// The matrix is square. For `'a` the elements of the triangle may be read, once they were written, and
/// written, by this view alone.
#[derive(Debug)]
pub struct StoredMut<'a, T> {
    matrix: Matrix<T>,
    triangle: Triangle,
    memory: PhantomData<&'a mut T>,
}

impl<'a, T: Real> Stored<'a, T> {
    /// A view of a triangle.
    ///
    /// # Safety
    ///
    /// The matrix is square. For `'a` the elements of the triangle may be read, and nobody writes to them.
    pub unsafe fn new(matrix: Matrix<T>, triangle: Triangle) -> Self {
        // INVARIANT: As the caller promises.
        Self {
            matrix,
            triangle,
            memory: PhantomData,
        }
    }

    /// A triangle of a matrix.
    ///
    /// # Panics
    ///
    /// If that is not square.
    pub fn of(whole: View<'a, T>, triangle: Triangle) -> Self {
        assert_eq!(whole.rows(), whole.cols());
        // INVARIANT: All elements of the matrix may be read.
        Self {
            matrix: whole.matrix,
            triangle,
            memory: PhantomData,
        }
    }

    /// Where the square lies.
    pub fn matrix(&self) -> Matrix<T> {
        self.matrix
    }

    /// Which triangle.
    pub fn triangle(&self) -> Triangle {
        self.triangle
    }

    /// Rows and columns.
    pub fn order(&self) -> usize {
        self.matrix.rows
    }

    /// The triangle of a block on the diagonal.
    ///
    /// # Panics
    ///
    /// If that does not lie within.
    pub fn diagonal(&self, start: usize, width: usize) -> Self {
        // INVARIANT: Its triangle is a part of this one.
        Self {
            matrix: self.matrix.block(start, start, width, width),
            ..*self
        }
    }

    /// A block of the triangle.
    ///
    /// # Panics
    ///
    /// If that does not lie within.
    pub fn block(&self, row: usize, col: usize, rows: usize, cols: usize) -> View<'a, T> {
        assert!(self.triangle.holds(row, col, rows, cols));
        // INVARIANT: All its elements are the triangle's.
        View {
            matrix: self.matrix.block(row, col, rows, cols),
            memory: PhantomData,
        }
    }

    /// Makes the symmetric matrix of it.
    ///
    /// # Panics
    ///
    /// If `whole` has another shape.
    pub fn unfold(&self, whole: &mut ViewMut<'_, T>) {
        let (to, order) = (&whole.matrix, self.order());
        assert_eq!((to.rows, to.cols), (order, order));
        for col in 0..order {
            for row in self.triangle.rows(col, order) {
                // SAFETY: An element of the triangle, and two of the whole, which has the same shape; by the
                // invariants they may be read and written.
                unsafe {
                    let value = self.matrix.element(row, col).read();
                    to.element(row, col).write(value);
                    to.element(col, row).write(value);
                }
            }
        }
    }
}

impl<'a, T: Real> StoredMut<'a, T> {
    /// A view of a triangle.
    ///
    /// # Safety
    ///
    /// The matrix is square. For `'a` the elements of the triangle may be written, and read afterwards, and
    /// nobody else accesses them.
    pub unsafe fn new(matrix: Matrix<T>, triangle: Triangle) -> Self {
        // INVARIANT: As the caller promises.
        Self {
            matrix,
            triangle,
            memory: PhantomData,
        }
    }

    /// A triangle of a matrix.
    ///
    /// # Panics
    ///
    /// If that is not square.
    pub fn of(whole: ViewMut<'a, T>, triangle: Triangle) -> Self {
        assert_eq!(whole.rows(), whole.cols());
        // INVARIANT: All elements of the matrix are this view's, which ends here.
        Self {
            matrix: whole.matrix,
            triangle,
            memory: PhantomData,
        }
    }

    /// Where the square lies.
    pub fn matrix(&self) -> Matrix<T> {
        self.matrix
    }

    /// Which triangle.
    pub fn triangle(&self) -> Triangle {
        self.triangle
    }

    /// Rows and columns.
    pub fn order(&self) -> usize {
        self.matrix.rows
    }

    /// The columns from `start` on: what of them is beside the diagonal block, and that block's triangle.
    ///
    /// # Panics
    ///
    /// If they do not lie within.
    pub fn strip(&mut self, start: usize, width: usize) -> (ViewMut<'_, T>, StoredMut<'_, T>) {
        let end = start + width;
        let (row, rows) = match self.triangle {
            Triangle::Lower => (end, self.order() - end),
            Triangle::Upper => (0, start),
        };
        // INVARIANT: Both lie in the triangle, whose view is borrowed, and have no row in common.
        let beside = ViewMut {
            matrix: self.matrix.block(row, start, rows, width),
            memory: PhantomData,
        };
        let diagonal = StoredMut {
            matrix: self.matrix.block(start, start, width, width),
            triangle: self.triangle,
            memory: PhantomData,
        };
        (beside, diagonal)
    }

    /// C = beta·C + P in the triangle; C is not read if beta is 0.
    ///
    /// # Panics
    ///
    /// If P has another shape.
    pub fn add(&mut self, beta: T, product: View<'_, T>) {
        let (to, from, order) = (&self.matrix, &product.matrix, self.order());
        assert_eq!((from.rows, from.cols), (order, order));
        for col in 0..order {
            for row in self.triangle.rows(col, order) {
                let element = to.element(row, col);
                // SAFETY: An element of the triangle, and one of the product, which has the same shape; by
                // the invariants they may be written and read.
                unsafe {
                    let value = from.element(row, col).read();
                    element.write(if beta == T::ZERO {
                        value
                    } else {
                        value + beta * element.read()
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each element of a column-major 3×3 matrix was changed.
    fn changed(elements: &[f64]) -> Vec<usize> {
        (0..elements.len())
            .filter(|&index| elements[index] != 0.0)
            .collect()
    }

    #[test]
    fn strip_of_a_triangle_has_its_elements_and_no_others() {
        for (triangle, expected) in [(Triangle::Lower, [4, 5]), (Triangle::Upper, [3, 4])] {
            let mut elements = vec![0.0; 9];
            let whole = ViewMut::of(&mut elements, (3, 3), 3);
            let mut stored = StoredMut::of(whole, triangle);
            let (mut beside, mut diagonal) = stored.strip(1, 1);
            assert_eq!((beside.rows(), beside.cols(), diagonal.order()), (1, 1, 1));
            beside.fill(|_, _| 1.0);
            diagonal.add(0.0, View::of(&[2.0], (1, 1), 1));
            assert_eq!(changed(&elements), expected);
        }
    }

    #[test]
    fn sum_changes_the_triangle_alone_and_reads_old_elements_only_if_they_count() {
        let product = [1.0; 4];
        for (beta, expected) in [(0.0, 1.0), (2.0, 7.0)] {
            let mut elements = [3.0, 3.0, f64::NAN, 3.0];
            if beta == 0.0 {
                elements = [f64::NAN; 4];
            }
            let mut stored = StoredMut::of(ViewMut::of(&mut elements, (2, 2), 2), Triangle::Lower);
            stored.add(beta, View::of(&product, (2, 2), 2));
            assert_eq!([elements[0], elements[1], elements[3]], [expected; 3]);
            assert!(elements[2].is_nan());
        }
    }

    #[test]
    fn triangle_is_unfolded_to_a_symmetric_matrix() {
        let stored = [1.0, 2.0, f64::NAN, 3.0];
        let mut whole = [0.0; 4];
        let view = Stored::of(View::of(&stored, (2, 2), 2), Triangle::Lower);
        view.unfold(&mut ViewMut::of(&mut whole, (2, 2), 2));
        assert_eq!(whole, [1.0, 2.0, 2.0, 3.0]);
    }

    #[test]
    fn block_of_a_triangle_must_lie_in_it() {
        let elements = [0.0; 16];
        let lower = Stored::of(View::of(&elements, (4, 4), 4), Triangle::Lower);
        // The corner of the largest block touches the diagonal.
        assert_eq!(lower.block(1, 0, 3, 2).rows(), 3);
        assert!(std::panic::catch_unwind(|| lower.block(1, 0, 3, 3)).is_err());
        let upper = Stored::of(View::of(&elements, (4, 4), 4), Triangle::Upper);
        assert_eq!(upper.block(0, 1, 2, 3).cols(), 3);
        assert!(std::panic::catch_unwind(|| upper.block(0, 1, 3, 3)).is_err());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Matrices whose memory may be accessed, for as long as it may.
//!
//! A view is made of a raw matrix in one place for each kind of memory: the program's at the boundary, the
//! library's own in `scratch`. From there on all is safe: a part of a view lies within it, and of two parts
//! that may be written none has an element of the other.
//!
//! Elements are read and written one by one and never become Rust references: the program's memory need
//! not have been written yet, and the device changes it behind the compiler's back.
// UNSAFETY: elements are accessed by address; the views' invariants say which.
#![expect(unsafe_code)]

mod triangle;

use std::marker::PhantomData;

pub use triangle::{Stored, StoredMut, Triangle};

use crate::matrix::Matrix;
use crate::real::Real;

/// A matrix that may be read.
///
/// # Invariants
///
/// Columns have no element in common. For `'a` all elements may be read, and nobody writes to them.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    matrix: Matrix<T>,
    memory: PhantomData<&'a T>,
}

/// A matrix that may be read and written.
///
/// # Invariants
///
/// Columns have no element in common. For `'a` all elements may be read, once they were written, and written,
/// by this view alone.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    matrix: Matrix<T>,
    memory: PhantomData<&'a mut T>,
}

impl<'a, T: Real> View<'a, T> {
    /// A view of a matrix.
    ///
    /// # Safety
    ///
    /// Columns have no element in common. For `'a` its elements may be read, and nobody writes to them.
    pub unsafe fn new(matrix: Matrix<T>) -> Self {
        // INVARIANT: As the caller promises.
        Self {
            matrix,
            memory: PhantomData,
        }
    }

    /// A matrix in a slice, columns `ld` elements apart.
    ///
    /// # Panics
    ///
    /// If the slice is shorter.
    #[cfg(test)]
    pub fn of(elements: &'a [T], (rows, cols): (usize, usize), ld: usize) -> Self {
        assert!(rows <= ld && ld * cols <= elements.len());
        // INVARIANT: All elements lie in the slice, which is borrowed for `'a`.
        Self {
            matrix: Matrix {
                at: elements.as_ptr().cast_mut(),
                rows,
                cols,
                ld,
            },
            memory: PhantomData,
        }
    }

    /// Where it lies.
    pub fn matrix(&self) -> Matrix<T> {
        self.matrix
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.matrix.cols
    }

    /// A part of it.
    ///
    /// # Panics
    ///
    /// If that does not lie within.
    pub fn block(&self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        // INVARIANT: A block has no elements but the matrix's.
        Self {
            matrix: self.matrix.block(row, col, rows, cols),
            memory: PhantomData,
        }
    }
}

impl<'a, T: Real> ViewMut<'a, T> {
    /// A view of a matrix.
    ///
    /// # Safety
    ///
    /// Columns have no element in common. For `'a` its elements may be written, and read afterwards, and
    /// nobody else accesses them.
    pub unsafe fn new(matrix: Matrix<T>) -> Self {
        // INVARIANT: As the caller promises.
        Self {
            matrix,
            memory: PhantomData,
        }
    }

    /// A matrix in a slice, columns `ld` elements apart.
    ///
    /// # Panics
    ///
    /// If the slice is shorter.
    #[cfg(test)]
    pub fn of(elements: &'a mut [T], (rows, cols): (usize, usize), ld: usize) -> Self {
        assert!(rows <= ld && ld * cols <= elements.len());
        // INVARIANT: All elements lie in the slice, which is borrowed for `'a`.
        Self {
            matrix: Matrix {
                at: elements.as_mut_ptr(),
                rows,
                cols,
                ld,
            },
            memory: PhantomData,
        }
    }

    /// Where it lies.
    pub fn matrix(&self) -> Matrix<T> {
        self.matrix
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.matrix.cols
    }

    /// The same matrix, to be read only meanwhile.
    pub fn as_view(&self) -> View<'_, T> {
        // INVARIANT: This view is borrowed, so that it does not write.
        View {
            matrix: self.matrix,
            memory: PhantomData,
        }
    }

    /// The same matrix for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        // INVARIANT: This view is borrowed, so that only the new one accesses the elements.
        ViewMut {
            matrix: self.matrix,
            memory: PhantomData,
        }
    }

    /// A part of it.
    ///
    /// # Panics
    ///
    /// If that does not lie within.
    pub fn block(self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        // INVARIANT: A block has no elements but the matrix's, whose view ends here.
        Self {
            matrix: self.matrix.block(row, col, rows, cols),
            memory: PhantomData,
        }
    }

    /// The rows before `row`, and the others.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn split_rows(self, row: usize) -> (Self, Self) {
        let (rows, cols) = (self.rows(), self.cols());
        self.split((row, cols), (row, 0), (rows.saturating_sub(row), cols))
    }

    /// The columns before `col`, and the others.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn split_cols(self, col: usize) -> (Self, Self) {
        let (rows, cols) = (self.rows(), self.cols());
        self.split((rows, col), (0, col), (rows, cols.saturating_sub(col)))
    }

    /// The upper left part, and one that begins where that ends, below or beside it.
    fn split(
        self,
        first: (usize, usize),
        at: (usize, usize),
        second: (usize, usize),
    ) -> (Self, Self) {
        let part = |at: (usize, usize), shape: (usize, usize)| Self {
            matrix: self.matrix.block(at.0, at.1, shape.0, shape.1),
            memory: PhantomData,
        };
        // INVARIANT: Both are blocks of the matrix, whose view ends here. They have either no row or no
        // column in common, and so no element.
        (part((0, 0), first), part(at, second))
    }

    /// Copies a matrix of the same shape into it, by the CPU.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn copy_from(&mut self, from: View<'_, T>) {
        let (to, from) = (&self.matrix, &from.matrix);
        assert_eq!((to.rows, to.cols), (from.rows, from.cols));
        for col in 0..to.cols {
            // SAFETY: A column of each, of the same length; by the invariants one may be read and the other
            // written, so that they have no element in common.
            unsafe {
                std::ptr::copy_nonoverlapping(from.element(0, col), to.element(0, col), to.rows);
            }
        }
    }

    /// Writes every element, from its row and column.
    pub fn fill(&mut self, value: impl Fn(usize, usize) -> T) {
        let matrix = &self.matrix;
        for col in 0..matrix.cols {
            for row in 0..matrix.rows {
                // SAFETY: An element of the matrix, which by the invariant may be written.
                unsafe { matrix.element(row, col).write(value(row, col)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_have_all_elements_and_none_in_common() {
        let mut elements = vec![0.0; 5 * 4];
        let whole = ViewMut::of(&mut elements, (3, 4), 5);
        let (upper, lower) = whole.split_rows(2);
        let (mut left, mut right) = upper.split_cols(1);
        let mut lower = lower;
        left.fill(|_, _| 1.0);
        right.fill(|_, _| 2.0);
        lower.fill(|_, _| 3.0);
        let column = |upper| [upper, upper, 3.0, 0.0, 0.0];
        let expected = [column(1.0), column(2.0), column(2.0), column(2.0)];
        assert_eq!(elements, expected.concat());
    }

    #[test]
    fn part_that_is_not_within_is_refused() {
        let elements = [0.0; 12];
        let view = View::of(&elements, (3, 4), 3);
        assert_eq!(
            view.block(1, 2, 2, 2).matrix().at,
            view.matrix().element(1, 2)
        );
        for (row, col, rows, cols) in [(1, 2, 3, 2), (1, 2, 2, 3), (usize::MAX, 0, 1, 1)] {
            let block = std::panic::catch_unwind(|| view.block(row, col, rows, cols));
            assert!(block.is_err(), "{row} {col} {rows} {cols}");
        }
        let split = || ViewMut::of(&mut [0.0; 4], (2, 2), 2).split_rows(3).0.rows();
        assert!(std::panic::catch_unwind(split).is_err());
    }

    #[test]
    fn copy_goes_column_by_column() {
        let from = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let mut to = [0.0; 8];
        ViewMut::of(&mut to, (2, 2), 4).copy_from(View::of(&from, (2, 2), 3));
        assert_eq!(to, [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0]);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Column-major matrices in the program's memory, by address and shape.
#![forbid(unsafe_code)]

use coax::abi::wire::PAGE_SIZE;
use coax::PageRange;

/// Memory around a page that moves with it, to the device and back: the driver's 64 KiB.
const AROUND_BYTES: u64 = 64 << 10;

/// A matrix as it is stored. It names memory and does not access it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix<T> {
    /// First element.
    pub at: *mut T,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from column to column.
    pub ld: usize,
}

impl<T> Matrix<T> {
    /// Address of an element, which need not exist.
    pub fn element(&self, row: usize, col: usize) -> *mut T {
        self.at
            .wrapping_add(row.wrapping_add(col.wrapping_mul(self.ld)))
    }

    /// A part of the matrix.
    ///
    /// # Panics
    ///
    /// If that does not lie within.
    pub fn block(&self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        let within = |start: usize, count: usize, all: usize| {
            start.checked_add(count).is_some_and(|end| end <= all)
        };
        assert!(within(row, rows, self.rows) && within(col, cols, self.cols));
        Self {
            at: self.element(row, col),
            rows,
            cols,
            ld: self.ld,
        }
    }

    /// Address of the first element, for the device.
    pub fn address(&self) -> u64 {
        self.at.expose_provenance() as u64
    }

    /// Bytes of the elements, without what lies between columns.
    pub fn bytes(&self) -> u64 {
        (self.rows * self.cols * size_of::<T>()) as u64
    }

    /// Bytes of a column.
    pub fn column_bytes(&self) -> u64 {
        (self.rows * size_of::<T>()) as u64
    }

    /// Bytes from column to column.
    pub fn stride(&self) -> u64 {
        (self.ld * size_of::<T>()) as u64
    }

    /// Bytes from the first to behind the last element, unless that wraps around.
    fn extent(&self) -> Option<u64> {
        match self.cols.checked_sub(1) {
            Some(steps) if self.rows > 0 => {
                // Sizes of 64 bits need not be of anything that there is.
                let elements = self.ld.checked_mul(steps)?.checked_add(self.rows)?;
                Some(elements.checked_mul(size_of::<T>())? as u64)
            }
            _ => Some(0),
        }
    }

    /// Whether each column moves by itself.
    pub fn is_spread(&self) -> bool {
        self.cols > 1 && self.stride() > AROUND_BYTES
    }

    /// The whole range that the matrix lies in, if its columns are near each other.
    pub fn range(&self) -> Option<PageRange> {
        let extent = self.extent().filter(|&extent| extent > 0)?;
        (!self.is_spread()).then(|| PageRange::covering(self.address(), extent))
    }

    /// Pages that move with the matrix, those between its columns included.
    pub fn pages(&self) -> f64 {
        let pages = |bytes: u64| bytes.div_ceil(PAGE_SIZE) as f64;
        if self.is_spread() {
            return self.cols as f64 * (pages(self.column_bytes()) + pages(AROUND_BYTES));
        }
        pages(self.extent().unwrap_or(u64::MAX))
    }

    /// Whether elements are where the machine and the device can have them: aligned, and below the
    /// end of the address space.
    pub fn is_sound(&self) -> bool {
        let end = self
            .extent()
            .and_then(|extent| self.address().checked_add(extent));
        self.at.is_aligned() && end.is_some()
    }

    /// Whether the matrices have an element in common. Blocks of one larger matrix, which lie between
    /// each other, do not; of other matrices that lie between each other it is taken for granted.
    ///
    /// Both must be sound.
    pub fn overlaps(&self, other: &Self) -> bool {
        let extents = (self.extent().unwrap_or(0), other.extent().unwrap_or(0));
        if extents.0 == 0 || extents.1 == 0 {
            return false;
        }
        let (low, high) = if self.address() <= other.address() {
            ((self, extents.0), other)
        } else {
            ((other, extents.1), self)
        };
        let distance = high.address() - low.0.address();
        if distance >= low.1 {
            return false;
        }
        if self.ld != other.ld {
            return true;
        }
        // Where the columns of `high` begin in the columns of `low`, and whether they reach the next.
        let stride = low.0.stride();
        let (column, row) = (distance / stride, distance % stride);
        let last = low.0.cols as u64 - 1;
        row < low.0.column_bytes() || (column < last && row + high.column_bytes() > stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(address: usize, rows: usize, cols: usize, ld: usize) -> Matrix<f64> {
        Matrix {
            at: std::ptr::without_provenance_mut(address),
            rows,
            cols,
            ld,
        }
    }

    #[test]
    fn blocks_of_one_matrix_overlap_only_if_they_share_elements() {
        let whole = matrix(0x1000, 10, 10, 10);
        let upper_left = whole.block(0, 0, 4, 4);
        assert!(!upper_left.overlaps(&whole.block(4, 0, 6, 4)));
        assert!(!upper_left.overlaps(&whole.block(0, 4, 4, 6)));
        assert!(!whole.block(4, 4, 6, 6).overlaps(&whole.block(4, 0, 6, 4)));
        assert!(!whole.block(4, 4, 6, 6).overlaps(&whole.block(0, 4, 4, 6)));
        assert!(upper_left.overlaps(&whole.block(3, 3, 2, 2)));
        assert!(whole.block(3, 3, 2, 2).overlaps(&upper_left));
        assert!(upper_left.overlaps(&upper_left));
    }

    #[test]
    fn column_that_reaches_into_the_next_overlaps_it() {
        // The second begins behind the first in its column and reaches into the next one's.
        let first = matrix(0x1000, 4, 3, 10);
        let second = matrix(0x1000 + 5 * 8, 6, 2, 10);
        assert!(first.overlaps(&second));
        assert!(!first.overlaps(&matrix(0x1000 + 5 * 8, 5, 2, 10)));
    }

    #[test]
    fn matrices_of_no_elements_overlap_nothing() {
        let whole = matrix(0x1000, 10, 10, 10);
        assert!(!whole.overlaps(&matrix(0x1010, 0, 5, 10)));
        assert!(!whole.overlaps(&matrix(0x1010, 5, 0, 10)));
    }

    #[test]
    fn pages_between_columns_move_with_them_where_columns_are_near() {
        assert_eq!(matrix(0x1000, 512, 8, 512).pages(), 8.0);
        // Columns of a page every other page.
        assert_eq!(matrix(0x1000, 512, 8, 1024).pages(), 15.0);
        assert!(matrix(0x1000, 512, 8, 1024).range().is_some());
        // Columns of a page, each with what is around it.
        assert_eq!(matrix(0x1000, 512, 8, 1 << 20).pages(), 8.0 * 17.0);
        assert!(matrix(0x1000, 512, 8, 1 << 20).range().is_none());
        assert!(matrix(0x1000, 0, 8, 1).range().is_none());
    }

    #[test]
    fn misaligned_and_endless_matrices_are_not_sound() {
        assert!(matrix(0x1000, 10, 10, 10).is_sound());
        assert!(!matrix(0x1004, 10, 10, 10).is_sound());
        assert!(!matrix(0x1000, 1, 1 << 31, 1 << 31).is_sound());
        assert!(!matrix(0x1000, 1, 3, 1 << 63).is_sound());
        assert!(!matrix(0x1000, 1 << 61, 1, 1 << 61).is_sound());
    }
}

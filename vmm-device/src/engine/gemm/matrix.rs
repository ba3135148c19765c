// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Column-major matrices in a context's memory, and transfers of blocks of them.
#![forbid(unsafe_code)]

use coax_abi::wire::PAGE_SIZE;
use zerocopy::IntoBytes;

use super::kernel::Element;
use crate::access::Access;
use crate::engine::memory::{DmaMemory, Stop};
use crate::engine::{stopped, Step, STEP_BYTES};

/// A matrix as it is stored.
///
/// # Invariants
///
/// The last byte of the last element has an address: no address inside wraps around.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    va: u64,
    rows: u64,
    cols: u64,
    /// Bytes of an element.
    element: u64,
    /// Bytes from column to column.
    stride: u64,
    /// Bytes from the first to behind the last element.
    extent: u64,
}

/// Part of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub row: u64,
    pub rows: u64,
    pub col: u64,
    pub cols: u64,
}

impl Matrix {
    /// A matrix, unless the leading dimension is too small or addresses wrap around.
    pub fn new(va: u64, rows: u64, cols: u64, ld: u64, element: u64) -> Option<Self> {
        if ld < rows.max(1) {
            return None;
        }
        let stride = ld.checked_mul(element)?;
        let column = rows.checked_mul(element)?;
        let extent = match cols.checked_sub(1) {
            Some(steps) if rows > 0 => stride.checked_mul(steps)?.checked_add(column)?,
            _ => 0,
        };
        va.checked_add(extent)?;
        // INVARIANT: `va + extent` is an address, and no element lies behind it.
        Some(Self {
            va,
            rows,
            cols,
            element,
            stride,
            extent,
        })
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn cols(&self) -> u64 {
        self.cols
    }

    /// Whether the matrices have a byte in common. Blocks of one larger matrix, which lie
    /// between each other, do not; for other matrices that lie between each other the answer
    /// errs on the side of overlap.
    pub fn overlaps(&self, other: &Self) -> bool {
        let apart = self.va + self.extent <= other.va || other.va + other.extent <= self.va;
        if apart || self.extent == 0 || other.extent == 0 {
            return false;
        }
        if self.stride != other.stride {
            return true;
        }
        let (low, high) = if self.va <= other.va {
            (self, other)
        } else {
            (other, self)
        };
        // Column `n` of `high` begins `offset` behind the beginning of column `n + skip` of
        // `low`; it may reach into that one or into the one after it.
        let distance = high.va - low.va;
        let (skip, offset) = (distance / low.stride, distance % low.stride);
        let into_same = skip < low.cols && offset < low.rows * low.element;
        let reach = offset + high.rows * high.element;
        let into_next = skip + 1 < low.cols && reach > low.stride;
        into_same || into_next
    }

    /// Step for a failed access in a column. If no page lies between two columns all of the matrix
    /// is needed in any case; else the rest of the column, and the next ones are likely to be near.
    fn stopped(&self, stop: Stop, rest_of_column: u64, access: Access) -> Step {
        let gaps = self.stride - self.rows * self.element >= PAGE_SIZE;
        let certain = match stop {
            Stop::Miss(va) if !gaps => self.va + self.extent - va,
            _ => rest_of_column,
        };
        stopped(stop, certain, access, gaps)
    }

    /// Address of byte `done` of a block whose columns are put one behind the other, and the
    /// bytes from there to the next gap.
    fn place(&self, block: &Block, done: u64) -> (u64, u64) {
        let column_bytes = block.rows * self.element;
        if column_bytes == self.stride {
            // Whole columns without gaps, as a row of single elements is.
            let va = self.va + block.col * self.stride + done;
            return (va, block.cols * self.stride - done);
        }
        let (col, offset) = (done / column_bytes, done % column_bytes);
        let va = self.va + (block.col + col) * self.stride + block.row * self.element + offset;
        (va, column_bytes - offset)
    }

    fn bytes(&self, block: &Block) -> usize {
        (block.rows * block.cols * self.element) as usize
    }
}

/// Reads a block into `buffer`, from byte `done` of it on; true once all is there.
pub fn transfer_in<'m, T: Element>(
    memory: &mut impl DmaMemory<'m>,
    matrix: &Matrix,
    block: &Block,
    buffer: &mut [T],
    done: &mut usize,
    budget: &mut u64,
) -> Result<bool, Step> {
    let bytes = &mut buffer.as_mut_bytes()[..matrix.bytes(block)];
    while *done < bytes.len() {
        if *budget == 0 {
            return Ok(false);
        }
        let (va, rest) = matrix.place(block, *done as u64);
        let piece = memory
            .piece(va, rest.min(*budget), Access::READ)
            .map_err(|stop| matrix.stopped(stop, rest, Access::READ))?;
        let n = piece.copy_to(&mut bytes[*done..]);
        *done += n;
        *budget -= n as u64;
        // A transfer without a budget starts anew when it is interrupted.
        if *budget <= STEP_BYTES && memory.interrupted() {
            *budget = 0;
        }
    }
    Ok(true)
}

/// Writes `buffer` to a block, from byte `done` of it on; true once all is there.
pub fn transfer_out<'m, T: Element>(
    memory: &mut impl DmaMemory<'m>,
    matrix: &Matrix,
    block: &Block,
    buffer: &[T],
    done: &mut usize,
    budget: &mut u64,
) -> Result<bool, Step> {
    let bytes = &buffer.as_bytes()[..matrix.bytes(block)];
    while *done < bytes.len() {
        if *budget == 0 {
            return Ok(false);
        }
        let (va, rest) = matrix.place(block, *done as u64);
        let piece = memory
            .piece(va, rest.min(*budget), Access::WRITE)
            .map_err(|stop| matrix.stopped(stop, rest, Access::WRITE))?;
        piece.copy_from(&bytes[*done..]);
        *done += piece.len();
        *budget -= piece.len() as u64;
        if memory.interrupted() {
            *budget = 0;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(va: u64, rows: u64, cols: u64, ld: u64) -> Matrix {
        match Matrix::new(va, rows, cols, ld, 8) {
            Some(matrix) => matrix,
            None => panic!("{rows}×{cols} with leading dimension {ld} at {va:#x}"),
        }
    }

    #[test]
    fn leading_dimension_must_hold_a_column_and_be_at_least_one() {
        assert!(Matrix::new(0, 5, 5, 4, 8).is_none());
        assert!(Matrix::new(0, 0, 5, 0, 8).is_none());
        assert!(Matrix::new(0, 0, 5, 1, 8).is_some());
    }

    #[test]
    fn extents_that_wrap_are_refused() {
        assert!(Matrix::new(0, u64::MAX, 1, u64::MAX, 8).is_none());
        assert!(Matrix::new(0, 1, u64::MAX, 1 << 32, 4).is_none());
        assert!(Matrix::new(u64::MAX - 6, 1, 1, 1, 8).is_none());
        assert!(Matrix::new(u64::MAX - 8, 1, 1, 1, 8).is_some());
    }

    #[test]
    fn blocks_of_one_matrix_overlap_only_if_they_share_elements() {
        // Blocks of a matrix of 10 rows: the two upper left 4×4 of different corners.
        let at = |row: u64, col: u64, rows, cols| matrix((col * 10 + row) * 8, rows, cols, 10);
        let left = at(0, 0, 4, 4);
        assert!(!left.overlaps(&at(4, 0, 6, 4)));
        assert!(!left.overlaps(&at(4, 2, 4, 4)));
        assert!(!at(4, 2, 4, 4).overlaps(&left));
        assert!(!left.overlaps(&at(0, 4, 4, 4)));
        assert!(left.overlaps(&at(3, 3, 4, 4)));
        assert!(at(3, 3, 4, 4).overlaps(&left));
        assert!(left.overlaps(&left));
        // Columns that run over the end of the other's columns into the next ones.
        assert!(at(8, 0, 6, 2).overlaps(&at(0, 0, 2, 3)));
    }

    #[test]
    fn columns_without_gaps_are_one_piece() {
        let whole = |rows| Block {
            row: 0,
            rows,
            col: 2,
            cols: 3,
        };
        assert_eq!(
            matrix(0x1000, 4, 8, 4).place(&whole(4), 40),
            (0x1000 + 64 + 40, 56)
        );
        assert_eq!(
            matrix(0x1000, 1, 8, 1).place(&whole(1), 8),
            (0x1000 + 24, 16)
        );
        assert_eq!(
            matrix(0x1000, 4, 8, 5).place(&whole(4), 40),
            (0x1000 + 120 + 8, 24)
        );
        assert_eq!(
            matrix(0x1000, 4, 8, 4).place(&whole(2), 24),
            (0x1000 + 96 + 8, 8)
        );
    }

    #[test]
    fn empty_matrices_overlap_nothing() {
        let some = matrix(0, 4, 4, 4);
        assert!(!some.overlaps(&matrix(8, 0, 4, 4)));
        assert!(!matrix(8, 4, 0, 4).overlaps(&some));
    }
}

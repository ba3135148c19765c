// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shape of a matrix product and the check that slices hold it.
#![forbid(unsafe_code)]

use coax_abi::wire;

use crate::command::Command;
use crate::error::Error;

/// C = alpha·op(A)·op(B) + beta·C by the BLAS contract, op(A) being m×k and op(B) k×n.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm<T> {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Columns of op(A) and rows of op(B).
    pub k: usize,
    /// Factor of the product.
    pub alpha: T,
    /// Factor of the old C.
    pub beta: T,
    /// Leading dimensions of A, B and C, in elements.
    pub leading: [usize; 3],
    /// op(A) = Aᵀ.
    pub trans_a: bool,
    /// op(B) = Bᵀ.
    pub trans_b: bool,
    /// Matrices are stored row by row, not column by column.
    pub row_major: bool,
}

impl<T: From<f32>> Gemm<T> {
    /// C = A·B of dense row-major matrices.
    pub fn product(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            alpha: T::from(1.0),
            beta: T::from(0.0),
            leading: [k, n, n],
            trans_a: false,
            trans_b: false,
            row_major: true,
        }
    }
}

impl<T> Gemm<T> {
    /// Refuses slices that are shorter than the matrices in them.
    pub(crate) fn check(&self, lengths: [usize; 3]) -> Result<(), Error> {
        let shapes = [
            if self.trans_a {
                (self.k, self.m)
            } else {
                (self.m, self.k)
            },
            if self.trans_b {
                (self.n, self.k)
            } else {
                (self.k, self.n)
            },
            (self.m, self.n),
        ];
        for (((rows, columns), leading), length) in
            shapes.into_iter().zip(self.leading).zip(lengths)
        {
            let (line, lines) = if self.row_major {
                (columns, rows)
            } else {
                (rows, columns)
            };
            if leading < line.max(1) {
                return Err(Error::Argument(
                    "a leading dimension is smaller than its matrix",
                ));
            }
            if line == 0 || lines == 0 {
                continue;
            }
            let needed = leading
                .checked_mul(lines - 1)
                .and_then(|all| all.checked_add(line));
            if needed.is_none_or(|needed| needed > length) {
                return Err(Error::Argument("a slice is shorter than its matrix"));
            }
        }
        Ok(())
    }

    /// The command for matrices at the given addresses, with the factors' bit patterns.
    pub(crate) fn command(
        &self,
        opcode: u32,
        [a, b, c]: [u64; 3],
        alpha: u64,
        beta: u64,
    ) -> Command {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let [lda, ldb, ldc] = self.leading.map(|leading| leading as u64);
        let flags = flag(self.trans_a, wire::GEMM_TRANS_A)
            | flag(self.trans_b, wire::GEMM_TRANS_B)
            | flag(self.row_major, wire::GEMM_ROW_MAJOR);
        let [m, n, k] = [self.m, self.n, self.k].map(|size| size as u64);
        Command::new(
            opcode,
            &[m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, flags],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_slices_of_dense_matrices_pass() {
        let gemm = Gemm::<f64>::product(3, 4, 5);
        assert!(gemm.check([15, 20, 12]).is_ok());
        assert!(gemm.check([14, 20, 12]).is_err());
        assert!(gemm.check([15, 19, 12]).is_err());
        assert!(gemm.check([15, 20, 11]).is_err());
    }

    #[test]
    fn last_line_need_not_be_padded() {
        // 3×4 inside lines of 10: two whole lines and the four elements of the third.
        let gemm = Gemm {
            leading: [10, 10, 10],
            ..Gemm::<f32>::product(3, 4, 4)
        };
        assert!(gemm.check([24, 34, 24]).is_ok());
        assert!(gemm.check([23, 34, 24]).is_err());
    }

    #[test]
    fn transposed_column_major_shapes_are_the_stored_ones() {
        let gemm = Gemm {
            leading: [5, 4, 3],
            trans_a: true,
            trans_b: true,
            row_major: false,
            ..Gemm::<f64>::product(3, 4, 5)
        };
        assert!(gemm.check([15, 20, 12]).is_ok());
        let short = Gemm {
            leading: [4, 4, 3],
            ..gemm
        };
        assert!(short.check([15, 20, 12]).is_err());
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let gemm = Gemm {
            leading: [usize::MAX; 3],
            ..Gemm::<f64>::product(3, 4, 5)
        };
        assert!(gemm.check([usize::MAX; 3]).is_err());
    }

    #[test]
    fn arguments_are_in_the_order_of_the_contract() {
        let gemm = Gemm {
            trans_b: true,
            leading: [7, 8, 9],
            ..Gemm::<f64>::product(1, 2, 3)
        };
        let command = gemm.command(wire::OP_DGEMM, [10, 20, 30], 40, 50);
        let flags = wire::GEMM_TRANS_B | wire::GEMM_ROW_MAJOR;
        assert_eq!(command.args, [1, 2, 3, 10, 7, 20, 8, 30, 9, 40, 50, flags]);
    }
}

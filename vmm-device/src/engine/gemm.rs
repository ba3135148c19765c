// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! General matrix multiplication, C = α·op(A)·op(B) + β·C, with the contract of the BLAS.
//!
//! The product is made tile by tile. For one tile of C the matching tiles of A and B are
//! gathered into local buffers and multiplied there, all along k; then the columns of the C
//! tile are read, combined and written, each once. A column that was combined is kept until
//! it is written, so a miss in between does not apply β twice. A and B are not read if α or k
//! is 0, C is not read if β is 0.
//!
//! Buffers: a few operations at a time get large tiles, which reach the speed of the
//! arithmetic; the others go on with small ones instead of waiting, for the memory of one
//! program may take for ever to come and others must not wait for it.

mod kernel;
mod matrix;
mod tiles;

use coax_abi::wire::{
    GEMM_ROW_MAJOR, GEMM_TRANS_A, GEMM_TRANS_B, RESULT_BYTES, STATUS_BAD_ARGUMENT, STATUS_OK,
};

use super::memory::DmaMemory;
use super::{Progress, Step, STEP_BYTES};
use kernel::Tile;
pub use kernel::{multiply, Element};
use matrix::{transfer_in, transfer_out, Block, Matrix};
pub use tiles::TilePool;
use tiles::{balanced, Permit, TileSize, LARGE, SMALL};

/// Arguments as the wire has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmArgs {
    /// Rows of op(A) and C.
    pub m: u64,
    /// Columns of op(B) and C.
    pub n: u64,
    /// Columns of op(A), rows of op(B).
    pub k: u64,
    /// Address of A.
    pub a: u64,
    /// Leading dimension of A in elements.
    pub lda: u64,
    /// Address of B.
    pub b: u64,
    /// Leading dimension of B in elements.
    pub ldb: u64,
    /// Address of C.
    pub c: u64,
    /// Leading dimension of C in elements.
    pub ldc: u64,
    /// Bits of α.
    pub alpha: u64,
    /// Bits of β.
    pub beta: u64,
    /// `GEMM_*`.
    pub flags: u64,
}

impl GemmArgs {
    /// All flags that exist.
    pub const FLAGS: u64 = GEMM_TRANS_A | GEMM_TRANS_B | GEMM_ROW_MAJOR;

    /// The same product of column-major matrices: a row-major matrix is the transpose of a
    /// column-major one, and Cᵀ = op(B)ᵀ·op(A)ᵀ.
    fn column_major(self) -> Self {
        if self.flags & GEMM_ROW_MAJOR == 0 {
            return self;
        }
        let mut flags = 0;
        if self.flags & GEMM_TRANS_A != 0 {
            flags |= GEMM_TRANS_B;
        }
        if self.flags & GEMM_TRANS_B != 0 {
            flags |= GEMM_TRANS_A;
        }
        Self {
            m: self.n,
            n: self.m,
            a: self.b,
            lda: self.ldb,
            b: self.a,
            ldb: self.lda,
            flags,
            ..self
        }
    }
}

/// What comes next for the current tile of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Gather the tile of A, of which so many bytes are there.
    GatherA(usize),
    /// Gather the tile of B, of which so many bytes are there.
    GatherB(usize),
    /// Multiply the two.
    Multiply,
    /// Read and combine this column.
    Combine(usize),
    /// Write this column, of which so many bytes are written.
    Store(usize, usize),
    /// All tiles are done.
    End,
}

/// Local buffers, as large as the largest tile of this product.
#[derive(Debug)]
struct Buffers<T> {
    a: Vec<T>,
    b: Vec<T>,
    /// α·op(A)·op(B) for the tile of C.
    product: Vec<T>,
    /// One column of the tile of C.
    column: Vec<T>,
    _permit: Option<Permit>,
}

/// State of a multiplication in column-major form.
#[derive(Debug)]
pub struct Gemm<T> {
    a: Matrix,
    b: Matrix,
    c: Matrix,
    trans_a: bool,
    trans_b: bool,
    /// Depth; 0 also if α is 0.
    k: u64,
    alpha: T,
    beta: T,
    tile: TileSize,
    buffers: Buffers<T>,
    /// First row, column and depth of the current tiles.
    i: u64,
    j: u64,
    p: u64,
    phase: Phase,
    bytes_done: u64,
    advance: u64,
}

impl<T: Element> Gemm<T> {
    /// Starts a multiplication, or refuses it with a `STATUS_*`.
    pub fn new(args: GemmArgs, pool: &TilePool) -> Result<Self, u32> {
        let args = args.column_major();
        let (trans_a, trans_b) = (
            args.flags & GEMM_TRANS_A != 0,
            args.flags & GEMM_TRANS_B != 0,
        );
        let stored = |va, rows, cols, trans, ld| {
            let (rows, cols) = if trans { (cols, rows) } else { (rows, cols) };
            Matrix::new(va, rows, cols, ld, size_of::<T>() as u64).ok_or(STATUS_BAD_ARGUMENT)
        };
        let a = stored(args.a, args.m, args.k, trans_a, args.lda)?;
        let b = stored(args.b, args.k, args.n, trans_b, args.ldb)?;
        let c = stored(args.c, args.m, args.n, false, args.ldc)?;
        if c.overlaps(&a) || c.overlaps(&b) {
            return Err(STATUS_BAD_ARGUMENT);
        }
        let (alpha, beta) = (T::from_low_bits(args.alpha), T::from_low_bits(args.beta));
        let k = if alpha == T::ZERO { 0 } else { args.k };
        let unchanged = k == 0 && beta == T::ONE;
        let nothing = args.m == 0 || args.n == 0 || unchanged;
        let small = args.m <= SMALL.m && args.n <= SMALL.n && k <= SMALL.k;
        let permit = if nothing || small { None } else { pool.take() };
        let most = if permit.is_some() { LARGE } else { SMALL };
        let (m, n) = (balanced(args.m, most.m), balanced(args.n, most.n));
        let tile = TileSize {
            m,
            n,
            k: balanced(k, most.depth(m, n)),
        };
        let buffer = |elements: u64| vec![T::ZERO; if nothing { 0 } else { elements as usize }];
        let mut gemm = Self {
            a,
            b,
            c,
            trans_a,
            trans_b,
            k,
            alpha,
            beta,
            tile,
            buffers: Buffers {
                a: buffer(tile.m * tile.k),
                b: buffer(tile.k * tile.n),
                product: buffer(tile.m * tile.n),
                column: buffer(tile.m),
                _permit: permit,
            },
            i: 0,
            j: 0,
            p: 0,
            phase: Phase::End,
            bytes_done: 0,
            advance: 0,
        };
        if !nothing {
            gemm.phase = gemm.first_phase();
        }
        Ok(gemm)
    }

    fn first_phase(&self) -> Phase {
        if self.k == 0 {
            Phase::Combine(0)
        } else {
            Phase::GatherA(0)
        }
    }

    /// Extents of the current tiles, which are smaller at the far edges.
    fn extents(&self) -> (u64, u64, u64) {
        (
            self.tile.m.min(self.c.rows() - self.i),
            self.tile.n.min(self.c.cols() - self.j),
            self.tile.k.min(self.k - self.p),
        )
    }

    /// The part of A or B for the current tiles, as it is stored.
    fn operand(&self, phase: Phase) -> Block {
        let (m, n, k) = self.extents();
        let (rows, cols, trans) = match phase {
            Phase::GatherA(_) => ((self.i, m), (self.p, k), self.trans_a),
            _ => ((self.p, k), (self.j, n), self.trans_b),
        };
        let (rows, cols) = if trans { (cols, rows) } else { (rows, cols) };
        Block {
            row: rows.0,
            rows: rows.1,
            col: cols.0,
            cols: cols.1,
        }
    }

    /// One column of the current tile of C.
    fn column(&self, column: usize) -> Block {
        let (m, _, _) = self.extents();
        Block {
            row: self.i,
            rows: m,
            col: self.j + column as u64,
            cols: 1,
        }
    }

    /// Moves up to [`STEP_BYTES`].
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        let mut budget = STEP_BYTES;
        loop {
            if self.phase == Phase::End {
                return Step::Done(STATUS_OK);
            }
            if self.phase == Phase::Multiply {
                return Step::Compute;
            }
            if budget == 0 {
                return Step::More;
            }
            if let Err(step) = self.transfer(memory, &mut budget) {
                return step;
            }
        }
    }

    /// Goes on with the transfer of the current phase, to the next phase if it is complete.
    fn transfer<'m>(
        &mut self,
        memory: &mut impl DmaMemory<'m>,
        budget: &mut u64,
    ) -> Result<(), Step> {
        match self.phase {
            Phase::GatherA(start) => {
                let (block, mut done) = (self.operand(self.phase), start);
                let a = &mut self.buffers.a;
                let result = transfer_in(memory, &self.a, &block, a, &mut done, budget);
                self.phase = Phase::GatherA(done);
                self.advance += (done - start) as u64;
                if result? {
                    self.phase = Phase::GatherB(0);
                }
            }
            Phase::GatherB(start) => {
                let (block, mut done) = (self.operand(self.phase), start);
                let b = &mut self.buffers.b;
                let result = transfer_in(memory, &self.b, &block, b, &mut done, budget);
                self.phase = Phase::GatherB(done);
                self.advance += (done - start) as u64;
                if result? {
                    self.phase = Phase::Multiply;
                }
            }
            Phase::Combine(column) => {
                self.combine(memory, column, budget)?;
                self.phase = Phase::Store(column, 0);
            }
            Phase::Store(column, start) => {
                let (block, mut done) = (self.column(column), start);
                let values = &self.buffers.column;
                let result = transfer_out(memory, &self.c, &block, values, &mut done, budget);
                self.phase = Phase::Store(column, done);
                self.bytes_done += (done - start) as u64;
                self.advance += (done - start) as u64;
                if result? {
                    self.phase = Phase::Combine(column + 1);
                    if block.col + 1 == self.j + self.extents().1 {
                        self.next_tile();
                    }
                }
            }
            Phase::Multiply | Phase::End => {}
        }
        Ok(())
    }

    /// Makes a column of the result: product + β·C.
    fn combine<'m>(
        &mut self,
        memory: &mut impl DmaMemory<'m>,
        column: usize,
        budget: &mut u64,
    ) -> Result<(), Step> {
        let block = self.column(column);
        let m = block.rows as usize;
        let product = &self.buffers.product[column * m..(column + 1) * m];
        if self.beta == T::ZERO {
            self.buffers.column[..m].copy_from_slice(product);
            return Ok(());
        }
        // Nothing is written before the whole column is read: a miss starts the read again.
        let mut done = 0;
        let mut unlimited = u64::MAX;
        transfer_in(
            memory,
            &self.c,
            &block,
            &mut self.buffers.column,
            &mut done,
            &mut unlimited,
        )?;
        *budget = budget.saturating_sub(done as u64);
        for (value, &product) in self.buffers.column[..m].iter_mut().zip(product) {
            *value = product + self.beta * *value;
        }
        Ok(())
    }

    /// Goes to the next tile of C, down the rows first.
    fn next_tile(&mut self) {
        self.p = 0;
        self.i += self.tile.m;
        if self.i >= self.c.rows() {
            self.i = 0;
            self.j += self.tile.n;
        }
        self.phase = if self.j >= self.c.cols() {
            Phase::End
        } else {
            self.first_phase()
        };
    }

    /// Multiplies the gathered tiles.
    pub fn compute(&mut self) {
        if self.phase != Phase::Multiply {
            return;
        }
        let (m, n, k) = self.extents();
        let tile = |rows: u64, cols: u64, trans| Tile {
            rows: rows as usize,
            cols: cols as usize,
            trans,
        };
        kernel::multiply_tiles(
            self.alpha,
            (&self.buffers.a, tile(m, k, self.trans_a)),
            (&self.buffers.b, tile(k, n, self.trans_b)),
            self.p != 0,
            &mut self.buffers.product,
        );
        self.p += k;
        self.phase = if self.p < self.k {
            Phase::GatherA(0)
        } else {
            // The extents of the finished tile of C do not depend on the depth.
            Phase::Combine(0)
        };
        self.advance += 1;
    }

    /// Bytes of C that are written.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.bytes_done,
            result: [0; RESULT_BYTES],
        }
    }

    /// Bytes gathered and written.
    pub fn advance(&self) -> u64 {
        self.advance
    }
}

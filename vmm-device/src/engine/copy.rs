// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copy between two ranges that do not overlap, in one piece or row by row.
#![forbid(unsafe_code)]

use coax_abi::wire::{PAGE_SIZE, STATUS_BAD_ARGUMENT, STATUS_OK};

use super::memory::{DmaMemory, PairStop, Stop};
use super::{check_range, overlap, pair, Miss, Progress, Step, STEP_BYTES};
use crate::access::Access;

/// Rows of equal length, each a distance behind the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRowsArgs {
    /// First row of the destination.
    pub dst: u64,
    /// First row of the source.
    pub src: u64,
    /// Bytes of a row.
    pub row: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes from the beginning of a row to that of the next, in the destination.
    pub dst_stride: u64,
    /// The same in the source.
    pub src_stride: u64,
}

/// State of a copy.
///
/// # Invariants
///
/// No address of a row wraps around, and rows have bytes if there are any.
#[derive(Debug)]
pub struct Copy {
    args: CopyRowsArgs,
    /// Bytes of all rows together.
    len: u64,
    done: u64,
    /// Steps that a missing translation of the source stopped.
    src_missed: u64,
    /// Steps that a missing translation of the destination stopped.
    dst_missed: u64,
}

impl Copy {
    /// Starts a copy, or refuses it with a `STATUS_*`.
    pub fn new(dst: u64, src: u64, len: u64) -> Result<Self, u32> {
        Self::rows(CopyRowsArgs {
            dst,
            src,
            row: len,
            rows: 1,
            dst_stride: len,
            src_stride: len,
        })
    }

    /// Starts a copy of rows, or refuses it with a `STATUS_*`.
    pub fn rows(args: CopyRowsArgs) -> Result<Self, u32> {
        let len = args.row.checked_mul(args.rows).ok_or(STATUS_BAD_ARGUMENT)?;
        let dst_extent = extent(&args, args.dst_stride)?;
        let src_extent = extent(&args, args.src_stride)?;
        check_range(args.dst, dst_extent)?;
        check_range(args.src, src_extent)?;
        if overlap(args.dst, dst_extent, args.src, src_extent) {
            return Err(STATUS_BAD_ARGUMENT);
        }
        // INVARIANT: No range from first to last row wraps around; without bytes `len` is 0 and
        // no row is looked at.
        Ok(Self {
            args,
            len,
            done: 0,
            src_missed: 0,
            dst_missed: 0,
        })
    }

    /// Where the next bytes come from and go to, and how many are left of them in one piece.
    fn place(&self) -> (u64, u64, u64) {
        let args = &self.args;
        let (row, offset) = (self.done / args.row, self.done % args.row);
        (
            args.src + row * args.src_stride + offset,
            args.dst + row * args.dst_stride + offset,
            args.row - offset,
        )
    }

    /// Bytes from the current place on that are needed in any case: all to the end of the last row
    /// if no page lies between two of them, else to the end of this row; and whether more is likely
    /// to be needed near.
    fn certain(&self, stride: u64) -> (u64, bool) {
        let args = &self.args;
        let (row, offset) = (self.done / args.row, self.done % args.row);
        if args.rows <= 1 {
            return (args.row - offset, false);
        }
        if stride - args.row < PAGE_SIZE {
            let rest = (args.rows - 1 - row) * stride + args.row - offset;
            return (rest, false);
        }
        (args.row - offset, true)
    }

    /// Copies up to [`STEP_BYTES`].
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        let mut budget = STEP_BYTES;
        while self.done < self.len {
            if budget == 0 {
                return Step::More;
            }
            let (src, dst, rest) = self.place();
            match memory.pair(src, dst, rest.min(budget)) {
                Ok((src, dst)) => {
                    src.copy_to_volatile_slice(dst);
                    self.done += dst.len() as u64;
                    budget -= dst.len() as u64;
                    if memory.interrupted() {
                        budget = 0;
                    }
                }
                Err(stop) => return self.stopped(stop),
            }
        }
        Step::Done(STATUS_OK)
    }

    /// Step for accesses of which at least one failed.
    fn stopped(&mut self, stop: PairStop) -> Step {
        let mut misses = Vec::new();
        let src = self.certain(self.args.src_stride);
        let dst = self.certain(self.args.dst_stride);
        for (stop, access, (bytes, around), missed) in [
            (stop.src, Access::READ, src, &mut self.src_missed),
            (stop.dst, Access::WRITE, dst, &mut self.dst_missed),
        ] {
            match stop {
                Some(Stop::Miss(va)) => {
                    *missed += 1;
                    misses.push(Miss {
                        va,
                        bytes,
                        access,
                        around,
                    });
                }
                Some(Stop::BadGpa(va)) => return Step::BadGpa(va),
                None => {}
            }
        }
        Step::Missing(misses)
    }

    /// Bytes copied; how often the source was missing, and the destination.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.done,
            result: pair(self.src_missed, self.dst_missed),
        }
    }

    /// Bytes copied.
    pub fn advance(&self) -> u64 {
        self.done
    }
}

/// Bytes from the first to behind the last row, or a refusal of rows that overlap or wrap around.
fn extent(args: &CopyRowsArgs, stride: u64) -> Result<u64, u32> {
    if args.row == 0 || args.rows == 0 {
        return Ok(0);
    }
    if args.rows > 1 && stride < args.row {
        return Err(STATUS_BAD_ARGUMENT);
    }
    stride
        .checked_mul(args.rows - 1)
        .and_then(|bytes| bytes.checked_add(args.row))
        .ok_or(STATUS_BAD_ARGUMENT)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fill with a repeated 64-bit pattern.
#![forbid(unsafe_code)]

use coax_abi::wire::{RESULT_BYTES, STATUS_OK};

use super::memory::DmaMemory;
use super::{check_range, stopped, Progress, Step, STEP_BYTES};
use crate::access::Access;

/// Bytes of pattern kept ready.
const PATTERN_BYTES: usize = 4096;

/// State of a fill.
#[derive(Debug)]
pub struct Fill {
    dst: u64,
    len: u64,
    pattern: u64,
    done: u64,
}

impl Fill {
    /// Starts a fill, or refuses it with a `STATUS_*`.
    pub fn new(dst: u64, len: u64, pattern: u64) -> Result<Self, u32> {
        check_range(dst, len)?;
        Ok(Self {
            dst,
            len,
            pattern,
            done: 0,
        })
    }

    /// Fills up to [`STEP_BYTES`].
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        let mut budget = STEP_BYTES;
        let mut block = [0; PATTERN_BYTES];
        for (at, byte) in block.iter_mut().enumerate() {
            // A piece may begin anywhere in the pattern, but all within a step agree.
            *byte = self.pattern.to_le_bytes()[(self.done as usize + at) % 8];
        }
        let start = self.done;
        while self.done < self.len {
            if budget == 0 {
                return Step::More;
            }
            let rest = self.len - self.done;
            let want = rest.min(budget);
            let piece = match memory.piece(self.dst + self.done, want, Access::WRITE) {
                Ok(piece) => piece,
                Err(stop) => return stopped(stop, rest, Access::WRITE, false),
            };
            let mut at = 0;
            while at < piece.len() {
                let phase = (self.done - start) as usize % 8;
                let n = (piece.len() - at).min(PATTERN_BYTES - phase);
                let Ok(part) = piece.subslice(at, n) else {
                    break;
                };
                part.copy_from(&block[phase..phase + n]);
                at += n;
                self.done += n as u64;
                budget -= n as u64;
            }
            if memory.interrupted() {
                budget = 0;
            }
        }
        Step::Done(STATUS_OK)
    }

    /// Bytes filled.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.done,
            result: [0; RESULT_BYTES],
        }
    }

    /// Bytes filled.
    pub fn advance(&self) -> u64 {
        self.done
    }
}

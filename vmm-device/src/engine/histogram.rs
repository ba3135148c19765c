// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Histogram of the bytes of a range.
#![forbid(unsafe_code)]

use coax_abi::wire::{RESULT_BYTES, STATUS_OK};

use super::memory::DmaMemory;
use super::{check_range, stopped, Progress, Step, BUFFER_BYTES, STEP_BYTES};
use crate::access::Access;

/// Values of a byte.
const BINS: usize = 256;
/// Bytes of the result.
const OUTPUT_BYTES: usize = BINS * 8;

/// State of a histogram.
#[derive(Debug)]
pub struct Histogram {
    src: u64,
    len: u64,
    dst: u64,
    read: u64,
    written: u64,
    /// Two sets, so that runs of equal bytes do not wait for each other.
    counts: [[u64; BINS]; 2],
}

impl Histogram {
    /// Starts a histogram, or refuses it with a `STATUS_*`.
    pub fn new(src: u64, len: u64, dst: u64) -> Result<Self, u32> {
        check_range(src, len)?;
        check_range(dst, OUTPUT_BYTES as u64)?;
        Ok(Self {
            src,
            len,
            dst,
            read: 0,
            written: 0,
            counts: [[0; BINS]; 2],
        })
    }

    /// Counts up to [`STEP_BYTES`]; writes the result when all are counted.
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        let mut buffer = [0; BUFFER_BYTES];
        let mut budget = STEP_BYTES;
        while self.read < self.len {
            if budget == 0 {
                return Step::More;
            }
            let rest = self.len - self.read;
            let want = rest.min(BUFFER_BYTES as u64).min(budget);
            let piece = match memory.piece(self.src + self.read, want, Access::READ) {
                Ok(piece) => piece,
                Err(stop) => return stopped(stop, rest, Access::READ, false),
            };
            let n = piece.copy_to(&mut buffer[..]);
            self.count(&buffer[..n]);
            self.read += n as u64;
            budget -= n as u64;
            if memory.interrupted() {
                budget = 0;
            }
        }
        self.write(memory)
    }

    fn count(&mut self, bytes: &[u8]) {
        let [even, odd] = &mut self.counts;
        for two in bytes.chunks(2) {
            even[usize::from(two[0])] += 1;
            if let Some(&second) = two.get(1) {
                odd[usize::from(second)] += 1;
            }
        }
    }

    fn write<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        let mut output = [0; OUTPUT_BYTES];
        let [even, odd] = &self.counts;
        for ((bytes, a), b) in output.chunks_exact_mut(8).zip(even).zip(odd) {
            bytes.copy_from_slice(&(a + b).to_le_bytes());
        }
        while self.written < OUTPUT_BYTES as u64 {
            let rest = OUTPUT_BYTES as u64 - self.written;
            match memory.piece(self.dst + self.written, rest, Access::WRITE) {
                Ok(piece) => {
                    piece.copy_from(&output[self.written as usize..]);
                    self.written += piece.len() as u64;
                }
                Err(stop) => return stopped(stop, rest, Access::WRITE, false),
            }
        }
        Step::Done(STATUS_OK)
    }

    /// Bytes of the result written.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.written,
            result: [0; RESULT_BYTES],
        }
    }

    /// Bytes read and written.
    pub fn advance(&self) -> u64 {
        self.read.saturating_add(self.written)
    }
}

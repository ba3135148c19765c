// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copy between two ranges that do not overlap.
#![forbid(unsafe_code)]

use coax_abi::wire::{STATUS_BAD_ARGUMENT, STATUS_OK};

use super::memory::{DmaMemory, PairStop, Stop};
use super::{check_range, overlap, pair, Miss, Progress, Step, STEP_BYTES};
use crate::access::Access;

/// State of a copy.
#[derive(Debug)]
pub struct Copy {
    dst: u64,
    src: u64,
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
        check_range(dst, len)?;
        check_range(src, len)?;
        if overlap(dst, len, src, len) {
            return Err(STATUS_BAD_ARGUMENT);
        }
        Ok(Self {
            dst,
            src,
            len,
            done: 0,
            src_missed: 0,
            dst_missed: 0,
        })
    }

    /// Copies up to [`STEP_BYTES`].
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        let mut budget = STEP_BYTES;
        while self.done < self.len {
            if budget == 0 {
                return Step::More;
            }
            let rest = self.len - self.done;
            let want = rest.min(budget);
            match memory.pair(self.src + self.done, self.dst + self.done, want) {
                Ok((src, dst)) => {
                    src.copy_to_volatile_slice(dst);
                    self.done += dst.len() as u64;
                    budget -= dst.len() as u64;
                }
                Err(stop) => return self.stopped(stop, rest),
            }
        }
        Step::Done(STATUS_OK)
    }

    /// Step for accesses of which at least one failed, where `bytes` more are needed.
    fn stopped(&mut self, stop: PairStop, bytes: u64) -> Step {
        let mut misses = Vec::new();
        for (stop, access, missed) in [
            (stop.src, Access::READ, &mut self.src_missed),
            (stop.dst, Access::WRITE, &mut self.dst_missed),
        ] {
            match stop {
                Some(Stop::Miss(va)) => {
                    *missed += 1;
                    misses.push(Miss {
                        va,
                        bytes,
                        access,
                        around: false,
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copy between two ranges that do not overlap.
#![forbid(unsafe_code)]

use coax_abi::wire::{RESULT_BYTES, STATUS_BAD_ARGUMENT, STATUS_OK};

use super::memory::{DmaMemory, Stop};
use super::{check_range, overlap, Miss, Progress, Step, STEP_BYTES};
use crate::access::Access;

/// State of a copy.
#[derive(Debug)]
pub struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    done: u64,
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
            let src = memory.piece(self.src + self.done, want, Access::READ);
            let dst = memory.piece(self.dst + self.done, want, Access::WRITE);
            let (src, dst) = match (src, dst) {
                (Ok(src), Ok(dst)) => (src, dst),
                (Err(Stop::BadGpa(va)), _) | (_, Err(Stop::BadGpa(va))) => return Step::BadGpa(va),
                (src, dst) => {
                    let miss = |stop, access| match stop {
                        Stop::Miss(va) => Some(Miss {
                            va,
                            bytes: rest,
                            access,
                            around: false,
                        }),
                        Stop::BadGpa(_) => None,
                    };
                    let src = src.err().and_then(|stop| miss(stop, Access::READ));
                    let dst = dst.err().and_then(|stop| miss(stop, Access::WRITE));
                    return Step::Missing(src.into_iter().chain(dst).collect());
                }
            };
            src.copy_to_volatile_slice(dst);
            let copied = src.len().min(dst.len()) as u64;
            self.done += copied;
            budget -= copied;
        }
        Step::Done(STATUS_OK)
    }

    /// Bytes copied.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.done,
            result: [0; RESULT_BYTES],
        }
    }

    /// Bytes copied.
    pub fn advance(&self) -> u64 {
        self.done
    }
}

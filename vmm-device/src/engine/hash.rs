// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SHA-256 of a range.
#![forbid(unsafe_code)]

use coax_abi::wire::STATUS_OK;
use sha2::{Digest, Sha256};

use super::memory::DmaMemory;
use super::{check_range, stopped, Progress, Step, BUFFER_BYTES, STEP_BYTES};
use crate::access::Access;

/// State of a hash.
#[derive(Debug)]
pub struct Sha256Sum {
    src: u64,
    len: u64,
    done: u64,
    state: Sha256,
}

impl Sha256Sum {
    /// Starts a hash, or refuses it with a `STATUS_*`.
    pub fn new(src: u64, len: u64) -> Result<Self, u32> {
        check_range(src, len)?;
        Ok(Self {
            src,
            len,
            done: 0,
            state: Sha256::new(),
        })
    }

    /// Hashes up to [`STEP_BYTES`].
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        let mut buffer = [0; BUFFER_BYTES];
        let mut budget = STEP_BYTES;
        while self.done < self.len {
            if budget == 0 {
                return Step::More;
            }
            let rest = self.len - self.done;
            let want = rest.min(BUFFER_BYTES as u64).min(budget);
            let piece = match memory.piece(self.src + self.done, want, Access::READ) {
                Ok(piece) => piece,
                Err(stop) => return stopped(stop, rest, Access::READ, false),
            };
            let n = piece.copy_to(&mut buffer[..]);
            self.state.update(&buffer[..n]);
            self.done += n as u64;
            budget -= n as u64;
            if memory.interrupted() {
                budget = 0;
            }
        }
        Step::Done(STATUS_OK)
    }

    /// Bytes hashed, and the digest once all are.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            bytes_done: self.done,
            ..Progress::default()
        };
        if self.done == self.len {
            progress.result = self.state.clone().finalize().into();
        }
        progress
    }

    /// Bytes hashed.
    pub fn advance(&self) -> u64 {
        self.done
    }
}

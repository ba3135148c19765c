// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands as the device takes them, by bare addresses, and what comes back.
#![forbid(unsafe_code)]

use coax_abi::uapi;
use coax_abi::wire::{self, COMMAND_ARGS, RESULT_BYTES};

use crate::error::{Access, Failure, Fault, Status};

/// A command for the device. Addresses are virtual addresses of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// `OP_*` of the device ABI.
    pub opcode: u32,
    /// Arguments as the opcode defines them.
    pub args: [u64; COMMAND_ARGS],
}

impl Command {
    /// A command from its numbers; arguments not given are zero.
    ///
    /// # Panics
    ///
    /// With more than [`COMMAND_ARGS`] arguments.
    pub fn new(opcode: u32, args: &[u64]) -> Self {
        let mut all = [0; COMMAND_ARGS];
        all[..args.len()].copy_from_slice(args);
        Self { opcode, args: all }
    }

    /// Nothing: the round trip itself.
    pub fn nop() -> Self {
        Self::new(wire::OP_NOP, &[])
    }

    /// Copies `bytes` from `src` to `dst`, which must not overlap. The result is how often the
    /// command waited for the source and how often for the destination.
    pub fn copy(dst: u64, src: u64, bytes: u64) -> Self {
        Self::new(wire::OP_COPY, &[dst, src, bytes])
    }

    /// Copies `rows` rows of `row` bytes, the first from `src` to `dst` and each further one so much
    /// further on: by the first of `strides` in the destination, by the second in the source.
    pub fn copy_rows(dst: u64, src: u64, row: u64, rows: u64, strides: (u64, u64)) -> Self {
        let args = [dst, src, row, rows, strides.0, strides.1];
        Self::new(wire::OP_COPY_ROWS, &args)
    }

    /// Repeats the little-endian `pattern` over `bytes` from `dst` on.
    pub fn fill(dst: u64, bytes: u64, pattern: u64) -> Self {
        Self::new(wire::OP_FILL, &[dst, bytes, pattern])
    }

    /// SHA-256 of `bytes` from `src` on; the result is the digest.
    pub fn sha256(src: u64, bytes: u64) -> Self {
        Self::new(wire::OP_SHA256, &[src, bytes])
    }

    /// Counts each byte value of `bytes` from `src` on into 256 × `u64` at `dst`.
    pub fn histogram(src: u64, bytes: u64, dst: u64) -> Self {
        Self::new(wire::OP_HISTOGRAM, &[src, bytes, dst])
    }

    /// Adds `addend` atomically to each of `words` little-endian words of `bytes` (4 or 8), of
    /// which the first lies at `va` and each further one `stride` behind the one before; 0 means
    /// the same word again. Words are naturally aligned. The result is the first word before and
    /// the words done.
    pub fn fetch_add(va: u64, bytes: u64, addend: u64, words: u64, stride: u64) -> Self {
        Self::new(wire::OP_FETCH_ADD, &[va, bytes, addend, words, stride])
    }

    /// Gives the little-endian word of `bytes` (4 or 8) at `va`, naturally aligned, the value
    /// `desired` if it has the value `expected`, atomically. The result is the word before.
    pub fn compare_swap(va: u64, bytes: u64, expected: u64, desired: u64) -> Self {
        Self::new(wire::OP_COMPARE_SWAP, &[va, bytes, expected, desired])
    }
}

/// What a command that is done left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Bytes of the destination (of the source, where there is none) that are done.
    pub bytes_done: u64,
    /// Page requests that the command waited for.
    pub page_requests: u64,
    /// Result as the opcode defines it.
    pub result: [u8; RESULT_BYTES],
}

impl Completion {
    /// The `index`-th `u64` of the result, 0 … 3.
    ///
    /// # Panics
    ///
    /// With an index over 3.
    pub fn word(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.result[index * 8..][..8]);
        u64::from_le_bytes(bytes)
    }

    /// Splits a collected command into success and failure.
    pub(crate) fn from_wait(wait: &uapi::Wait) -> Result<Self, Failure> {
        let Some(status) = Status::from_code(wait.status) else {
            return Ok(Self {
                bytes_done: wait.bytes_done,
                page_requests: wait.page_requests,
                result: wait.result,
            });
        };
        let located = matches!(status, Status::Fault | Status::ResponseFailure);
        Err(Failure {
            status,
            fault: located.then(|| Fault {
                address: wait.fault_va,
                access: Access::from_bits(wait.fault_access),
            }),
            bytes_done: wait.bytes_done,
            page_requests: wait.page_requests,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_words_are_little_endian() {
        let mut result = [0; RESULT_BYTES];
        result[8] = 0x34;
        result[9] = 0x12;
        let completion = Completion {
            bytes_done: 0,
            page_requests: 0,
            result,
        };
        assert_eq!(completion.word(0), 0);
        assert_eq!(completion.word(1), 0x1234);
    }

    #[test]
    fn only_faults_carry_an_address() {
        let mut wait = uapi::Wait {
            status: wire::STATUS_BAD_ARGUMENT,
            fault_va: 0x5000,
            ..Default::default()
        };
        assert_eq!(Completion::from_wait(&wait).map_err(|f| f.fault), Err(None));
        wait.status = wire::STATUS_FAULT;
        wait.fault_access = wire::ACCESS_READ;
        let fault = Fault {
            address: 0x5000,
            access: Some(Access::Read),
        };
        assert_eq!(
            Completion::from_wait(&wait).map_err(|f| f.fault),
            Err(Some(fault))
        );
    }
}

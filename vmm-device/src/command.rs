// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Decoding of command chains: bytes to a checked [`Command`].
//!
//! Pure: no memory, no device. Ranges and sizes are checked where the operation starts.
#![forbid(unsafe_code)]

use coax_abi::wire::{self, COMMAND_ARGS, STATUS_BAD_MESSAGE, STATUS_UNKNOWN_OPCODE};
use zerocopy::FromBytes;

use crate::context::ContextId;
use crate::engine::atomic::{CompareSwapArgs, FetchAddArgs};
use crate::engine::copy::CopyRowsArgs;
use crate::engine::gemm::GemmArgs;
use crate::engine::list::ListArgs;
use crate::engine::tree::TreeArgs;

/// A command whose message is well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Do nothing.
    Nop,
    /// Copy `len` bytes.
    Copy {
        /// Destination.
        dst: u64,
        /// Source.
        src: u64,
        /// Bytes.
        len: u64,
    },
    /// Copy rows.
    CopyRows(CopyRowsArgs),
    /// Fill `len` bytes with a pattern.
    Fill {
        /// Destination.
        dst: u64,
        /// Bytes.
        len: u64,
        /// Pattern, repeated from `dst` on.
        pattern: u64,
    },
    /// SHA-256 of a range.
    Sha256 {
        /// Source.
        src: u64,
        /// Bytes.
        len: u64,
    },
    /// Byte histogram of a range.
    Histogram {
        /// Source.
        src: u64,
        /// Bytes.
        len: u64,
        /// 256 counts.
        dst: u64,
    },
    /// Sum over a linked list.
    ListSum(ListArgs),
    /// Search in a binary search tree.
    TreeSearch(TreeArgs),
    /// Multiplication of matrices in single precision.
    Sgemm(GemmArgs),
    /// Multiplication of matrices in double precision.
    Dgemm(GemmArgs),
    /// Atomic addition to words.
    FetchAdd(FetchAddArgs),
    /// Atomic compare and swap.
    CompareSwap(CompareSwapArgs),
}

/// A command and the context that it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The context, not checked.
    pub context: ContextId,
    /// The command.
    pub command: Command,
}

impl Request {
    /// Decodes the readable part of a command chain, or refuses it with a `STATUS_*`.
    pub fn decode(bytes: &[u8]) -> Result<Self, u32> {
        let Ok(message) = wire::Command::read_from_bytes(bytes) else {
            return Err(STATUS_BAD_MESSAGE);
        };
        let arg = message.arg.map(u64::from);
        let (command, used) = match message.opcode.get() {
            wire::OP_NOP => (Command::Nop, 0),
            wire::OP_COPY => (
                Command::Copy {
                    dst: arg[0],
                    src: arg[1],
                    len: arg[2],
                },
                3,
            ),
            wire::OP_FILL => (
                Command::Fill {
                    dst: arg[0],
                    len: arg[1],
                    pattern: arg[2],
                },
                3,
            ),
            wire::OP_SHA256 => (
                Command::Sha256 {
                    src: arg[0],
                    len: arg[1],
                },
                2,
            ),
            wire::OP_HISTOGRAM => (
                Command::Histogram {
                    src: arg[0],
                    len: arg[1],
                    dst: arg[2],
                },
                3,
            ),
            wire::OP_LIST_SUM => (
                Command::ListSum(ListArgs {
                    head: arg[0],
                    next_offset: arg[1],
                    value_offset: arg[2],
                    max_nodes: arg[3],
                }),
                4,
            ),
            wire::OP_TREE_SEARCH => (
                Command::TreeSearch(TreeArgs {
                    root: arg[0],
                    key: arg[1],
                    key_offset: arg[2],
                    left_offset: arg[3],
                    right_offset: arg[4],
                    max_levels: arg[5],
                }),
                6,
            ),
            wire::OP_SGEMM => (Command::Sgemm(gemm_args(&arg, u32::MAX.into())?), 12),
            wire::OP_DGEMM => (Command::Dgemm(gemm_args(&arg, u64::MAX)?), 12),
            wire::OP_FETCH_ADD => (
                Command::FetchAdd(FetchAddArgs {
                    va: arg[0],
                    bytes: arg[1],
                    addend: arg[2],
                    words: arg[3],
                    stride: arg[4],
                }),
                5,
            ),
            wire::OP_COMPARE_SWAP => (
                Command::CompareSwap(CompareSwapArgs {
                    va: arg[0],
                    bytes: arg[1],
                    expected: arg[2],
                    desired: arg[3],
                }),
                4,
            ),
            wire::OP_COPY_ROWS => (
                Command::CopyRows(CopyRowsArgs {
                    dst: arg[0],
                    src: arg[1],
                    row: arg[2],
                    rows: arg[3],
                    dst_stride: arg[4],
                    src_stride: arg[5],
                }),
                6,
            ),
            _ => return Err(STATUS_UNKNOWN_OPCODE),
        };
        require_zero(&arg, used)?;
        if message.reserved.get() != 0 {
            return Err(STATUS_BAD_MESSAGE);
        }
        Ok(Self {
            context: ContextId {
                number: message.context.get(),
                generation: message.generation.get(),
            },
            command,
        })
    }
}

/// Arguments of a multiplication whose numbers have the bits of `number`.
fn gemm_args(arg: &[u64; COMMAND_ARGS], number: u64) -> Result<GemmArgs, u32> {
    let [m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, flags] = *arg;
    if (alpha | beta) & !number != 0 || flags & !GemmArgs::FLAGS != 0 {
        return Err(STATUS_BAD_MESSAGE);
    }
    Ok(GemmArgs {
        m,
        n,
        k,
        a,
        lda,
        b,
        ldb,
        c,
        ldc,
        alpha,
        beta,
        flags,
    })
}

/// Refuses a message whose arguments from `used` on are not zero.
fn require_zero(arg: &[u64; COMMAND_ARGS], used: usize) -> Result<(), u32> {
    if arg[used..].iter().any(|&value| value != 0) {
        return Err(STATUS_BAD_MESSAGE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn message(opcode: u32, args: &[u64]) -> wire::Command {
        let mut arg = [0u64; COMMAND_ARGS];
        arg[..args.len()].copy_from_slice(args);
        wire::Command {
            opcode: opcode.into(),
            context: 7.into(),
            generation: 9.into(),
            reserved: 0.into(),
            arg: arg.map(Into::into),
        }
    }

    #[test]
    fn copy_is_decoded_with_its_context() {
        let request = Request::decode(message(wire::OP_COPY, &[1, 2, 3]).as_bytes());
        assert_eq!(
            request,
            Ok(Request {
                context: ContextId {
                    number: 7,
                    generation: 9
                },
                command: Command::Copy {
                    dst: 1,
                    src: 2,
                    len: 3
                }
            })
        );
    }

    #[test]
    fn unused_argument_that_is_not_zero_is_refused() {
        for (opcode, used) in [
            (wire::OP_COPY, 3),
            (wire::OP_FETCH_ADD, 5),
            (wire::OP_COMPARE_SWAP, 4),
            (wire::OP_COPY_ROWS, 6),
        ] {
            let mut args = vec![8; used];
            assert!(Request::decode(message(opcode, &args).as_bytes()).is_ok());
            args.push(1);
            let decoded = Request::decode(message(opcode, &args).as_bytes());
            assert_eq!(decoded, Err(STATUS_BAD_MESSAGE));
        }
    }

    #[test]
    fn atomics_are_decoded_in_the_order_of_the_wire() {
        let decode = |opcode, args: &[u64]| {
            Request::decode(message(opcode, args).as_bytes()).map(|request| request.command)
        };
        assert_eq!(
            decode(wire::OP_FETCH_ADD, &[1, 2, 3, 4, 5]),
            Ok(Command::FetchAdd(FetchAddArgs {
                va: 1,
                bytes: 2,
                addend: 3,
                words: 4,
                stride: 5
            }))
        );
        assert_eq!(
            decode(wire::OP_COMPARE_SWAP, &[1, 2, 3, 4]),
            Ok(Command::CompareSwap(CompareSwapArgs {
                va: 1,
                bytes: 2,
                expected: 3,
                desired: 4
            }))
        );
    }

    #[test]
    fn wrong_length_is_refused() {
        let message = message(wire::OP_NOP, &[]);
        let bytes = message.as_bytes();
        assert_eq!(Request::decode(&bytes[1..]), Err(STATUS_BAD_MESSAGE));
        assert_eq!(Request::decode(&[]), Err(STATUS_BAD_MESSAGE));
        let longer = [bytes, &[0]].concat();
        assert_eq!(Request::decode(&longer), Err(STATUS_BAD_MESSAGE));
        let reserved = wire::Command {
            reserved: 1.into(),
            ..message
        };
        let refused = Request::decode(reserved.as_bytes());
        assert_eq!(refused, Err(STATUS_BAD_MESSAGE));
    }

    #[test]
    fn gemm_refuses_unknown_flags_and_bits_beyond_single_precision() {
        let args = [1, 1, 1, 0, 1, 64, 1, 128, 1, 0, 0, GemmArgs::FLAGS];
        assert!(Request::decode(message(wire::OP_SGEMM, &args).as_bytes()).is_ok());
        for (at, value) in [(9, 1 << 32), (10, u64::MAX), (11, GemmArgs::FLAGS + 1)] {
            let mut bad = args;
            bad[at] = value;
            let decoded = Request::decode(message(wire::OP_SGEMM, &bad).as_bytes());
            assert_eq!(decoded, Err(STATUS_BAD_MESSAGE));
        }
        let mut double = args;
        double[9] = 1.5f64.to_bits();
        assert!(Request::decode(message(wire::OP_DGEMM, &double).as_bytes()).is_ok());
    }

    #[test]
    fn unknown_opcode_is_told_apart_from_a_malformed_message() {
        let message = message(0x1234, &[]);
        assert_eq!(
            Request::decode(message.as_bytes()),
            Err(STATUS_UNKNOWN_OPCODE)
        );
    }
}

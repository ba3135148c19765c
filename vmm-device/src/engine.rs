// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The engine: what commands do, as state machines over a memory trait.
//!
//! Nothing here knows virtio, sockets or threads. An [`Operation`] advances by [`step`]s of
//! bounded work; when memory is missing it says so and keeps its progress, and the same step
//! is taken again once the memory is there. A step never writes beyond what the operation
//! reports as done.
//!
//! [`step`]: Operation::step

pub mod atomic;
pub mod copy;
pub mod fill;
pub mod gemm;
pub mod hash;
pub mod histogram;
pub mod list;
pub mod memory;
pub mod tree;

use coax_abi::wire::{RESULT_BYTES, STATUS_BAD_ARGUMENT, STATUS_OK};

use crate::access::{Access, Miss};
use crate::command::Command;
use memory::{DmaMemory, Stop};

/// Bytes that one step moves at most, under one read lock of the translations.
pub const STEP_BYTES: u64 = 256 * 1024;
/// Bytes that an operation reads into a local buffer at a time; fits the first-level cache, and takes the
/// slowest of them, a hash without instructions for it, some ten microseconds.
pub const BUFFER_BYTES: usize = 8 * 1024;

/// Most misses of one step: source and destination of a copy.
pub const MAX_MISSES: usize = 2;

/// Outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// The next part is arithmetic on local data: call [`Operation::compute`].
    Compute,
    /// Done with this `STATUS_*`.
    Done(u32),
    /// Translations are missing, at most [`MAX_MISSES`].
    Missing(Vec<Miss>),
    /// The translation of this address names no memory of the guest.
    BadGpa(u64),
}

/// What a command has achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the destination, or of the source where there is none.
    pub bytes_done: u64,
    /// Result of the opcode.
    pub result: [u8; RESULT_BYTES],
}

/// A command in progress.
#[derive(Debug)]
pub enum Operation {
    /// Nothing to do.
    Nop,
    /// Copy.
    Copy(copy::Copy),
    /// Fill with a pattern.
    Fill(fill::Fill),
    /// SHA-256.
    Sha256(Box<hash::Sha256Sum>),
    /// Byte histogram.
    Histogram(Box<histogram::Histogram>),
    /// Sum over a list.
    ListSum(list::ListSum),
    /// Search in a tree.
    TreeSearch(tree::TreeSearch),
    /// Multiplication of matrices in single precision.
    Sgemm(Box<gemm::Gemm<f32>>),
    /// Multiplication of matrices in double precision.
    Dgemm(Box<gemm::Gemm<f64>>),
    /// Atomic addition to words.
    FetchAdd(atomic::FetchAdd),
    /// Atomic compare and swap.
    CompareSwap(atomic::CompareSwap),
}

impl Operation {
    /// Starts a command, or refuses it with a `STATUS_*`.
    pub fn start(command: &Command, tiles: &gemm::TilePool) -> Result<Self, u32> {
        Ok(match *command {
            Command::Nop => Self::Nop,
            Command::Copy { dst, src, len } => Self::Copy(copy::Copy::new(dst, src, len)?),
            Command::CopyRows(args) => Self::Copy(copy::Copy::rows(args)?),
            Command::Fill { dst, len, pattern } => Self::Fill(fill::Fill::new(dst, len, pattern)?),
            Command::Sha256 { src, len } => Self::Sha256(Box::new(hash::Sha256Sum::new(src, len)?)),
            Command::Histogram { src, len, dst } => {
                Self::Histogram(Box::new(histogram::Histogram::new(src, len, dst)?))
            }
            Command::ListSum(args) => Self::ListSum(list::ListSum::new(args)),
            Command::TreeSearch(args) => Self::TreeSearch(tree::TreeSearch::new(args)),
            Command::Sgemm(args) => Self::Sgemm(Box::new(gemm::Gemm::new(args, tiles)?)),
            Command::Dgemm(args) => Self::Dgemm(Box::new(gemm::Gemm::new(args, tiles)?)),
            Command::FetchAdd(args) => Self::FetchAdd(atomic::FetchAdd::new(args)?),
            Command::CompareSwap(args) => Self::CompareSwap(atomic::CompareSwap::new(args)?),
        })
    }

    /// Does a bounded amount of work.
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        match self {
            Self::Nop => Step::Done(STATUS_OK),
            Self::Copy(op) => op.step(memory),
            Self::Fill(op) => op.step(memory),
            Self::Sha256(op) => op.step(memory),
            Self::Histogram(op) => op.step(memory),
            Self::ListSum(op) => op.step(memory),
            Self::TreeSearch(op) => op.step(memory),
            Self::Sgemm(op) => op.step(memory),
            Self::Dgemm(op) => op.step(memory),
            Self::FetchAdd(op) => op.step(memory),
            Self::CompareSwap(op) => op.step(memory),
        }
    }

    /// Does the arithmetic that [`Step::Compute`] announced.
    pub fn compute(&mut self) {
        match self {
            Self::Sgemm(op) => op.compute(),
            Self::Dgemm(op) => op.compute(),
            _ => {}
        }
    }

    /// What was achieved so far.
    pub fn progress(&self) -> Progress {
        match self {
            Self::Nop => Progress::default(),
            Self::Copy(op) => op.progress(),
            Self::Fill(op) => op.progress(),
            Self::Sha256(op) => op.progress(),
            Self::Histogram(op) => op.progress(),
            Self::ListSum(op) => op.progress(),
            Self::TreeSearch(op) => op.progress(),
            Self::Sgemm(op) => op.progress(),
            Self::Dgemm(op) => op.progress(),
            Self::FetchAdd(op) => op.progress(),
            Self::CompareSwap(op) => op.progress(),
        }
    }

    /// Grows with every access that succeeded, so that equal values at two misses mean that
    /// nothing was gained in between.
    pub fn advance(&self) -> u64 {
        match self {
            Self::Nop => 0,
            Self::Copy(op) => op.advance(),
            Self::Fill(op) => op.advance(),
            Self::Sha256(op) => op.advance(),
            Self::Histogram(op) => op.advance(),
            Self::ListSum(op) => op.advance(),
            Self::TreeSearch(op) => op.advance(),
            Self::Sgemm(op) => op.advance(),
            Self::Dgemm(op) => op.advance(),
            Self::FetchAdd(op) => op.advance(),
            Self::CompareSwap(op) => op.advance(),
        }
    }
}

/// Checks that `va` … `va + len` does not wrap around.
fn check_range(va: u64, len: u64) -> Result<(), u32> {
    match va.checked_add(len) {
        Some(_) => Ok(()),
        None => Err(STATUS_BAD_ARGUMENT),
    }
}

/// Whether two ranges that do not wrap have a byte in common.
fn overlap(a: u64, a_len: u64, b: u64, b_len: u64) -> bool {
    a < b + b_len && b < a + a_len && a_len > 0 && b_len > 0
}

/// Step for a failed access, where `bytes` more were needed from its address on.
fn stopped(stop: Stop, bytes: u64, access: Access, around: bool) -> Step {
    match stop {
        Stop::Miss(va) => Step::Missing(vec![Miss {
            va,
            bytes,
            access,
            around,
        }]),
        Stop::BadGpa(va) => Step::BadGpa(va),
    }
}

/// A result of two integers.
fn pair(first: u64, second: u64) -> [u8; RESULT_BYTES] {
    let mut result = [0; RESULT_BYTES];
    result[..8].copy_from_slice(&first.to_le_bytes());
    result[8..16].copy_from_slice(&second.to_le_bytes());
    result
}

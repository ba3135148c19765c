// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's commands as functions on slices and pointers, each run to its end.
// UNSAFETY: these functions turn borrows into the addresses that a command carries; every
// block says why the borrow covers what the device does.
#![expect(unsafe_code)]

use coax_abi::wire;

use crate::command::{Command, Completion};
use crate::context::Context;
use crate::error::Error;
use crate::gemm::Gemm;

/// Buckets of a byte histogram.
const BYTE_VALUES: usize = 256;

/// How the nodes of a linked list are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLayout {
    /// Offset of the pointer to the next node; null ends the list.
    pub next: usize,
    /// Offset of the `u64` value.
    pub value: usize,
    /// Most nodes to visit: a longer list fails as [`Status::BadData`](crate::Status::BadData).
    pub max_nodes: u64,
}

/// What the walk over a list found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListSum {
    /// Wrapping sum of the values.
    pub sum: u64,
    /// Nodes visited.
    pub nodes: u64,
}

/// How the nodes of a binary search tree with `u64` keys are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeLayout {
    /// Offset of the key.
    pub key: usize,
    /// Offset of the pointer to the subtree with smaller keys, or null.
    pub left: usize,
    /// Offset of the pointer to the subtree with greater keys, or null.
    pub right: usize,
    /// Deepest level to visit: a search that would go deeper fails as
    /// [`Status::BadData`](crate::Status::BadData).
    pub max_depth: u64,
}

/// What the search in a tree found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHit {
    /// Address of the node with the key, 0 if there is none.
    pub node: u64,
    /// Levels visited.
    pub levels: u64,
}

/// Address that the device may read while `slice` is borrowed.
fn readable<T>(slice: &[T]) -> u64 {
    slice.as_ptr().expose_provenance() as u64
}

/// Address that the device may read and write while `slice` is borrowed.
fn writable<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr().expose_provenance() as u64
}

/// All calls give [`Error::Command`] if the device could not do the command and
/// [`Error::Call`] if the driver did not take it.
impl Context {
    /// Does nothing on the device: the round trip itself.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn nop(&self) -> Result<Completion, Error> {
        // SAFETY: The command names no memory.
        unsafe { self.run(Command::nop()) }
    }

    /// Copies `src` to `dst`, which must be equally long.
    ///
    /// # Errors
    ///
    /// As said above, and [`Error::Argument`] for different lengths.
    pub fn copy(&self, dst: &mut [u8], src: &[u8]) -> Result<Completion, Error> {
        if dst.len() != src.len() {
            return Err(Error::Argument("source and destination differ in length"));
        }
        let command = Command::copy(writable(dst), readable(src), src.len() as u64);
        // SAFETY: The device reads `src` and writes `dst`, both borrowed until it is done, and
        // any bytes are good bytes.
        unsafe { self.run(command) }
    }

    /// Repeats the little-endian `pattern` over `dst`.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn fill(&self, dst: &mut [u8], pattern: u64) -> Result<Completion, Error> {
        let command = Command::fill(writable(dst), dst.len() as u64, pattern);
        // SAFETY: The device writes `dst`, borrowed until it is done; any bytes are good.
        unsafe { self.run(command) }
    }

    /// SHA-256 of `src`.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn sha256(&self, src: &[u8]) -> Result<[u8; 32], Error> {
        let command = Command::sha256(readable(src), src.len() as u64);
        // SAFETY: The device reads `src`, borrowed until it is done.
        Ok(unsafe { self.run(command) }?.result)
    }

    /// How often each byte value occurs in `src`; overwrites `counts`.
    ///
    /// # Errors
    ///
    /// As said above.
    pub fn histogram(
        &self,
        src: &[u8],
        counts: &mut [u64; BYTE_VALUES],
    ) -> Result<Completion, Error> {
        let command = Command::histogram(readable(src), src.len() as u64, writable(counts));
        // SAFETY: The device reads `src` and writes 256 × u64 to `counts`, both borrowed until
        // it is done; any bytes are good integers.
        let completion = unsafe { self.run(command) }?;
        for count in counts {
            *count = u64::from_le(*count);
        }
        Ok(completion)
    }

    /// Sums over a linked list of this process; `head` may be null.
    ///
    /// # Errors
    ///
    /// As said above; a pointer that leads nowhere is a [`Failure`](crate::Failure) with its
    /// address.
    ///
    /// # Safety
    ///
    /// Nobody writes the nodes, or frees them, during the call.
    pub unsafe fn list_sum<T>(&self, head: *const T, layout: ListLayout) -> Result<ListSum, Error> {
        let args = [
            head.expose_provenance() as u64,
            layout.next as u64,
            layout.value as u64,
            layout.max_nodes,
        ];
        // SAFETY: The device only reads what it reaches from `head`, which nobody changes by
        // the caller's promise.
        let completion = unsafe { self.run(Command::new(wire::OP_LIST_SUM, &args)) }?;
        Ok(ListSum {
            sum: completion.word(0),
            nodes: completion.word(1),
        })
    }

    /// Searches a key in a binary search tree of this process; `root` may be null.
    ///
    /// # Errors
    ///
    /// As [`Context::list_sum`].
    ///
    /// # Safety
    ///
    /// Nobody writes the nodes, or frees them, during the call.
    pub unsafe fn tree_search<T>(
        &self,
        root: *const T,
        key: u64,
        layout: TreeLayout,
    ) -> Result<TreeHit, Error> {
        let args = [
            root.expose_provenance() as u64,
            key,
            layout.key as u64,
            layout.left as u64,
            layout.right as u64,
            layout.max_depth,
        ];
        // SAFETY: The device only reads what it reaches from `root`, which nobody changes by
        // the caller's promise.
        let completion = unsafe { self.run(Command::new(wire::OP_TREE_SEARCH, &args)) }?;
        Ok(TreeHit {
            node: completion.word(0),
            levels: completion.word(1),
        })
    }

    /// Matrix product in single precision.
    ///
    /// # Errors
    ///
    /// As said above, and [`Error::Argument`] for slices shorter than their matrices.
    pub fn sgemm(
        &self,
        gemm: &Gemm<f32>,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
    ) -> Result<Completion, Error> {
        gemm.check([a.len(), b.len(), c.len()])?;
        let addresses = [readable(a), readable(b), writable(c)];
        let scale = [gemm.alpha, gemm.beta].map(|factor| u64::from(factor.to_bits()));
        let command = gemm.command(wire::OP_SGEMM, addresses, scale[0], scale[1]);
        // SAFETY: The device reads A and B and writes C inside the slices, as `check` made
        // sure; all are borrowed until it is done, and any bits are a good f32.
        unsafe { self.run(command) }
    }

    /// Matrix product in double precision.
    ///
    /// # Errors
    ///
    /// As [`Context::sgemm`].
    pub fn dgemm(
        &self,
        gemm: &Gemm<f64>,
        a: &[f64],
        b: &[f64],
        c: &mut [f64],
    ) -> Result<Completion, Error> {
        gemm.check([a.len(), b.len(), c.len()])?;
        let addresses = [readable(a), readable(b), writable(c)];
        let command = gemm.command(
            wire::OP_DGEMM,
            addresses,
            gemm.alpha.to_bits(),
            gemm.beta.to_bits(),
        );
        // SAFETY: As in `sgemm`, with f64.
        unsafe { self.run(command) }
    }
}

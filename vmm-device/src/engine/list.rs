// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sum over a linked list.
#![forbid(unsafe_code)]

use coax_abi::wire::{STATUS_BAD_DATA, STATUS_OK};

use super::memory::DmaMemory;
use super::{pair, stopped, Progress, Step};
use crate::access::Access;

/// Nodes that one step visits at most.
const STEP_NODES: u64 = 4096;
/// Bytes read of each node.
const NODE_BYTES: u64 = 16;

/// Arguments of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListArgs {
    /// First node, 0 if there is none.
    pub head: u64,
    /// Where a node has the address of the next one.
    pub next_offset: u64,
    /// Where a node has its value.
    pub value_offset: u64,
    /// Most nodes to visit.
    pub max_nodes: u64,
}

/// State of a walk.
#[derive(Debug)]
pub struct ListSum {
    args: ListArgs,
    node: u64,
    sum: u64,
    nodes: u64,
}

impl ListSum {
    /// Starts a walk.
    pub fn new(args: ListArgs) -> Self {
        Self {
            args,
            node: args.head,
            sum: 0,
            nodes: 0,
        }
    }

    /// Visits up to `STEP_NODES` nodes.
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        for _ in 0..STEP_NODES {
            if self.node == 0 {
                return Step::Done(STATUS_OK);
            }
            if self.nodes == self.args.max_nodes {
                return Step::Done(STATUS_BAD_DATA);
            }
            let Some((value_va, next_va)) = field(self.node, self.args.value_offset)
                .zip(field(self.node, self.args.next_offset))
            else {
                return Step::Done(STATUS_BAD_DATA);
            };
            // Both are read before either counts, so that a node is never counted twice.
            let read = memory
                .read_u64(value_va)
                .and_then(|value| Ok((value, memory.read_u64(next_va)?)));
            match read {
                Ok((value, next)) => {
                    self.sum = self.sum.wrapping_add(value);
                    self.node = next;
                    self.nodes += 1;
                }
                Err(stop) => return stopped(stop, 1, Access::READ, true),
            }
            if memory.interrupted() {
                break;
            }
        }
        Step::More
    }

    /// Bytes read; the sum and the nodes visited.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.nodes.saturating_mul(NODE_BYTES),
            result: pair(self.sum, self.nodes),
        }
    }

    /// Nodes visited.
    pub fn advance(&self) -> u64 {
        self.nodes
    }
}

/// Address of a field of 8 bytes, unless it wraps around.
pub(super) fn field(node: u64, offset: u64) -> Option<u64> {
    let va = node.checked_add(offset)?;
    va.checked_add(8)?;
    Some(va)
}

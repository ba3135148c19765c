// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Search in a binary search tree.
#![forbid(unsafe_code)]

use std::cmp::Ordering;

use coax_abi::wire::{STATUS_BAD_DATA, STATUS_OK};

use super::list::field;
use super::memory::{DmaMemory, Stop};
use super::{pair, stopped, Progress, Step};
use crate::access::Access;

/// Levels that one step visits at most.
const STEP_LEVELS: u64 = 4096;
/// Bytes read of each node but the one found: key and one pointer.
const NODE_BYTES: u64 = 16;

/// Arguments of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeArgs {
    /// Root, 0 if the tree is empty.
    pub root: u64,
    /// Key to find.
    pub key: u64,
    /// Where a node has its key.
    pub key_offset: u64,
    /// Where a node has the address of the subtree of smaller keys.
    pub left_offset: u64,
    /// Where a node has the address of the subtree of larger keys.
    pub right_offset: u64,
    /// Deepest level to visit; the root is level 1.
    pub max_levels: u64,
}

/// State of a search.
#[derive(Debug)]
pub struct TreeSearch {
    args: TreeArgs,
    node: u64,
    levels: u64,
    found: bool,
}

/// What a node says.
enum Visit {
    Found,
    Child(u64),
    Malformed,
}

impl TreeSearch {
    /// Starts a search.
    pub fn new(args: TreeArgs) -> Self {
        Self {
            args,
            node: args.root,
            levels: 0,
            found: false,
        }
    }

    /// Visits up to `STEP_LEVELS` nodes.
    pub fn step<'m>(&mut self, memory: &mut impl DmaMemory<'m>) -> Step {
        for _ in 0..STEP_LEVELS {
            if self.node == 0 || self.found {
                return Step::Done(STATUS_OK);
            }
            if self.levels == self.args.max_levels {
                return Step::Done(STATUS_BAD_DATA);
            }
            match self.visit(memory) {
                Ok(Visit::Found) => {
                    self.found = true;
                    self.levels += 1;
                }
                Ok(Visit::Child(node)) => {
                    self.node = node;
                    self.levels += 1;
                }
                Ok(Visit::Malformed) => return Step::Done(STATUS_BAD_DATA),
                Err(stop) => return stopped(stop, 1, Access::READ, true),
            }
            if memory.interrupted() {
                break;
            }
        }
        Step::More
    }

    fn visit<'m>(&self, memory: &mut impl DmaMemory<'m>) -> Result<Visit, Stop> {
        let Some(key_va) = field(self.node, self.args.key_offset) else {
            return Ok(Visit::Malformed);
        };
        let offset = match self.args.key.cmp(&memory.read_u64(key_va)?) {
            Ordering::Equal => return Ok(Visit::Found),
            Ordering::Less => self.args.left_offset,
            Ordering::Greater => self.args.right_offset,
        };
        match field(self.node, offset) {
            Some(child_va) => Ok(Visit::Child(memory.read_u64(child_va)?)),
            None => Ok(Visit::Malformed),
        }
    }

    /// Bytes read; the node found, or 0, and the levels visited.
    pub fn progress(&self) -> Progress {
        let node = if self.found { self.node } else { 0 };
        Progress {
            bytes_done: self.levels.saturating_mul(NODE_BYTES),
            result: pair(node, self.levels),
        }
    }

    /// Levels visited.
    pub fn advance(&self) -> u64 {
        self.levels
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A long linked list in one array, linked in random order.
// UNSAFETY: one call hands the list's address to the device.
#![expect(unsafe_code)]

use std::mem::offset_of;

use anyhow::Result;
use coax::{Context, ListLayout, ListSum, PageRange};

use crate::rng::Rng;

/// A node on a cache line of its own.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Address of the next node, 0 at the end.
    next: u64,
    value: u64,
}

/// The list.
///
/// # Invariants
///
/// `head` and every `next` are 0 or the address of an element of `nodes`, and the list ends.
#[derive(Debug)]
pub struct ArrayList {
    nodes: Vec<Node>,
    head: u64,
}

impl ArrayList {
    /// Bytes from one node to the next in memory.
    pub const NODE_BYTES: usize = size_of::<Node>();

    /// A list of random values.
    pub fn new(count: usize, rng: &mut Rng) -> Self {
        let mut nodes = vec![Node::default(); count];
        let base = nodes.as_mut_ptr().expose_provenance() as u64;
        let mut order: Vec<usize> = (0..count).collect();
        rng.shuffle(&mut order);
        // INVARIANT: Each node points to the one that the loop linked before, the first one
        // to 0.
        let mut head = 0;
        for index in order {
            nodes[index] = Node {
                next: head,
                value: rng.next(),
            };
            head = base + (index * Self::NODE_BYTES) as u64;
        }
        Self { nodes, head }
    }

    /// Sum and length, without following pointers.
    pub fn expected(&self) -> ListSum {
        let sum = self
            .nodes
            .iter()
            .fold(0u64, |sum, node| sum.wrapping_add(node.value));
        ListSum {
            sum,
            nodes: self.nodes.len() as u64,
        }
    }

    /// Sum and length, found by the device.
    pub fn sum_on_device(&self, context: &Context) -> Result<ListSum> {
        let layout = ListLayout {
            next: offset_of!(Node, next),
            value: offset_of!(Node, value),
            max_nodes: self.nodes.len() as u64,
        };
        let head: *const Node = std::ptr::with_exposed_provenance(self.head as usize);
        // SAFETY: By the invariant the device stays inside `nodes`, which nobody can write while
        // `self` is borrowed.
        Ok(unsafe { context.list_sum(head, layout) }?)
    }

    /// The pages that it lies on.
    pub fn range(&self) -> PageRange {
        PageRange::of(&self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_reached_once() {
        let list = ArrayList::new(100, &mut Rng::new(9));
        let base = list.nodes.as_ptr().addr() as u64;
        let (mut next, mut sum) = (list.head, 0u64);
        for _ in 0..100 {
            let node = &list.nodes[((next - base) / 64) as usize];
            sum = sum.wrapping_add(node.value);
            next = node.next;
        }
        assert_eq!(next, 0);
        assert_eq!(list.expected(), ListSum { sum, nodes: 100 });
    }
}

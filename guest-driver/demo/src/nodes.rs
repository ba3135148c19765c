// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Linked lists and search trees of malloc'ed nodes, scattered among other allocations.
// UNSAFETY: these structures are made of raw pointers, as those of a C program would be, since
// it is the pointers themselves that the device follows.
#![expect(unsafe_code)]

use std::mem::offset_of;
use std::ptr;

use anyhow::Result;
use coax::{Context, ListLayout, ListSum, TreeHit, TreeLayout};

use crate::rng::Rng;

/// Sizes of the allocations between nodes, in bytes.
const FILLER_SIZES: std::ops::Range<usize> = 16..1000;
/// Nodes between which the device may search; random insertion stays far below.
const MAX_DEPTH: u64 = 256;

/// Memory that the rest of the program would hold: it lies between the nodes.
#[derive(Debug, Default)]
pub struct Fillers(Vec<Box<[u8]>>);

impl Fillers {
    /// Takes some memory and sometimes gives some back, so that the heap gets holes.
    pub fn scatter(&mut self, rng: &mut Rng) {
        let size = FILLER_SIZES.start + rng.below(FILLER_SIZES.len());
        self.0.push(vec![0xa5; size].into_boxed_slice());
        if rng.below(4) == 0 {
            let victim = rng.below(self.0.len());
            self.0.swap_remove(victim);
        }
    }
}

/// One allocation for each node, all freed together.
///
/// # Invariants
///
/// The pointers come from `Box::into_raw`, are distinct, and nothing else frees them.
#[derive(Debug)]
struct Nodes<T>(Vec<*mut T>);

impl<T> Nodes<T> {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, node: T) -> *mut T {
        // INVARIANT: A new allocation, held by nobody else.
        let node = Box::into_raw(Box::new(node));
        self.0.push(node);
        node
    }

    /// First byte and length of each node.
    fn places(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .iter()
            .map(|node| (node.addr() as u64, size_of::<T>() as u64))
    }
}

impl<T> Drop for Nodes<T> {
    fn drop(&mut self) {
        for &node in &self.0 {
            // SAFETY: From `Box::into_raw` and freed only here, by the type's invariant.
            drop(unsafe { Box::from_raw(node) });
        }
    }
}

#[repr(C)]
#[derive(Debug)]
struct ListNode {
    value: u64,
    next: *mut ListNode,
}

/// A singly linked list in random order.
///
/// # Invariants
///
/// `head` and every `next` are null or one of `nodes`, and the list ends.
#[derive(Debug)]
pub struct List {
    head: *mut ListNode,
    nodes: Nodes<ListNode>,
}

impl List {
    /// A list of random values.
    pub fn new(count: usize, rng: &mut Rng, fillers: &mut Fillers) -> Self {
        let mut list = Self {
            head: ptr::null_mut(),
            nodes: Nodes::new(),
        };
        list.grow(count, rng, fillers);
        list
    }

    /// Adds nodes, gives every third one another value and links all in another order.
    pub fn change(&mut self, count: usize, rng: &mut Rng, fillers: &mut Fillers) {
        for &node in self.nodes.0.iter().step_by(3) {
            // SAFETY: A live node by the invariant of `Nodes`; `&mut self` excludes others.
            unsafe { (*node).value = rng.next() };
        }
        self.grow(count, rng, fillers);
    }

    fn grow(&mut self, count: usize, rng: &mut Rng, fillers: &mut Fillers) {
        for _ in 0..count {
            fillers.scatter(rng);
            self.nodes.add(ListNode {
                value: rng.next(),
                next: ptr::null_mut(),
            });
        }
        let mut order = self.nodes.0.clone();
        rng.shuffle(&mut order);
        // INVARIANT: Each node points to the one that the loop linked before, the first one
        // to null.
        self.head = ptr::null_mut();
        for node in order {
            // SAFETY: A live node by the invariant of `Nodes`; `&mut self` excludes others.
            unsafe { (*node).next = self.head };
            self.head = node;
        }
    }

    /// Sum and length, found by the CPU.
    pub fn sum_on_cpu(&self) -> ListSum {
        let mut found = ListSum { sum: 0, nodes: 0 };
        let mut next: *const ListNode = self.head;
        // SAFETY: Null or a live node by the type's invariant, which nobody writes while
        // `self` is borrowed.
        while let Some(node) = unsafe { next.as_ref() } {
            found.sum = found.sum.wrapping_add(node.value);
            found.nodes += 1;
            next = node.next;
        }
        found
    }

    /// Sum and length, found by the device.
    pub fn sum_on_device(&self, context: &Context) -> Result<ListSum> {
        let layout = ListLayout {
            next: offset_of!(ListNode, next),
            value: offset_of!(ListNode, value),
            max_nodes: self.nodes.0.len() as u64,
        };
        // SAFETY: The nodes live as long as `self`, and are written through `&mut self` only.
        Ok(unsafe { context.list_sum(self.head, layout) }?)
    }

    /// First byte and length of each node.
    pub fn places(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.nodes.places()
    }
}

#[repr(C)]
#[derive(Debug)]
struct TreeNode {
    key: u64,
    left: *mut TreeNode,
    right: *mut TreeNode,
}

/// A binary search tree, as balanced as the random order of its keys makes it.
///
/// # Invariants
///
/// `root` and every `left` and `right` are null or one of `nodes`, and no node is reached twice.
#[derive(Debug)]
pub struct Tree {
    root: *mut TreeNode,
    nodes: Nodes<TreeNode>,
}

impl Tree {
    /// A tree without nodes.
    pub fn new() -> Self {
        Self {
            root: ptr::null_mut(),
            nodes: Nodes::new(),
        }
    }

    /// Adds a key, if it is new.
    pub fn insert(&mut self, key: u64) {
        let mut link: *mut *mut TreeNode = &mut self.root;
        loop {
            // SAFETY: The root's link or that of a live node, and `&mut self` excludes others.
            let node = unsafe { *link };
            if node.is_null() {
                break;
            }
            // SAFETY: Not null, so a live node by the type's invariant.
            let here = unsafe { &mut *node };
            if key == here.key {
                return;
            }
            link = if key < here.key {
                &mut here.left
            } else {
                &mut here.right
            };
        }
        // INVARIANT: A new node takes the place of a null link.
        let node = self.nodes.add(TreeNode {
            key,
            left: ptr::null_mut(),
            right: ptr::null_mut(),
        });
        // SAFETY: As above; adding a node moved no other.
        unsafe { *link = node };
    }

    /// Node and depth of a key, found by the CPU.
    pub fn search_on_cpu(&self, key: u64) -> TreeHit {
        let mut hit = TreeHit { node: 0, levels: 0 };
        let mut next: *const TreeNode = self.root;
        // SAFETY: Null or a live node by the type's invariant, which nobody writes while
        // `self` is borrowed.
        while let Some(node) = unsafe { next.as_ref() } {
            hit.levels += 1;
            if key == node.key {
                hit.node = next.addr() as u64;
                break;
            }
            next = if key < node.key {
                node.left
            } else {
                node.right
            };
        }
        hit
    }

    /// Node and depth of a key, found by the device.
    pub fn search_on_device(&self, context: &Context, key: u64) -> Result<TreeHit> {
        let layout = TreeLayout {
            key: offset_of!(TreeNode, key),
            left: offset_of!(TreeNode, left),
            right: offset_of!(TreeNode, right),
            max_depth: MAX_DEPTH,
        };
        // SAFETY: The nodes live as long as `self`, and are written through `&mut self` only.
        Ok(unsafe { context.tree_search(self.root, key, layout) }?)
    }

    /// Reads every node by the CPU and counts them.
    pub fn count_on_cpu(&self) -> u64 {
        let mut stack: Vec<*const TreeNode> = vec![self.root];
        let mut count = 0;
        while let Some(next) = stack.pop() {
            // SAFETY: As in `search_on_cpu`.
            if let Some(node) = unsafe { next.as_ref() } {
                count += 1;
                stack.push(node.left);
                stack.push(node.right);
            }
        }
        count
    }

    /// First byte and length of each node.
    pub fn places(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.nodes.places()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_sums_all_values_before_and_after_a_change() {
        let (mut rng, mut fillers) = (Rng::new(6), Fillers::default());
        let mut list = List::new(100, &mut rng, &mut fillers);
        let before = list.sum_on_cpu();
        assert_eq!(before.nodes, 100);
        list.change(10, &mut rng, &mut fillers);
        let after = list.sum_on_cpu();
        assert_eq!(after.nodes, 110);
        assert_ne!(before.sum, after.sum);
    }

    #[test]
    fn tree_finds_its_keys_and_no_others() {
        let mut tree = Tree::new();
        for key in [50, 20, 70, 60, 60, 80] {
            tree.insert(key);
        }
        assert_eq!(tree.count_on_cpu(), 5);
        assert_eq!(tree.search_on_cpu(60).levels, 3);
        assert!(tree
            .places()
            .any(|(place, _)| place == tree.search_on_cpu(60).node));
        assert_eq!(tree.search_on_cpu(65), TreeHit { node: 0, levels: 3 });
        assert_eq!(Tree::new().search_on_cpu(1), TreeHit { node: 0, levels: 0 });
    }

    #[test]
    fn nodes_are_scattered_over_many_pages() {
        let (mut rng, mut fillers) = (Rng::new(7), Fillers::default());
        let list = List::new(1000, &mut rng, &mut fillers);
        let mut pages: Vec<u64> = list.places().map(|(place, _)| place / 4096).collect();
        pages.sort_unstable();
        pages.dedup();
        // Fillers take about 380 bytes a node: some 90 pages.
        assert!(pages.len() > 50, "{} pages", pages.len());
    }
}

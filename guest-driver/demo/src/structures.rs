// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scenario `structures`: the device follows the program's pointers through a list and a tree,
//! and again after the program changed both.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use anyhow::{ensure, Result};
use coax::{Context, ListSum, PageRange, TreeHit};

use crate::nodes::{Fillers, List, Tree};
use crate::rng::Rng;
use crate::scenario::{device_pages, evict, judge, most, DevicePages, Findings, Progress};

/// Any number does; this one makes runs repeatable.
const SEED: u64 = 0xc0a1;
/// Keys searched in each round; half of them are in the tree.
const SEARCHES: usize = 128;

/// Runs it.
pub fn run(context: &Context, progress: &mut Progress, nodes: usize) -> Result<Findings> {
    let (mut rng, mut fillers) = (Rng::new(SEED), Fillers::default());
    let mut list = List::new(nodes, &mut rng, &mut fillers);
    let mut tree = Tree::new();
    let mut keys = grow_tree(&mut tree, nodes, &mut rng, &mut fillers);
    progress.done("list and tree built");
    let mut expected = String::new();
    let mut actual = String::new();

    let ranges = page_ranges(list.places().chain(tree.places()));
    let before = device_pages(context, &ranges)?;
    compare(
        context,
        &list,
        &tree,
        &searched(&keys, &mut rng),
        &mut expected,
        &mut actual,
    )?;

    progress.done("device and CPU walked both");
    // The pages are on the device, or came back for the CPU's walk, when the program writes.
    list.change(nodes / 10, &mut rng, &mut fillers);
    keys.extend(grow_tree(&mut tree, nodes / 10, &mut rng, &mut fillers));
    progress.done("program changed both");
    expected.push_str("; changed: ");
    actual.push_str("; changed: ");
    compare(
        context,
        &list,
        &tree,
        &searched(&keys, &mut rng),
        &mut expected,
        &mut actual,
    )?;

    progress.done("device and CPU walked both again");

    let ranges = page_ranges(list.places().chain(tree.places()));
    list.sum_on_device(context)?;
    let after = device_pages(context, &ranges)?;
    let nodes = (list.places().count() + tree.places().count()) as u64;
    ensure!(
        list.sum_on_cpu().nodes + tree.count_on_cpu() == nodes,
        "the CPU does not find all nodes"
    );
    let after_cpu = device_pages(context, &ranges)?;
    evict(context, &ranges)?;
    progress.done("pages read by the CPU and evicted");
    let after_evict = device_pages(context, &ranges)?;

    let list_pages: u64 = page_ranges(list.places())
        .iter()
        .map(PageRange::pages)
        .sum();
    let device_pages = DevicePages {
        before,
        after,
        after_cpu,
        after_evict,
    };
    Ok(Findings {
        pages: ranges.iter().map(PageRange::pages).sum(),
        device_pages,
        expected,
        actual,
        complaints: judge(&context.info()?, most(list_pages), device_pages),
    })
}

/// Adds random keys to a tree, with other allocations in between.
fn grow_tree(tree: &mut Tree, count: usize, rng: &mut Rng, fillers: &mut Fillers) -> Vec<u64> {
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        fillers.scatter(rng);
        // Even, so that odd keys are known to be absent.
        let key = rng.next() & !1;
        tree.insert(key);
        keys.push(key);
    }
    keys
}

/// Keys to search: some that are there, and their odd neighbours, which are not.
///
/// Keys and results lie on the stack: between the nodes on the heap they would share pages that
/// the device works on, and each access would fetch such a page back.
fn searched(keys: &[u64], rng: &mut Rng) -> [u64; SEARCHES] {
    std::array::from_fn(|n| keys[rng.below(keys.len())] | (n as u64 & 1))
}

/// Walks by device and CPU, and appends what each found.
fn compare(
    context: &Context,
    list: &List,
    tree: &Tree,
    keys: &[u64; SEARCHES],
    expected: &mut String,
    actual: &mut String,
) -> Result<()> {
    let sum = list.sum_on_device(context)?;
    let mut hits = [TreeHit { node: 0, levels: 0 }; SEARCHES];
    for (key, hit) in keys.iter().zip(&mut hits) {
        *hit = tree.search_on_device(context, *key)?;
    }
    describe(actual, sum, &hits);
    describe(
        expected,
        list.sum_on_cpu(),
        &keys.map(|key| tree.search_on_cpu(key)),
    );
    Ok(())
}

/// Says what was found, in such a way that any difference shows.
fn describe(text: &mut String, list: ListSum, hits: &[TreeHit]) {
    let found = hits.iter().filter(|hit| hit.node != 0).count();
    let levels: u64 = hits.iter().map(|hit| hit.levels).sum();
    // Order and place of every node found go into one number.
    let trace = hits.iter().fold(0u64, |trace, hit| {
        trace
            .wrapping_mul(0x100_0000_01b3)
            .wrapping_add(hit.node ^ (hit.levels << 56))
    });
    let ListSum { sum, nodes } = list;
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "list of {nodes} nodes sums to {sum:#x}, tree has {found} of {} keys in {levels} levels, \
         trace {trace:#x}",
        hits.len()
    );
}

/// The distinct pages of the places, neighbours joined.
fn page_ranges(places: impl Iterator<Item = (u64, u64)>) -> Vec<PageRange> {
    let mut pages: Vec<PageRange> = places
        .map(|(start, len)| PageRange::covering(start, len))
        .collect();
    pages.sort_unstable_by_key(|range| range.addr);
    let mut ranges: Vec<PageRange> = Vec::new();
    for page in pages {
        match ranges.last_mut() {
            Some(last) if page.addr <= last.addr + last.len => {
                last.len = last.len.max(page.addr + page.len - last.addr);
            }
            _ => ranges.push(page),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pages_are_joined_and_counted_once() {
        // Two nodes on one page, one across two pages, one far away.
        let places = [(0x9000, 16), (0x1100, 16), (0x1ff8, 16), (0x1000, 16)];
        let ranges = page_ranges(places.into_iter());
        assert_eq!(
            ranges,
            [
                PageRange::new(0x1000, 0x2000),
                PageRange::new(0x9000, 0x1000)
            ]
        );
    }

    #[test]
    fn half_of_the_searched_keys_are_absent() {
        let (mut rng, mut fillers, mut tree) = (Rng::new(8), Fillers::default(), Tree::new());
        let keys = grow_tree(&mut tree, 50, &mut rng, &mut fillers);
        let searched = searched(&keys, &mut rng);
        let found = searched
            .iter()
            .filter(|key| tree.search_on_cpu(**key).node != 0)
            .count();
        assert_eq!(found, SEARCHES / 2);
    }

    #[test]
    fn any_different_node_shows_in_the_description() {
        let list = ListSum { sum: 1, nodes: 1 };
        let describe_one = |node| {
            let mut text = String::new();
            describe(
                &mut text,
                list,
                &[
                    TreeHit { node, levels: 3 },
                    TreeHit {
                        node: 16,
                        levels: 2,
                    },
                ],
            );
            text
        };
        assert_ne!(describe_one(0x1000), describe_one(0x1010));
    }
}

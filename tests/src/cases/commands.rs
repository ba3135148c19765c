// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every command computes what it says, and refuses what makes no sense.

use anyhow::ensure;
use coax::{Command, Context, Gemm};
use coax_abi::wire::{OP_LIST_SUM, OP_TREE_SEARCH};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{refused, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::readable;
use crate::guest::wait::event_limit;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "commands",
    cases: &[
        case!(nop_comes_back, "the round trip itself"),
        case!(
            copy_moves_every_byte,
            "copy, with odd ends and over many pages"
        ),
        case!(histogram_counts_every_byte, "histogram"),
        case!(list_sum_visits_every_node, "linked list"),
        case!(tree_search_finds_what_is_there, "binary search tree"),
        case!(gemm_multiplies_in_both_precisions, "matrix products"),
        case!(a_list_without_end_is_given_up, "the visit limit of a list"),
        case!(overlapping_copies_are_refused, "copy onto itself"),
        case!(unknown_opcodes_are_refused, "an opcode of another device"),
        case!(empty_ranges_do_nothing, "commands on no bytes"),
        case!(completion_makes_the_file_readable, "poll"),
        case!(commands_in_flight_are_collected_in_any_order, "identifiers"),
    ],
};

fn nop_comes_back() -> CaseResult {
    let done = Device::open()?.run(Command::nop())?;
    ensure!(done.page_requests == 0, "{done:?}");
    Ok(())
}

fn copy_moves_every_byte() -> CaseResult {
    let device = Device::open()?;
    // 3 MiB and a bit: more than one window of translations.
    let len = (3 << 20) + 4321;
    let (from, to) = (
        Mapping::anonymous(len + PAGE)?,
        Mapping::anonymous(len + PAGE)?,
    );
    let content = pattern::bytes(11, len);
    from.write(77, &content);
    let done = device.run(Command::copy(to.at(1234), from.at(77), len as u64))?;
    ensure!(done.bytes_done == len as u64, "{done:?}");
    let mut got = vec![0; len];
    to.read(1234, &mut got);
    same("copy", &got, &content)?;
    let mut edges = [0; 2];
    to.read(1233, &mut edges[..1]);
    to.read(1234 + len, &mut edges[1..]);
    same("bytes around the copy", &edges, &[0, 0])
}

fn histogram_counts_every_byte() -> CaseResult {
    let device = Device::open()?;
    let content = pattern::bytes(12, 300_001);
    let mut expected = [0u64; 256];
    content
        .iter()
        .for_each(|byte| expected[usize::from(*byte)] += 1);
    let mut counts = [u64::MAX; 256];
    device.histogram(&content, &mut counts)?;
    ensure!(counts == expected, "Counts differ");
    Ok(())
}

fn list_sum_visits_every_node() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(700 * PAGE)?;
    list::lay(&memory, 0);
    let done = device.run(list::walk(&memory, 700))?;
    ensure!(
        (done.word(0), done.word(1)) == (list::sum(700), 700),
        "{done:?}"
    );
    let empty = device.run(Command::new(OP_LIST_SUM, &[0, 0, 8, 700]))?;
    ensure!((empty.word(0), empty.word(1)) == (0, 0), "{empty:?}");
    Ok(())
}

fn tree_search_finds_what_is_there() -> CaseResult {
    let device = Device::open()?;
    // A full tree in heap order: node i has children 2i and 2i+1. Walking it in order gives
    // the keys 10, 20, 30, …
    const NODES: usize = 1023;
    const STRIDE: usize = 1000;
    let memory = Mapping::anonymous((NODES + 1) * STRIDE + PAGE)?;
    let address = |node: usize| {
        if node <= NODES {
            memory.at(node * STRIDE)
        } else {
            0
        }
    };
    let mut next_key = 0;
    let mut stack = vec![(1, false)];
    while let Some((node, left_done)) = stack.pop() {
        if node > NODES {
            continue;
        }
        if left_done {
            next_key += 10;
            memory.store(node * STRIDE, address(2 * node));
            memory.store(node * STRIDE + 8, next_key);
            memory.store(node * STRIDE + 16, address(2 * node + 1));
            stack.push((2 * node + 1, false));
        } else {
            stack.push((node, true));
            stack.push((2 * node, false));
        }
    }
    let search = |key| {
        device.run(Command::new(
            OP_TREE_SEARCH,
            &[address(1), key, 8, 0, 16, 10],
        ))
    };
    // The root's key, the smallest, the greatest, and one that is not there.
    for (key, node, levels) in [(5120, 1, 1), (10, 512, 10), (10230, 1023, 10), (15, 0, 10)] {
        let done = search(key)?;
        let expected = if node == 0 { 0 } else { address(node) };
        ensure!(
            (done.word(0), done.word(1)) == (expected, levels),
            "Key {key}: {done:?}"
        );
    }
    let shallow = device.run(Command::new(OP_TREE_SEARCH, &[address(1), 10, 8, 0, 16, 9]));
    refused("a search deeper than allowed", shallow, libc::EBADMSG)
}

fn gemm_multiplies_in_both_precisions() -> CaseResult {
    let device = Device::open()?;
    // Sizes that are no multiples of any tile; small integers, so that sums are exact.
    let (m, n, k) = (37, 29, 53);
    let a: Vec<f64> = (0..m * k)
        .map(|i| f64::from((i * 7 % 11) as u8) - 5.0)
        .collect();
    let b: Vec<f64> = (0..k * n)
        .map(|i| f64::from((i * 5 % 13) as u8) - 6.0)
        .collect();
    let mut expected = vec![0.0; m * n];
    for row in 0..m {
        for column in 0..n {
            expected[row * n + column] = (0..k)
                .map(|i| a[row * k + i] * b[i * n + column])
                .sum::<f64>();
        }
    }
    let mut c = vec![f64::NAN; m * n];
    device.dgemm(&Gemm::product(m, n, k), &a, &b, &mut c)?;
    ensure!(c == expected, "DGEMM gives another product");

    let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<_>>();
    let mut c = vec![f32::NAN; m * n];
    device.sgemm(&Gemm::product(m, n, k), &narrow(&a), &narrow(&b), &mut c)?;
    ensure!(c == narrow(&expected), "SGEMM gives another product");
    Ok(())
}

fn a_list_without_end_is_given_up() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(4 * PAGE)?;
    list::lay(&memory, memory.address());
    refused(
        "a ring",
        device.run(list::walk(&memory, 10_000)),
        libc::EBADMSG,
    )
}

fn overlapping_copies_are_refused() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(4 * PAGE)?;
    let content = pattern::bytes(13, 4 * PAGE);
    memory.write(0, &content);
    let len = 2 * PAGE as u64;
    for (to, from) in [(0, PAGE), (PAGE, 0), (0, 0), (0, 2 * PAGE - 1)] {
        let copy = Command::copy(memory.at(to), memory.at(from), len);
        refused("an overlapping copy", device.run(copy), libc::EINVAL)?;
    }
    same("memory", &memory.to_vec(), &content)?;
    // Ranges that only touch do not overlap.
    device.run(Command::copy(memory.at(0), memory.at(2 * PAGE), len))?;
    Ok(())
}

fn unknown_opcodes_are_refused() -> CaseResult {
    let device = Device::open()?;
    for opcode in [1000, u32::MAX] {
        let outcome = device.run(Command::new(opcode, &[]));
        refused("an unknown opcode", outcome, libc::EOPNOTSUPP)?;
    }
    device.run(Command::nop())?;
    Ok(())
}

fn empty_ranges_do_nothing() -> CaseResult {
    let device = Device::open()?;
    ensure!(
        Context::sha256(&device, &[])? == pattern::sha256(&[]),
        "Digest of nothing"
    );
    // The address is not looked at when there is nothing to do there.
    for command in [
        Command::fill(0x1000, 0, 0),
        Command::copy(0x1000, 0x2000, 0),
    ] {
        let done = device.run(command)?;
        ensure!(done.bytes_done == 0 && done.page_requests == 0, "{done:?}");
    }
    Ok(())
}

fn completion_makes_the_file_readable() -> CaseResult {
    use std::os::fd::AsFd;
    let device = Device::open()?;
    let at_once = std::time::Duration::ZERO;
    ensure!(
        !readable(device.as_fd(), at_once)?,
        "Readable before any command"
    );
    let id = device.start(Command::nop())?;
    ensure!(
        readable(device.as_fd(), event_limit())?,
        "Not readable after the command"
    );
    device.finish(id)?;
    ensure!(
        !readable(device.as_fd(), at_once)?,
        "Readable after the command was collected"
    );
    Ok(())
}

fn commands_in_flight_are_collected_in_any_order() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(32 * PAGE)?;
    memory.write(0, &pattern::bytes(14, memory.len()));
    let content = memory.to_vec();
    let ids = (0..32)
        .map(|page| device.start(Command::sha256(memory.at(page * PAGE), PAGE as u64)))
        .collect::<Result<Vec<_>, _>>()?;
    for (page, id) in ids.into_iter().enumerate().rev() {
        let expected = pattern::sha256(&content[page * PAGE..(page + 1) * PAGE]);
        ensure!(
            device.finish(id)?.result == expected,
            "Digest of page {page}"
        );
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands of every kind on an area, each with what has to come of it.

use coax::Command;
use coax_abi::wire;

use super::area::Area;
use crate::guest::pattern;
use crate::trial::rng::Rng;

/// A command with what it makes of the area.
#[derive(Debug)]
pub struct Work {
    /// The command.
    pub command: Command,
    /// Where it writes.
    pub offset: usize,
    /// What is there afterwards; word by word it is either done or not.
    pub after: Vec<u8>,
    /// Its result.
    pub expect: Expect,
}

/// The result of a command.
#[derive(Debug)]
pub enum Expect {
    /// None that is known.
    Nothing,
    /// All its bytes.
    Digest([u8; 32]),
    /// Its first words.
    Words(Vec<u64>),
}

/// Least bytes of an area: three matrices have room in it.
pub const LEAST: usize = 64 << 10;

/// Bytes from node to node of lists and trees, with next or left, value or key, and right.
const NODE: usize = 64;
/// Most nodes of a list: the longest piece of work that the device does without a pause.
const MOST_NODES: usize = 4096;
/// Rows and columns of matrices.
const SIZE: usize = 40;

/// A command of some kind for the area, on which none is under way.
pub fn choose(area: &mut Area, rng: &mut Rng) -> Work {
    match rng.within(0..9) {
        0 => fill(area, rng),
        1 => copy(area, rng),
        2 => copy_rows(area, rng),
        3 => sha256(area),
        4 => histogram(area),
        5 => list(area, rng),
        6 => tree(area, rng),
        7 => atomics(area, rng),
        _ => gemm(area, rng),
    }
}

/// Part of `from … to`, in whole words.
fn part(rng: &mut Rng, from: usize, to: usize) -> std::ops::Range<usize> {
    let start = rng.within(from / 8..to / 8);
    let end = rng.within(start..to / 8) + 1;
    start * 8..end * 8
}

/// A fill of a part.
pub fn fill(area: &Area, rng: &mut Rng) -> Work {
    let range = part(rng, 0, area.len());
    let pattern = rng.next();
    Work {
        command: Command::fill(area.memory().at(range.start), range.len() as u64, pattern),
        offset: range.start,
        after: pattern.to_le_bytes().repeat(range.len() / 8),
        expect: Expect::Nothing,
    }
}

fn copy(area: &Area, rng: &mut Rng) -> Work {
    let half = area.len() / 2;
    let range = part(rng, 0, half);
    let (to, bytes) = (half + range.start, range.len() as u64);
    let memory = area.memory();
    Work {
        command: Command::copy(memory.at(to), memory.at(range.start), bytes),
        offset: to,
        after: area.model()[range].to_vec(),
        expect: Expect::Nothing,
    }
}

fn copy_rows(area: &Area, rng: &mut Rng) -> Work {
    let half = area.len() / 2;
    let row = 8 * rng.within(1..128);
    let stride = row + 8 * rng.within(0..64);
    let rows = rng.within(1..half / stride);
    let span = stride * (rows - 1) + row;
    let mut after = area.model()[half..half + span].to_vec();
    for start in (0..rows).map(|number| number * stride) {
        after[start..start + row].copy_from_slice(&area.model()[start..start + row]);
    }
    let (to, from) = (area.memory().at(half), area.memory().at(0));
    let stride = stride as u64;
    Work {
        command: Command::copy_rows(to, from, row as u64, rows as u64, (stride, stride)),
        offset: half,
        after,
        expect: Expect::Nothing,
    }
}

fn reading(command: Command, expect: Expect) -> Work {
    Work {
        command,
        offset: 0,
        after: Vec::new(),
        expect,
    }
}

fn sha256(area: &Area) -> Work {
    // The CPU has to do the same, at the speed of an emulated one.
    let len = area.len().min(256 << 10);
    let command = Command::sha256(area.memory().address(), len as u64);
    let digest = pattern::sha256(&area.model()[..len]);
    reading(command, Expect::Digest(digest))
}

fn histogram(area: &Area) -> Work {
    let half = area.len() / 2;
    let mut counts = [0u64; 256];
    for byte in &area.model()[..half] {
        counts[usize::from(*byte)] += 1;
    }
    let (from, to) = (area.memory().at(0), area.memory().at(half));
    Work {
        command: Command::histogram(from, half as u64, to),
        offset: half,
        after: counts.into_iter().flat_map(u64::to_le_bytes).collect(),
        expect: Expect::Nothing,
    }
}

/// Writes words, each at its offset in a node.
fn node(area: &mut Area, number: usize, words: [u64; 3]) {
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    area.write(number * NODE, &bytes);
}

fn list(area: &mut Area, rng: &mut Rng) -> Work {
    let nodes = (area.len() / NODE).min(MOST_NODES);
    let mut order: Vec<usize> = (1..nodes).collect();
    rng.shuffle(&mut order);
    let mut sum = 0u64;
    let mut at = 0;
    for next in order.into_iter().map(Some).chain([None]) {
        let value = rng.next();
        sum = sum.wrapping_add(value);
        let pointer = next.map_or(0, |next| area.memory().at(next * NODE));
        node(area, at, [pointer, value, 0]);
        at = next.unwrap_or(0);
    }
    let args = [area.memory().address(), 0, 8, nodes as u64];
    let command = Command::new(wire::OP_LIST_SUM, &args);
    reading(command, Expect::Words(vec![sum, nodes as u64]))
}

fn tree(area: &mut Area, rng: &mut Rng) -> Work {
    const LEVELS: u32 = 10;
    let nodes = (1 << LEVELS) - 1;
    let first = rng.next() >> 32;
    // The node in the middle of a range is the root of those on either side.
    let mut ranges = Vec::from([std::ops::Range {
        start: 0,
        end: nodes,
    }]);
    while let Some(range) = ranges.pop() {
        let middle = range.start + range.len() / 2;
        let sides = [range.start..middle, middle + 1..range.end];
        let [left, right] = sides.clone().map(|side| {
            let root = side.start + side.len() / 2;
            if side.is_empty() {
                0
            } else {
                area.memory().at(root * NODE)
            }
        });
        node(area, middle, [left, first + middle as u64, right]);
        ranges.extend(sides.into_iter().filter(|side| !side.is_empty()));
    }
    let wanted = rng.within(0..nodes);
    let (mut low, mut high, mut levels) = (0, nodes, 0);
    loop {
        levels += 1;
        let middle = low + (high - low) / 2;
        match wanted.cmp(&middle) {
            std::cmp::Ordering::Less => high = middle,
            std::cmp::Ordering::Greater => low = middle + 1,
            std::cmp::Ordering::Equal => break,
        }
    }
    let root = area.memory().at(nodes / 2 * NODE);
    let args = [root, first + wanted as u64, 8, 0, 16, u64::from(LEVELS)];
    let found = area.memory().at(wanted * NODE);
    let command = Command::new(wire::OP_TREE_SEARCH, &args);
    reading(command, Expect::Words(vec![found, levels]))
}

fn atomics(area: &Area, rng: &mut Rng) -> Work {
    let range = part(rng, 0, area.len().min(8 * MOST_NODES));
    let addend = rng.next();
    let old = area.model()[range.clone()].chunks_exact(8);
    let old: Vec<u64> = old
        .filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)))
        .collect();
    let words = old.len() as u64;
    let new = old.iter().map(|word| word.wrapping_add(addend));
    Work {
        command: Command::fetch_add(area.memory().at(range.start), 8, addend, words, 8),
        offset: range.start,
        after: new.flat_map(u64::to_le_bytes).collect(),
        expect: Expect::Words(vec![old[0], words]),
    }
}

/// A product of whole numbers, which has no rounding.
fn gemm(area: &mut Area, rng: &mut Rng) -> Work {
    const BYTES: usize = SIZE * SIZE * 8;
    let mut matrix = || -> Vec<f64> {
        let small = |_| rng.within(0..32) as f64 - 16.0;
        (0..SIZE * SIZE).map(small).collect()
    };
    let (a, b) = (matrix(), matrix());
    let bytes =
        |matrix: &[f64]| -> Vec<u8> { matrix.iter().flat_map(|x| x.to_le_bytes()).collect() };
    area.write(0, &bytes(&a));
    area.write(BYTES, &bytes(&b));
    let mut c = vec![0.0; SIZE * SIZE];
    for row in 0..SIZE {
        for (k, factor) in a[row * SIZE..][..SIZE].iter().enumerate() {
            for column in 0..SIZE {
                c[row * SIZE + column] += factor * b[k * SIZE + column];
            }
        }
    }
    let n = SIZE as u64;
    let [a, b, to] = [0, 1, 2].map(|matrix| area.memory().at(matrix * BYTES));
    let (one, zero) = (1f64.to_bits(), 0f64.to_bits());
    let args = [n, n, n, a, n, b, n, to, n, one, zero, wire::GEMM_ROW_MAJOR];
    Work {
        command: Command::new(wire::OP_DGEMM, &args),
        offset: 2 * BYTES,
        after: bytes(&c),
        expect: Expect::Nothing,
    }
}

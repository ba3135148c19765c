// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The measured work, on the host and through the engine; the results must agree.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use coax_abi::wire::PAGE_SIZE;
use sha2::{Digest, Sha256};
use vhost_device_coax::command::Command;
use vhost_device_coax::engine::gemm::{multiply, Element, GemmArgs, TilePool};
use vhost_device_coax::engine::list::ListArgs;
use vhost_device_coax::engine::tree::TreeArgs;

use crate::memory::{Mapping, Memory, VA};

/// Bytes between nodes at least, as an allocator would leave.
const NODE_BYTES: u64 = 64;
/// Keys looked up in one round.
const SEARCHES: u64 = 20_000;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub bytes: u64,
    pub gemm: usize,
    pub nodes: u64,
    pub spread: u64,
    pub rounds: u32,
    pub mapping: Mapping,
}

/// Speeds of one operation in units a second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub name: &'static str,
    pub unit: &'static str,
    pub host: f64,
    pub engine: f64,
}

/// Names of the operations.
pub const NAMES: [&str; 6] = ["copy", "sha256", "list", "tree", "sgemm", "dgemm"];

/// Measures everything, or one operation.
pub fn run(sizes: &Sizes, only: Option<&str>) -> anyhow::Result<Vec<Rate>> {
    ensure!(
        sizes.nodes * NODE_BYTES <= sizes.spread,
        "{} nodes of {NODE_BYTES} bytes need more than {} bytes",
        sizes.nodes,
        sizes.spread
    );
    NAMES
        .into_iter()
        .filter(|name| only.is_none_or(|only| only == *name))
        .map(|name| match name {
            "copy" => copy(sizes),
            "sha256" => sha256(sizes),
            "list" => list(sizes),
            "tree" => tree(sizes),
            "sgemm" => gemm::<f32>(name, Command::Sgemm, sizes),
            _ => gemm::<f64>(name, Command::Dgemm, sizes),
        })
        .collect()
}

/// Best rate of the rounds for work of so many units.
fn best(
    rounds: u32,
    units: f64,
    mut work: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut best: f64 = 0.0;
    for _ in 0..rounds {
        let start = Instant::now();
        work()?;
        best = best.max(units / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Numbers without order, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .take(count as usize)
            .collect()
    }

    /// Places of nodes in units of 8 bytes, in random order.
    fn places(&mut self, sizes: &Sizes) -> Vec<u64> {
        let slots = sizes.spread / NODE_BYTES;
        let mut places: Vec<u64> = (0..slots).map(|n| n * NODE_BYTES / 8).collect();
        for n in (1..places.len()).rev() {
            places.swap(n, (self.next() % (n as u64 + 1)) as usize);
        }
        places.truncate(sizes.nodes as usize);
        places
    }
}

fn copy(sizes: &Sizes) -> anyhow::Result<Rate> {
    let source = Random(1).bytes(sizes.bytes);
    let memory = Memory::new(2 * sizes.bytes, sizes.mapping)?;
    memory.write(0, &source)?;
    let command = Command::Copy {
        dst: VA + sizes.bytes,
        src: VA,
        len: sizes.bytes,
    };
    let mut target = vec![0; source.len()];
    let units = sizes.bytes as f64;
    let host = best(sizes.rounds, units, || {
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
        Ok(())
    })?;
    let tiles = TilePool::default();
    let engine = best(sizes.rounds, units, || {
        memory.run(&command, &tiles).map(drop)
    })?;
    Ok(Rate {
        name: "copy",
        unit: "B",
        host,
        engine,
    })
}

fn sha256(sizes: &Sizes) -> anyhow::Result<Rate> {
    let source = Random(2).bytes(sizes.bytes);
    let memory = Memory::new(sizes.bytes, sizes.mapping)?;
    memory.write(0, &source)?;
    let command = Command::Sha256 {
        src: VA,
        len: sizes.bytes,
    };
    let units = sizes.bytes as f64;
    let mut expected = Vec::new();
    let host = best(sizes.rounds, units, || {
        expected = Sha256::digest(black_box(&source)).to_vec();
        Ok(())
    })?;
    let tiles = TilePool::default();
    let engine = best(sizes.rounds, units, || {
        let progress = memory.run(&command, &tiles)?;
        ensure!(progress.result[..] == expected[..], "digests differ");
        Ok(())
    })?;
    Ok(Rate {
        name: "sha256",
        unit: "B",
        host,
        engine,
    })
}

fn list(sizes: &Sizes) -> anyhow::Result<Rate> {
    let places = Random(3).places(sizes);
    let mut arena = vec![0u64; (sizes.spread / 8) as usize];
    let memory = Memory::new(sizes.spread, sizes.mapping)?;
    // A node is the address of the next one, then its value. Place 0 cannot end the list on
    // the host, where addresses are places, so that places there are one up.
    for (n, &place) in places.iter().enumerate() {
        let next = places.get(n + 1).copied();
        arena[place as usize] = next.map_or(0, |next| next + 1);
        arena[place as usize + 1] = n as u64;
        let pointer = next.map_or(0, |next| VA + next * 8);
        memory.write(place * 8, &pointer.to_le_bytes())?;
        memory.write(place * 8 + 8, &(n as u64).to_le_bytes())?;
    }
    let expected: u64 = (0..sizes.nodes).sum();
    let units = sizes.nodes as f64;
    let host = best(sizes.rounds, units, || {
        let mut sum = 0u64;
        let mut node = places[0] + 1;
        while node != 0 {
            let at = node as usize - 1;
            sum = sum.wrapping_add(arena[at + 1]);
            node = arena[at];
        }
        ensure!(black_box(sum) == expected, "host's sum is wrong");
        Ok(())
    })?;
    let command = Command::ListSum(ListArgs {
        head: VA + places[0] * 8,
        next_offset: 0,
        value_offset: 8,
        max_nodes: sizes.nodes,
    });
    let tiles = TilePool::default();
    let engine = best(sizes.rounds, units, || {
        let progress = memory.run(&command, &tiles)?;
        ensure!(
            progress.result[..8] == expected.to_le_bytes(),
            "sums differ"
        );
        Ok(())
    })?;
    Ok(Rate {
        name: "list",
        unit: "node",
        host,
        engine,
    })
}

fn tree(sizes: &Sizes) -> anyhow::Result<Rate> {
    let mut random = Random(4);
    let places = random.places(sizes);
    let mut arena = vec![0u64; (sizes.spread / 8) as usize];
    // A balanced tree of the keys 0 … nodes − 1; places are one up, as in the list.
    let mut todo = vec![(0, sizes.nodes)];
    let root = |low: u64, high: u64| (low < high).then_some((low + high) / 2);
    while let Some((low, high)) = todo.pop() {
        let Some(key) = root(low, high) else {
            continue;
        };
        let child = |low, high| root(low, high).map_or(0, |key| places[key as usize] + 1);
        let at = places[key as usize] as usize;
        arena[at] = key;
        arena[at + 1] = child(low, key);
        arena[at + 2] = child(key + 1, high);
        todo.push((low, key));
        todo.push((key + 1, high));
    }
    let memory = Memory::new(sizes.spread, sizes.mapping)?;
    let pointer = |place: u64| if place == 0 { 0 } else { VA + (place - 1) * 8 };
    for &place in &places {
        let at = place as usize;
        let words = [arena[at], pointer(arena[at + 1]), pointer(arena[at + 2])];
        for (n, word) in words.iter().enumerate() {
            memory.write(place * 8 + 8 * n as u64, &word.to_le_bytes())?;
        }
    }
    let first = places[(sizes.nodes / 2) as usize] + 1;
    let keys: Vec<u64> = (0..SEARCHES).map(|_| random.next() % sizes.nodes).collect();
    let units = SEARCHES as f64;
    let host = best(sizes.rounds, units, || {
        for &key in &keys {
            let mut node = first;
            while node != 0 {
                let at = node as usize - 1;
                node = match key.cmp(&arena[at]) {
                    std::cmp::Ordering::Less => arena[at + 1],
                    std::cmp::Ordering::Greater => arena[at + 2],
                    std::cmp::Ordering::Equal => break,
                };
            }
            ensure!(node == places[key as usize] + 1, "host's search is wrong");
        }
        Ok(())
    })?;
    let tiles = TilePool::default();
    let engine = best(sizes.rounds, units, || {
        for &key in &keys {
            let progress = memory.run(
                &Command::TreeSearch(TreeArgs {
                    root: pointer(first),
                    key,
                    key_offset: 0,
                    left_offset: 8,
                    right_offset: 16,
                    max_levels: 64,
                }),
                &tiles,
            )?;
            let found = pointer(places[key as usize] + 1);
            ensure!(
                progress.result[..8] == found.to_le_bytes(),
                "searches differ"
            );
        }
        Ok(())
    })?;
    Ok(Rate {
        name: "tree",
        unit: "search",
        host,
        engine,
    })
}

fn gemm<T: Number>(
    name: &'static str,
    command: fn(GemmArgs) -> Command,
    sizes: &Sizes,
) -> anyhow::Result<Rate> {
    let n = sizes.gemm;
    let elements = n * n;
    let mut random = Random(5);
    let mut matrix = || -> Vec<T> {
        (0..elements)
            .map(|_| T::small((random.next() % 16) as u8))
            .collect()
    };
    let (a, b) = (matrix(), matrix());
    let mut c = vec![T::ZERO; elements];
    // Each matrix begins at a page.
    let bytes = ((elements * size_of::<T>()) as u64).next_multiple_of(PAGE_SIZE);
    let memory = Memory::new(3 * bytes, sizes.mapping)?;
    let image =
        |matrix: &[T]| -> Vec<u8> { matrix.iter().flat_map(|&value| value.le_bytes()).collect() };
    memory.write(0, &image(&a))?;
    memory.write(bytes, &image(&b))?;
    let units = 2.0 * (n as f64).powi(3);
    let host = best(sizes.rounds, units, || {
        multiply(n, black_box(&a), &b, &mut c);
        black_box(&mut c);
        Ok(())
    })?;
    let size = n as u64;
    let command = command(GemmArgs {
        m: size,
        n: size,
        k: size,
        a: VA,
        lda: size,
        b: VA + bytes,
        ldb: size,
        c: VA + 2 * bytes,
        ldc: size,
        alpha: T::ONE.low_bits(),
        beta: 0,
        flags: 0,
    });
    let tiles = TilePool::default();
    let engine = best(sizes.rounds, units, || {
        memory.run(&command, &tiles).map(drop)
    })?;
    // The numbers are small integers: the order of additions makes no difference.
    let expected = image(&c);
    let mut result = vec![0; expected.len()];
    memory.read(2 * bytes, &mut result)?;
    ensure!(result == expected, "products differ");
    Ok(Rate {
        name,
        unit: "flop",
        host,
        engine,
    })
}

/// What the two floating-point types have in common here.
trait Number: Element {
    type Bytes: IntoIterator<Item = u8>;

    fn small(number: u8) -> Self;
    fn low_bits(self) -> u64;
    fn le_bytes(self) -> Self::Bytes;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            type Bytes = [u8; size_of::<$type>()];

            fn small(number: u8) -> Self {
                number.into()
            }

            fn low_bits(self) -> u64 {
                self.to_bits().into()
            }

            fn le_bytes(self) -> Self::Bytes {
                self.to_le_bytes()
            }
        }
    };
}

number!(f32);
number!(f64);

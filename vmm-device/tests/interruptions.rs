// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps that somebody waits for: each ends after one bounded piece of work, and the command comes to
//! the same end.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic with a stack trace"
)]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coax_abi::wire::{PAGE_SIZE, STATUS_OK};
use vhost_device_coax::access::Access;
use vhost_device_coax::command::Command;
use vhost_device_coax::dma::{regions, DeviceMemory, Window};
use vhost_device_coax::engine::atomic::FetchAddArgs;
use vhost_device_coax::engine::gemm::{GemmArgs, TilePool};
use vhost_device_coax::engine::list::ListArgs;
use vhost_device_coax::engine::tree::TreeArgs;
use vhost_device_coax::engine::{Operation, Progress, Step};
use vhost_device_coax::mmu::atc::{Atc, Translation};
use vhost_device_coax::mmu::{Mmu, Space};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory};

/// Where virtual addresses begin.
const VA: u64 = 0x7f00_0000_0000;
/// Memory of a test.
const BYTES: u64 = 16 << 20;
/// Nodes of the list and levels of the tree.
const NODES: u64 = 5000;
/// Where matrices lie.
const MATRICES: u64 = 4 << 20;

fn everything() -> Translation {
    Translation {
        vpn: VA / PAGE_SIZE,
        gpa: 0,
        npages: BYTES / PAGE_SIZE,
        access: Access::ATOMIC,
    }
}

/// Memory with a list and a tree that is one, both of nodes of 16 bytes: a word, and the next one.
fn memory() -> GuestMemoryMmap {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BYTES as usize)]).unwrap();
    for n in 0..NODES {
        let next = if n + 1 == NODES { 0 } else { VA + (n + 1) * 16 };
        memory.write_obj(n, GuestAddress(n * 16)).unwrap();
        memory.write_obj(next, GuestAddress(n * 16 + 8)).unwrap();
    }
    memory
}

/// Commands of all kinds, and the most that a step may advance when somebody waits for it.
fn commands() -> Vec<(Command, u64)> {
    let gemm = GemmArgs {
        m: 300,
        n: 200,
        k: 100,
        a: VA + MATRICES,
        lda: 300,
        b: VA + 2 * MATRICES,
        ldb: 100,
        c: VA + 3 * MATRICES - (300 * 200 * 8),
        ldc: 300,
        alpha: 1.0f64.to_bits(),
        beta: 0.5f64.to_bits(),
        flags: 0,
    };
    let piece = 64 << 10;
    vec![
        (
            Command::Copy {
                dst: VA + (8 << 20) + 5,
                src: VA,
                len: 1 << 20,
            },
            piece,
        ),
        (
            Command::Fill {
                dst: VA + (8 << 20) + 3,
                len: 1 << 20,
                pattern: 0x0123_4567_89ab_cdef,
            },
            piece,
        ),
        (
            Command::Sha256 {
                src: VA + 1,
                len: 1 << 20,
            },
            piece,
        ),
        (
            Command::Histogram {
                src: VA,
                len: 1 << 20,
                dst: VA + (8 << 20),
            },
            piece,
        ),
        (
            Command::ListSum(ListArgs {
                head: VA,
                next_offset: 8,
                value_offset: 0,
                max_nodes: u64::MAX,
            }),
            1,
        ),
        (
            Command::TreeSearch(TreeArgs {
                root: VA,
                key: NODES - 1,
                key_offset: 0,
                left_offset: 0,
                right_offset: 8,
                max_levels: u64::MAX,
            }),
            1,
        ),
        (
            Command::FetchAdd(FetchAddArgs {
                va: VA + (8 << 20),
                bytes: 8,
                addend: 3,
                words: 5000,
                stride: 0,
            }),
            1,
        ),
        (Command::Dgemm(gemm), piece),
    ]
}

/// Runs a command to its end, and returns what it achieved, in how many steps, and the most that one
/// of them advanced.
fn run(
    memory: &GuestMemoryMmap,
    atc: &Atc,
    command: &Command,
    waiting: u32,
) -> (Progress, u64, u64) {
    let waiting = AtomicU32::new(waiting);
    let mut operation = Operation::start(command, &TilePool::default()).unwrap();
    let (mut steps, mut most) = (0, 0);
    loop {
        let regions = regions(memory);
        let mut window =
            Window::new(atc, &regions, DeviceMemory::default()).interrupted_by(&waiting, None);
        let before = operation.advance();
        let step = operation.step(&mut window);
        steps += 1;
        most = most.max(operation.advance() - before);
        match step {
            Step::More => {}
            Step::Compute => operation.compute(),
            Step::Done(STATUS_OK) => return (operation.progress(), steps, most),
            other => panic!("{command:?} stopped: {other:?}"),
        }
    }
}

#[test]
fn steps_end_after_one_piece_when_somebody_waits_and_commands_end_the_same() {
    for (command, bound) in commands() {
        let mut ends = Vec::new();
        for waiting in [0, 1] {
            let memory = memory();
            let mut atc = Atc::new(Arc::default());
            atc.fill(everything());
            let (progress, steps, most) = run(&memory, &atc, &command, waiting);
            if waiting > 0 {
                assert!(most <= bound, "{command:?} advances {most} in a step");
            }
            let mut contents = vec![0; BYTES as usize];
            memory.read_slice(&mut contents, GuestAddress(0)).unwrap();
            ends.push((progress, contents, steps));
        }
        assert!(ends[0].0 == ends[1].0, "{command:?} ends otherwise");
        assert!(ends[0].1 == ends[1].1, "{command:?} writes otherwise");
        assert!(ends[0].2 < ends[1].2, "{command:?} is not interrupted");
    }
}

/// Runs the worst commands on some threads while `meanwhile` is done with their space; a processor
/// may contend for the words.
fn under_load(engines: usize, contended: bool, meanwhile: impl FnOnce(&Space)) {
    let memory = memory();
    let mmu = Mmu::new(1);
    let id = mmu.open(0).unwrap();
    let space = mmu.get(id).unwrap();
    space.fill(&[everything()]);
    let stop = AtomicBool::new(false);
    let word = memory.get_slice(GuestAddress(8 << 20), 8).unwrap();
    let word = word.get_atomic_ref::<AtomicU64>(0).unwrap();
    std::thread::scope(|scope| {
        // A processor that contends for the word.
        scope.spawn(|| {
            while contended && !stop.load(Ordering::Relaxed) {
                word.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..engines {
            scope.spawn(|| {
                let tiles = TilePool::default();
                for (command, _) in commands().iter().cycle() {
                    let mut operation = Operation::start(command, &tiles).unwrap();
                    loop {
                        let regions = regions(&memory);
                        let inside = space.enter();
                        let mut window = Window::new(&inside, &regions, DeviceMemory::default())
                            .interrupted_by(inside.waiting(), None);
                        let step = operation.step(&mut window);
                        drop(inside);
                        match step {
                            Step::More => {}
                            Step::Compute => operation.compute(),
                            _ => break,
                        }
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            });
        }
        meanwhile(&space);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
#[ignore = "measures: wants a machine of its own, with a processor for each thread"]
fn time_of_an_invalidation_under_the_worst_commands() {
    for (engines, contended) in [(1, false), (1, true), (2, true)] {
        println!("{engines} engines, contended: {contended}");
        measure(engines, contended);
    }
}

#[expect(
    clippy::print_stdout,
    reason = "it is part of a test, whose output libtest keeps"
)]
fn measure(engines: usize, contended: bool) {
    let mut times: Vec<Duration> = Vec::new();
    under_load(engines, contended, |space| {
        // A page that no command uses.
        let spare = VA / PAGE_SIZE + BYTES / PAGE_SIZE;
        for _ in 0..10_000 {
            let begin = Instant::now();
            space.invalidate(spare, 1);
            times.push(begin.elapsed());
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    times.sort();
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let at = ((times.len() as f64 * part) as usize).min(times.len() - 1);
        println!("{name}: {:?}", times[at]);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ranges of many windows, which are on their way at the same time: not a byte is lost, whoever
//! works on the range meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{ensure, Result};
use coax::PageRange;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "large_ranges",
    cases: &[
        case!(
            odd_ranges_of_small_pages_keep_every_byte,
            "64 MiB and a bit, there and back"
        )
        .limit(LIMIT),
        case!(
            odd_ranges_of_huge_pages_keep_every_byte,
            "ends in the middle of huge pages"
        )
        .limit(LIMIT),
        case!(
            both_directions_at_once_keep_every_byte,
            "one thread moves there, one back, one reads and writes"
        )
        .limit(LIMIT),
        case!(
            threads_that_move_the_same_range_keep_every_byte,
            "four threads, each with its own context"
        )
        .limit(LIMIT),
        case!(
            small_pages_move_while_others_change_the_mappings,
            "16 MiB there and back, and a thread that waits for the mmap lock to map and unmap"
        )
        .modes(&Mode::MOVING)
        .limit(Duration::from_secs(60)),
    ],
};

/// These move hundreds of MiB, under TCG on a busy host.
const LIMIT: Duration = Duration::from_secs(180);
const LEN: usize = (64 << 20) + 2 * HUGE;
/// The range moved begins and ends so many pages inside.
const HEAD: usize = 3;
const TAIL: usize = 5;

/// All but a few pages of the mapping.
fn odd_part(memory: &Mapping) -> PageRange {
    let len = memory.len() - (HEAD + TAIL) * PAGE;
    PageRange::new(memory.at(HEAD * PAGE), len as u64)
}

fn there_and_back(memory: &Mapping, seed: u64) -> CaseResult {
    let device = Device::open()?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    let pages = memory.pages() - (HEAD + TAIL) as u64;
    for round in 0..2 {
        let migrated = device.prefetch(odd_part(memory))?;
        let all = migrated.moved + migrated.already;
        ensure!((all, migrated.left) == (pages, 0), "{round}: {migrated:?}");
        // The device's look moves the rest as well.
        ensure!(
            device.digest(memory)? == pattern::sha256(&content),
            "Wrong digest in round {round}"
        );
        let back = device.evict(odd_part(memory))?;
        ensure!((back.moved, back.left) == (pages, 0), "{round}: {back:?}");
    }
    same("memory", &memory.to_vec(), &content)
}

fn odd_ranges_of_small_pages_keep_every_byte() -> CaseResult {
    there_and_back(&Mapping::small_pages(LEN)?, 241)
}

fn odd_ranges_of_huge_pages_keep_every_byte() -> CaseResult {
    there_and_back(&Mapping::huge(LEN)?, 242)
}

/// Ends the count of threads at work when the thread ends, however that is.
struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Reads pages in an order that looks random, checks all of each, and counts up a word of it,
/// until no other thread is at work; returns how often each page was counted up.
fn touch(memory: &Mapping, content: &[u8], working: &AtomicUsize) -> Result<Vec<u64>> {
    let pages = memory.len() / PAGE;
    let mut counts = vec![0; pages];
    let mut at: usize = 1;
    let mut seen = vec![0; PAGE];
    while working.load(Ordering::Acquire) > 0 {
        at = at
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let page = (at >> 33) % pages;
        memory.read(page * PAGE, &mut seen);
        same("page", &seen[8..], &content[page * PAGE + 8..][..PAGE - 8])?;
        let count = memory.load(page * PAGE);
        ensure!(count == counts[page], "Page {page}: {count}");
        counts[page] += 1;
        memory.store(page * PAGE, counts[page]);
    }
    Ok(counts)
}

/// Runs movers on the mapping while this thread touches it, and checks every byte at the end.
fn while_moving(seed: u64, movers: &[fn(&Device, PageRange) -> Result<u64>]) -> CaseResult {
    const ROUNDS: usize = 6;
    let memory = Mapping::huge(LEN)?;
    let mut content = pattern::bytes(seed, LEN);
    for page in 0..LEN / PAGE {
        content[page * PAGE..][..8].fill(0);
    }
    memory.write(0, &content);
    let working = AtomicUsize::new(movers.len());
    let counts = std::thread::scope(|scope| -> Result<Vec<u64>> {
        let threads: Vec<_> = movers
            .iter()
            .map(|mover| {
                let (memory, working) = (&memory, &working);
                scope.spawn(move || -> Result<u64> {
                    let _working = Working(working);
                    let device = Device::open()?;
                    let mut moved = 0;
                    for _ in 0..ROUNDS {
                        moved += mover(&device, odd_part(memory))?;
                    }
                    Ok(moved)
                })
            })
            .collect();
        let counts = touch(&memory, &content, &working);
        let mut moved = 0;
        for thread in threads {
            moved += thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        ensure!(moved > 0, "No page moved: the case showed nothing");
        counts
    })?;
    for (page, count) in counts.into_iter().enumerate() {
        content[page * PAGE..][..8].copy_from_slice(&count.to_ne_bytes());
    }
    ensure!(
        Device::open()?.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest at the end"
    );
    same("memory", &memory.to_vec(), &content)
}

fn there(device: &Device, range: PageRange) -> Result<u64> {
    Ok(device.prefetch(range)?.moved)
}

fn back(device: &Device, range: PageRange) -> Result<u64> {
    Ok(device.evict(range)?.moved)
}

fn both_directions_at_once_keep_every_byte() -> CaseResult {
    while_moving(243, &[there, back])
}

fn threads_that_move_the_same_range_keep_every_byte() -> CaseResult {
    while_moving(244, &[there, there, back, back])
}

/// The driver moves small pages by several threads, which leave the work to the caller when somebody
/// waits to change the mappings.
fn small_pages_move_while_others_change_the_mappings() -> CaseResult {
    const BYTES: usize = 8 * HUGE;
    const ROUNDS: usize = 6;
    let memory = Mapping::small_pages(BYTES)?;
    let content = pattern::bytes(247, BYTES);
    memory.write(0, &content);
    let (working, changes) = (AtomicUsize::new(1), AtomicUsize::new(0));
    std::thread::scope(|scope| -> CaseResult {
        let changing = scope.spawn(|| -> CaseResult {
            while working.load(Ordering::Acquire) > 0 {
                drop(Mapping::anonymous(HUGE)?);
                changes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let moving = (|| -> CaseResult {
            let _working = Working(&working);
            let device = Device::open()?;
            let range = range_of(&memory);
            for round in 0..ROUNDS {
                let there = device.prefetch(range)?;
                let counted = (there.moved, there.already, there.left);
                ensure!(counted == (memory.pages(), 0, 0), "{round}: {there:?}");
                let back = device.evict(range)?;
                ensure!(
                    (back.moved, back.left) == (memory.pages(), 0),
                    "{round}: {back:?}"
                );
            }
            Ok(())
        })();
        let changed = changing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        moving.and(changed)
    })?;
    let changes = changes.into_inner();
    ensure!(
        changes > ROUNDS,
        "The mappings changed {changes} times only"
    );
    same("memory", &memory.to_vec(), &content)
}

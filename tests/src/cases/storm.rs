// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! CPUs, device and migration on the same pages at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use coax::{Command, PageRange};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::fork;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "storm",
    cases: &[
        case!(
            nobody_loses_a_write_while_pages_move,
            "CPU words and device words on shared pages"
        )
        .limit(LIMIT),
        case!(
            readers_agree_while_pages_move,
            "hashes of data that nobody changes"
        )
        .limit(LIMIT),
        case!(
            movers_of_the_same_pages_lose_none,
            "two that move pages to and fro, one that empties the device, a CPU that looks at them"
        )
        .modes(&Mode::MOVING)
        .limit(LIMIT),
        case!(
            huge_pages_split_and_move_under_use,
            "parts of huge pages moved to and fro"
        )
        .limit(LIMIT),
        case!(
            mappings_come_and_go_under_commands,
            "processes that map, use and unmap"
        )
        .limit(LIMIT),
        case!(
            forks_and_exits_under_migration,
            "children come and go, pages on the move"
        )
        .limit(LIMIT),
    ],
};

/// These do tens of thousands of page moves, under TCG on a busy host.
const LIMIT: Duration = Duration::from_secs(180);
const PAGES: usize = 64;
const LEN: usize = PAGES * PAGE;

/// Sets the flag when the threads that go on until then should stop, also if the scope fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work` while another thread moves the pages of the mapping to and fro.
fn while_pages_move(memory: &Mapping, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| move_to_and_fro(memory, &stop));
        let result = {
            let _stop = StopOnDrop(&stop);
            work()
        };
        let moved = mover
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result?;
        ensure!(moved > 0, "No page moved: the case showed nothing");
        Ok(())
    })
}

/// Moves odd-sized parts of the mapping until told to stop, at least once each way.
fn move_to_and_fro(memory: &Mapping, stop: &AtomicBool) -> Result<u64> {
    let device = Device::open()?;
    let pages = memory.len() / PAGE;
    let mut moved = 0;
    for round in 0.. {
        let first = round * 7 % pages;
        let count = (1 + round * 13 % pages).min(pages - first);
        let range = PageRange::new(memory.at(first * PAGE), (count * PAGE) as u64);
        moved += device.prefetch(range)?.moved;
        let first = round * 11 % pages;
        let count = (1 + round * 5 % pages).min(pages - first);
        let range = PageRange::new(memory.at(first * PAGE), (count * PAGE) as u64);
        moved += device.evict(range)?.moved;
        if round > 0 && stop.load(Ordering::Acquire) {
            break;
        }
    }
    Ok(moved)
}

fn nobody_loses_a_write_while_pages_move() -> CaseResult {
    covers!("coax.drv.15", "coax.drv.16");
    // Each page has a word for each of two CPU threads and one for the device, so that all
    // write to the same pages and none to another's word.
    const ROUNDS: u64 = 30;
    let memory = Mapping::anonymous(LEN)?;
    let counter = |thread: usize, page: usize| page * PAGE + thread * 512;
    while_pages_move(&memory, || {
        std::thread::scope(|scope| {
            let cpus = [0, 1].map(|thread| {
                let memory = &memory;
                scope.spawn(move || -> Result<()> {
                    for round in 0..ROUNDS {
                        for page in 0..PAGES {
                            let at = counter(thread, page);
                            let got = memory.load(at);
                            ensure!(
                                got == round,
                                "Thread {thread}, page {page}: {got}, not {round}"
                            );
                            memory.store(at, round + 1);
                        }
                    }
                    Ok(())
                })
            });
            let device = Device::open()?;
            for round in 0..ROUNDS {
                let ids = (0..PAGES)
                    .map(|page| {
                        device.start(Command::fill(memory.at(counter(2, page)), 8, round + 1))
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                for id in ids {
                    device.finish(id)?;
                }
            }
            for cpu in cpus {
                cpu.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(())
        })
    })?;
    for page in 0..PAGES {
        for thread in 0..3 {
            let got = memory.load(counter(thread, page));
            ensure!(
                got == ROUNDS,
                "Word {thread} of page {page} is {got} in the end"
            );
        }
    }
    Ok(())
}

fn readers_agree_while_pages_move() -> CaseResult {
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(111, LEN);
    memory.write(0, &content);
    let expected = pattern::sha256(&content);
    while_pages_move(&memory, || {
        let device = Device::open()?;
        for round in 0..40 {
            ensure!(
                device.digest(&memory)? == expected,
                "The device's view in round {round}"
            );
            same("the CPU's view", &memory.to_vec(), &content)?;
        }
        Ok(())
    })
}

fn movers_of_the_same_pages_lose_none() -> CaseResult {
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(114, LEN);
    memory.write(0, &content);
    let device = Device::open()?;
    let empty_and_look = || {
        for round in 0..20 {
            device
                .reset()
                .with_context(|| format!("Reset, round {round}"))?;
            same("memory", &memory.to_vec(), &content)?;
        }
        Ok(())
    };
    while_pages_move(&memory, || while_pages_move(&memory, empty_and_look))?;
    same("memory", &memory.to_vec(), &content)
}

fn huge_pages_split_and_move_under_use() -> CaseResult {
    let memory = Mapping::huge(2 * HUGE)?;
    let mut content = pattern::bytes(112, 2 * HUGE);
    memory.write(0, &content);
    while_pages_move(&memory, || {
        let device = Device::open()?;
        for round in 0..12 {
            let part = round * 37 * PAGE..(round * 37 + 5) * PAGE;
            device.fill(&memory, part.clone(), 0)?;
            content[part].fill(0);
            ensure!(
                device.digest(&memory)? == pattern::sha256(&content),
                "Round {round}"
            );
        }
        Ok(())
    })?;
    same("memory", &memory.to_vec(), &content)
}

fn mappings_come_and_go_under_commands() -> CaseResult {
    covers!("coax.drv.15", "coax.drv.16");
    // Processes, since threads would get each other's addresses back from the kernel while
    // commands on them are still running.
    let worker = |worker: u64| -> CaseResult {
        let device = Device::open()?;
        for round in 0..60 {
            let memory = Mapping::anonymous(LEN)?;
            let pattern = worker << 32 | round;
            let command = device.start(Command::fill(memory.address(), LEN as u64, pattern))?;
            if round % 3 == 0 {
                // Away under the command: it faults or was done.
                drop(memory);
                if let Err(error) = device.finish(command) {
                    ensure!(error.fault_address().is_some(), "Round {round}: {error}");
                }
            } else {
                device.finish(command)?;
                let expected = pattern.to_le_bytes().repeat(LEN / 8);
                same("memory", &memory.to_vec(), &expected)?;
            }
        }
        Ok(())
    };
    let workers = [1, 2, 3].map(|number| fork(|| worker(number)));
    workers
        .into_iter()
        .try_for_each(|worker| worker?.succeeds())
}

fn forks_and_exits_under_migration() -> CaseResult {
    // The movers are processes, since a process with threads must not fork here.
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(113, LEN);
    memory.write(0, &content);
    let device = Device::open()?;
    for round in 0..40u64 {
        device.prefetch(range_of(&memory))?;
        let child = fork(|| {
            let own = Device::open()?;
            own.fill(&memory, 0..LEN / 2, round)?;
            own.prefetch(range_of(&memory))?;
            let mut expected = content.clone();
            expected[..LEN / 2].copy_from_slice(&round.to_le_bytes().repeat(LEN / 16));
            ensure!(
                own.digest(&memory)? == pattern::sha256(&expected),
                "The child's view"
            );
            Ok(())
        })?;
        device.evict(range_of(&memory))?;
        ensure!(
            device.digest(&memory)? == pattern::sha256(&content),
            "Round {round}"
        );
        child.succeeds()?;
    }
    same("memory", &memory.to_vec(), &content)
}

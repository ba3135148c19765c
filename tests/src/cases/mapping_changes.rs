// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mappings that change under a running command: the command ends with the address, or goes on
//! with what is there now, and never works on what was there before.
//!
//! A walk around a ring has no end of its own, so a device that kept a stale translation shows:
//! the walk is still running when the limit comes.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{ensure, Context as _, Result};
use coax::{Access, Command, Error};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::counters;
use crate::guest::device::{faulted, range_of, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, NO_ACCESS, PAGE, READ_ONLY, READ_WRITE};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "mapping_changes",
    cases: &[
        case!(
            munmap_under_a_walk_ends_it_with_the_address,
            "munmap of one page"
        ),
        case!(munmap_of_all_ends_a_walk, "munmap of the whole ring"),
        case!(
            mprotect_none_under_a_walk_ends_it_with_the_address,
            "PROT_NONE"
        ),
        case!(
            mremap_under_a_walk_ends_it_with_the_address,
            "mremap to elsewhere"
        ),
        case!(
            content_moves_with_mremap,
            "pages on the device, moved in the address space"
        ),
        case!(
            dontneed_under_a_walk_shows_zeros,
            "MADV_DONTNEED: the next pointer becomes null"
        ),
        case!(
            migration_under_a_walk_is_not_noticed,
            "prefetch and evict of what is in use"
        ),
        case!(
            mprotect_read_only_under_writes_is_exact,
            "a writer loses the right to write"
        ),
        case!(munmap_under_writes_is_exact, "a writer loses the memory"),
        case!(
            memory_mapped_again_is_the_new_memory,
            "another mapping at the same address"
        ),
        case!(
            changes_elsewhere_do_not_hold_up_faults,
            "8 threads drop and touch memory that the device does not use"
        ),
    ],
};

const PAGES: usize = 64;
const LEN: usize = PAGES * PAGE;
/// The page that a case takes away.
const GONE: usize = 40;
const GONE_BYTES: std::ops::Range<usize> = GONE * PAGE..(GONE + 1) * PAGE;

/// Takes something away from under a walk and demands that it faults there.
fn walk_faults(change: impl FnOnce(Mapping) -> Result<Option<Mapping>>) -> CaseResult {
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    let address = ring.at(GONE * PAGE);
    let kept = change(ring)?;
    faulted(device.finish(walk), address, Access::Read)?;
    // The context lives on.
    device.run(Command::nop())?;
    drop(kept);
    Ok(())
}

fn munmap_under_a_walk_ends_it_with_the_address() -> CaseResult {
    walk_faults(|ring| ring.unmap(GONE_BYTES).map(|()| Some(ring)))
}

fn munmap_of_all_ends_a_walk() -> CaseResult {
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    let range = ring.address()..ring.address() + LEN as u64;
    drop(ring);
    match device.finish(walk) {
        Err(error) if error.fault_address().is_some_and(|at| range.contains(&at)) => Ok(()),
        other => anyhow::bail!("Expected a fault in the ring, got {other:?}"),
    }
}

fn mprotect_none_under_a_walk_ends_it_with_the_address() -> CaseResult {
    walk_faults(|ring| ring.protect(GONE_BYTES, NO_ACCESS).map(|()| Some(ring)))
}

fn mremap_under_a_walk_ends_it_with_the_address() -> CaseResult {
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    let old = ring.address()..ring.address() + LEN as u64;
    let moved = ring.relocate()?;
    match device.finish(walk) {
        Err(error) if error.fault_address().is_some_and(|at| old.contains(&at)) => {}
        other => anyhow::bail!("Expected a fault in the old place, got {other:?}"),
    }
    // At the new address it is a list again once its pointers are.
    list::lay(&moved, 0);
    let done = device.run(list::walk(&moved, PAGES as u64))?;
    ensure!(done.word(0) == list::sum(PAGES as u64), "{done:?}");
    Ok(())
}

fn content_moves_with_mremap() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(71, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    let old = memory.address();
    let memory = memory.relocate()?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest at the new address"
    );
    same("memory at the new address", &memory.to_vec(), &content)?;
    faulted(device.run(Command::sha256(old, 8)), old, Access::Read)?;
    Ok(())
}

fn dontneed_under_a_walk_shows_zeros() -> CaseResult {
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    ring.advise(GONE_BYTES, libc::MADV_DONTNEED)?;
    // The page's node has the value 0 and no successor.
    let done = device.finish(walk)?;
    ensure!(done.word(1) % PAGES as u64 == GONE as u64 + 1, "{done:?}");
    Ok(())
}

fn migration_under_a_walk_is_not_noticed() -> CaseResult {
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    // Enough rounds that each direction meets the device at work.
    for _ in 0..20 {
        device.evict(range_of(&ring))?;
        device.prefetch(range_of(&ring))?;
    }
    ring.store(list::NEXT, 0);
    let done = device.finish(walk)?;
    ensure!(done.word(1) % PAGES as u64 == 1, "{done:?}");
    // Whole rounds and the first node once more: no value was read wrong or left out.
    let rounds = done.word(1) / PAGES as u64;
    let expected = rounds.wrapping_mul(list::sum(PAGES as u64)).wrapping_add(1);
    ensure!(
        done.word(0) == expected,
        "{done:?}, expected the sum {expected}"
    );
    Ok(())
}

fn mprotect_read_only_under_writes_is_exact() -> CaseResult {
    writer_is_exact(|memory, at| {
        memory.protect(at..at + PAGE, READ_ONLY)?;
        Ok(true)
    })
}

fn munmap_under_writes_is_exact() -> CaseResult {
    writer_is_exact(|memory, at| {
        memory.unmap(at..at + PAGE)?;
        Ok(false)
    })
}

/// Changes one page under a long fill, at several places; the fill is either done or stopped
/// there, and what it says it did is what is there. `change` says whether the page can still
/// be read.
fn writer_is_exact(change: fn(&Mapping, usize) -> Result<bool>) -> CaseResult {
    // Long enough that the change often comes while the device is before the page.
    const LONG: usize = 16 << 20;
    let device = Device::open()?;
    for (round, page) in [4095, 4000, 3000, 2000, 1000, 100, 1]
        .into_iter()
        .enumerate()
    {
        let memory = Mapping::anonymous(LONG)?;
        memory.protect(0..LONG, READ_WRITE)?;
        let pattern = 0x0101_0101_0101_0101 * (round as u64 + 1);
        let write = device.start(Command::fill(memory.address(), LONG as u64, pattern))?;
        let at = page * PAGE;
        let readable = change(&memory, at)?;
        let done = match device.finish(write) {
            Ok(done) => {
                ensure!(done.bytes_done == LONG as u64, "{done:?}");
                LONG
            }
            Err(Error::Command(failure)) => {
                let failure = faulted(
                    Err(failure.into()),
                    memory.address() + at as u64,
                    Access::Write,
                )?;
                ensure!(failure.bytes_done == at as u64, "Page {page}: {failure:?}");
                at
            }
            Err(error) => return Err(error.into()),
        };
        let mut page_bytes = [0; PAGE];
        for start in (0..LONG)
            .step_by(PAGE)
            .filter(|start| readable || *start != at)
        {
            memory.read(start, &mut page_bytes);
            let byte = if start < done { round as u8 + 1 } else { 0 };
            same("page", &page_bytes, &[byte; PAGE])?;
        }
    }
    Ok(())
}

fn memory_mapped_again_is_the_new_memory() -> CaseResult {
    let device = Device::open()?;
    let mut address = 0;
    for round in 1..20u8 {
        let memory = if address == 0 {
            Mapping::anonymous(LEN)?
        } else {
            Mapping::anonymous_at(address, LEN)?
        };
        address = usize::try_from(memory.address())?;
        memory.fill(0..LEN, round);
        let expected = pattern::sha256(&[round; LEN]);
        ensure!(
            device.digest(&memory)? == expected,
            "Round {round}: old content"
        );
    }
    Ok(())
}

fn changes_elsewhere_do_not_hold_up_faults() -> CaseResult {
    const THREADS: usize = 8;
    const FAULTS: usize = 256;
    let device = Device::open()?;
    let memory = Mapping::small_pages(16 * FAULTS * PAGE)?;
    let elsewhere = Mapping::small_pages(THREADS * LEN)?;
    let done = AtomicBool::new(false);
    let before = (
        counters::of_driver("page_requests")?,
        counters::of_driver("retries")?,
    );
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (elsewhere, done) = (&elsewhere, &done);
                scope.spawn(move || -> Result<()> {
                    let own = thread * LEN..(thread + 1) * LEN;
                    while !done.load(Ordering::Relaxed) {
                        elsewhere.fill(own.clone(), 1);
                        elsewhere
                            .advise(own.clone(), libc::MADV_DONTNEED)
                            .context("MADV_DONTNEED")?;
                    }
                    Ok(())
                })
            })
            .collect();
        // 64 KiB apart, which is what moves around a fault.
        let faulting = (0..FAULTS).try_for_each(|n| {
            let at = 16 * n * PAGE;
            device.fill(&memory, at..at + PAGE, n as u64).map(|_| ())
        });
        done.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a thread that drops memory")?;
        }
        Ok(faulting?)
    })?;
    let after = (
        counters::of_driver("page_requests")?,
        counters::of_driver("retries")?,
    );
    let (faults, retries) = (after.0 - before.0, after.1 - before.1);
    ensure!(faults >= FAULTS as u64, "{faults} faults");
    // A tenth, for what the kernel changes by itself.
    ensure!(
        retries <= faults / 10,
        "{retries} looks at the mappings were in vain in {faults} faults"
    );
    Ok(())
}

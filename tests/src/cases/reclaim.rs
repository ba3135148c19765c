// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The system's own memory management goes on as if nothing was different.

use std::fs;
use std::process::Command as Program;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{bail, ensure, Context as _, Result};
use coax::Command;
use coax_program::outln;

use crate::case;
use crate::case::{CaseResult, Skip, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pagemap::{self, Place};
use crate::guest::pattern::{self, same};
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "reclaim",
    cases: &[
        case!(
            swapped_out_pages_come_back_for_the_device,
            "swap on zram, then a device read"
        ),
        case!(
            swapped_out_pages_are_written_by_the_device,
            "swap on zram, then a device write"
        ),
        case!(
            page_out_of_device_pages_loses_nothing,
            "MADV_PAGEOUT with pages on the device"
        ),
        case!(
            faults_while_pages_are_swapped_out_keep_every_byte,
            "a thread that pages out what the device pulls over"
        ),
        case!(
            lazily_freed_pages_are_old_or_zero,
            "MADV_FREE, then a device read"
        ),
        case!(
            dropped_pages_are_zero,
            "MADV_DONTNEED with pages on the device"
        ),
        case!(merged_pages_are_copied_on_a_device_write, "KSM"),
        case!(
            collapse_to_a_huge_page_is_not_noticed,
            "MADV_COLLAPSE with pages on the device"
        ),
        case!(
            compaction_under_a_device_is_not_noticed,
            "the system moves pages itself"
        ),
    ],
};

const PAGES: usize = 256;
const LEN: usize = PAGES * PAGE;
const PATTERN: u64 = 0x2121_2323_2525_2727;

/// Puts a swap device in place unless there is one.
fn with_swap() -> Result<()> {
    let swaps = fs::read_to_string("/proc/swaps").context("/proc/swaps")?;
    if swaps.lines().count() > 1 {
        return Ok(());
    }
    if fs::metadata("/dev/zram0").is_err() {
        return Err(Skip("the kernel has no zram".into()).into());
    }
    // 64 MiB: many times what the cases page out.
    fs::write("/sys/block/zram0/disksize", "64M").context("Size of zram0")?;
    for tool in ["mkswap", "swapon"] {
        let output = Program::new("busybox")
            .args([tool, "/dev/zram0"])
            .output()
            .context("busybox")?;
        ensure!(
            output.status.success(),
            "{tool}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Memory with known content, all of it swapped out.
fn swapped_out(device: &Device, seed: u64) -> Result<(Mapping, Vec<u8>)> {
    with_swap()?;
    let info = device.info()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    wait::until("All pages being swapped out", || {
        memory
            .advise(0..LEN, libc::MADV_PAGEOUT)
            .context("MADV_PAGEOUT")?;
        Ok(pagemap::count(&info, &memory, Place::Swapped)? == PAGES as u64)
    })?;
    let pages = device.where_is(&memory)?;
    ensure!(
        pages.none == PAGES as u64,
        "Swapped out, but the driver says {pages:?}"
    );
    Ok((memory, content))
}

fn swapped_out_pages_come_back_for_the_device() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = swapped_out(&device, 121)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)
}

fn swapped_out_pages_are_written_by_the_device() -> CaseResult {
    let device = Device::open()?;
    let (memory, mut content) = swapped_out(&device, 122)?;
    let part = 10 * PAGE + 40..200 * PAGE;
    let bytes = PATTERN.to_le_bytes().into_iter().cycle();
    device.fill(&memory, part.clone(), PATTERN)?;
    content[part.clone()]
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = from);
    same("memory", &memory.to_vec(), &content)
}

fn page_out_of_device_pages_loses_nothing() -> CaseResult {
    with_swap()?;
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(123, LEN);
    memory.write(0, &content);
    for _ in 0..4 {
        device.take(&memory)?;
        memory
            .advise(0..LEN, libc::MADV_PAGEOUT)
            .context("MADV_PAGEOUT")?;
        ensure!(
            device.digest(&memory)? == pattern::sha256(&content),
            "Wrong digest"
        );
        same("memory", &memory.to_vec(), &content)?;
    }
    Ok(())
}

fn faults_while_pages_are_swapped_out_keep_every_byte() -> CaseResult {
    const ROUNDS: u64 = 6;
    const APART: usize = 8;
    with_swap()?;
    let device = Device::open_moving()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0);
    let before = device.stats()?.to_device_fault;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let paging = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                memory
                    .advise(0..LEN, libc::MADV_PAGEOUT)
                    .context("MADV_PAGEOUT")?;
            }
            Ok(())
        });
        let work = || -> Result<()> {
            for round in 1..=ROUNDS {
                // A word of each page for the CPU, the next of some for the device.
                for page in 0..PAGES {
                    memory.store(page * PAGE, round);
                }
                for page in (0..PAGES).step_by(APART) {
                    device.fill(&memory, page * PAGE + 8..page * PAGE + 16, round)?;
                }
                for page in 0..PAGES {
                    let words = (memory.load(page * PAGE), memory.load(page * PAGE + 8));
                    let by_device = if page % APART == 0 { round } else { 0 };
                    ensure!(
                        words == (round, by_device),
                        "Page {page}, round {round}: {words:?}"
                    );
                }
            }
            Ok(())
        };
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let paged = paging.join().expect("the thread that pages out");
        worked?;
        paged
    })?;
    let moved = device.stats()?.to_device_fault - before;
    ensure!(moved > 0, "No fault moved a page");
    Ok(())
}

fn lazily_freed_pages_are_old_or_zero() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0x66);
    device.take(&memory)?;
    memory
        .advise(0..LEN, libc::MADV_FREE)
        .context("MADV_FREE")?;
    device.digest(&memory)?;
    for page in memory.to_vec().chunks_exact(PAGE) {
        let byte = page[0];
        ensure!(byte == 0 || byte == 0x66, "A freed page holds {byte:#x}");
        same("freed page", page, &[byte; PAGE])?;
    }
    // A write makes it the program's again.
    device.fill(&memory, 0..LEN, PATTERN)?;
    same(
        "memory",
        &memory.to_vec(),
        &PATTERN.to_le_bytes().repeat(LEN / 8),
    )
}

fn dropped_pages_are_zero() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0x55);
    device.take(&memory)?;
    let free = device.info()?.free_pages;
    memory
        .advise(0..LEN, libc::MADV_DONTNEED)
        .context("MADV_DONTNEED")?;
    wait::until("Dropped device pages being free", || {
        Ok(device.info()?.free_pages >= free + PAGES as u64)
    })?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&[0; LEN]),
        "The device sees old data"
    );
    same("memory", &memory.to_vec(), &[0; LEN])
}

fn merged_pages_are_copied_on_a_device_write() -> CaseResult {
    const KSM: &str = "/sys/kernel/mm/ksm";
    if fs::metadata(KSM).is_err() {
        return Err(Skip("the kernel has no KSM".into()).into());
    }
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    // Equal pages, so that all merge.
    memory.fill(0..LEN, 0x44);
    memory
        .advise(0..LEN, libc::MADV_MERGEABLE)
        .context("MADV_MERGEABLE")?;
    fs::write(format!("{KSM}/sleep_millisecs"), "0").context("KSM's pause")?;
    fs::write(format!("{KSM}/pages_to_scan"), "10000").context("KSM's speed")?;
    fs::write(format!("{KSM}/run"), "1").context("Starting KSM")?;
    let merged = wait::until("Pages being merged", || {
        let sharing = fs::read_to_string(format!("{KSM}/pages_sharing")).context("KSM")?;
        Ok(sharing.trim().parse::<usize>()? >= PAGES / 2)
    });
    fs::write(format!("{KSM}/run"), "0").context("Stopping KSM")?;
    merged?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&[0x44; LEN]),
        "Wrong digest"
    );
    device.fill(&memory, 9 * PAGE..10 * PAGE, PATTERN)?;
    let mut expected = vec![0x44; LEN];
    expected[9 * PAGE..10 * PAGE].copy_from_slice(&PATTERN.to_le_bytes().repeat(PAGE / 8));
    same("memory", &memory.to_vec(), &expected)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&expected),
        "Wrong digest after"
    );
    // Apart again before the next case.
    fs::write(format!("{KSM}/run"), "2").context("Unmerging")
}

fn collapse_to_a_huge_page_is_not_noticed() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::huge(HUGE)?;
    memory
        .advise(0..HUGE, libc::MADV_NOHUGEPAGE)
        .context("MADV_NOHUGEPAGE")?;
    let content = pattern::bytes(124, HUGE);
    memory.write(0, &content);
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    memory
        .advise(0..HUGE, libc::MADV_HUGEPAGE)
        .context("MADV_HUGEPAGE")?;
    // Either it collapses or it refuses since pages are on the device; both are right.
    if let Err(error) = memory.advise(0..HUGE, libc::MADV_COLLAPSE) {
        outln!("MADV_COLLAPSE with device pages: {error}")?;
    }
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest after"
    );
    device.evict(range_of(&memory))?;
    if let Err(error) = memory.advise(0..HUGE, libc::MADV_COLLAPSE) {
        outln!("MADV_COLLAPSE in system memory: {error}")?;
    }
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest at the end"
    );
    same("memory", &memory.to_vec(), &content)
}

fn compaction_under_a_device_is_not_noticed() -> CaseResult {
    const COMPACT: &str = "/proc/sys/vm/compact_memory";
    if fs::metadata(COMPACT).is_err() {
        return Err(Skip("the kernel cannot compact memory".into()).into());
    }
    let device = Device::open()?;
    // In place, so that the device works on pages that compaction may move.
    device.set_policy(coax::Policy::Never, None)?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(125, LEN);
    memory.write(0, &content);
    for round in 0..4 {
        let id = device.start(Command::sha256(memory.address(), LEN as u64))?;
        fs::write(COMPACT, "1").context(COMPACT)?;
        if device.finish(id)?.result != pattern::sha256(&content) {
            bail!("Wrong digest in round {round}");
        }
    }
    same("memory", &memory.to_vec(), &content)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Huge pages and device memory without room for 2 MiB in one piece: they move in parts or stay,
//! and nothing is lost.

use std::time::Duration;

use anyhow::{ensure, Result};
use coax::PageRange;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::smaps;
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "large_capacity",
    cases: &[
        case!(
            in_fragmented_memory_a_huge_page_is_split,
            "room for its pages, but not in one piece"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            of_a_huge_page_that_does_not_fit_part_may_move,
            "room for fewer pages than it has"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            beside_full_memory_a_huge_page_stays_whole,
            "no room at all: the device uses it in place"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            beside_full_memory_untouched_memory_can_be_written,
            "no room for what the device would make"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            huge_pages_larger_than_device_memory_are_written,
            "more than fits, twice"
        )
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            a_huge_page_comes_whole_once_there_is_room,
            "fragments that came together again"
        )
        .in_vm(Vm::SmallDevice)
        .modes(&[Mode::Private])
        .limit(LIMIT),
    ],
};

/// These fill the device page by page, under TCG on a busy host.
const LIMIT: Duration = Duration::from_secs(180);
/// Pages of a huge page.
const PAGES: u64 = (HUGE / PAGE) as u64;
/// Pages that are free, or in use, in a row where device memory is fragmented.
const FRAGMENT: usize = 64;
const PATTERN: u64 = 0x6e6f_726f_6f6d_2121;

/// Small pages that fill the device, each with its number in it.
fn full(device: &Device) -> Result<Mapping> {
    wait::until("Device memory being free", || {
        let info = device.info()?;
        Ok(info.free_pages == info.device_pages)
    })?;
    let pages = usize::try_from(device.info()?.device_pages)?;
    let memory = Mapping::small_pages(pages * PAGE)?;
    for page in 0..pages {
        memory.store(page * PAGE, page as u64);
    }
    device.prefetch(range_of(&memory))?;
    let free = device.info()?.free_pages;
    ensure!(free == 0, "{free} pages of the device are free");
    Ok(memory)
}

/// Brings the pages of a range back.
fn make_room(device: &Device, filler: &Mapping, first: usize, count: usize) -> Result<()> {
    let range = PageRange::new(filler.at(first * PAGE), (count * PAGE) as u64);
    let back = device.evict(range)?;
    ensure!((back.moved, back.left) == (count as u64, 0), "{back:?}");
    Ok(())
}

/// Brings back every second run of pages, so that half of the device is free.
fn make_fragments(device: &Device, filler: &Mapping) -> Result<()> {
    let pages = filler.len() / PAGE;
    for first in (0..pages).step_by(2 * FRAGMENT) {
        make_room(device, filler, first, FRAGMENT)?;
    }
    Ok(())
}

/// Demands that the small pages still have their numbers in them.
fn filler_is_whole(filler: &Mapping) -> Result<()> {
    for page in 0..filler.len() / PAGE {
        let word = filler.load(page * PAGE);
        ensure!(word == page as u64, "Page {page} holds {word}");
    }
    Ok(())
}

/// Huge pages with known content, in system memory.
fn filled(seed: u64, count: usize) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::huge(count * HUGE)?;
    let content = pattern::bytes(seed, count * HUGE);
    memory.write(0, &content);
    let huge = smaps::huge_pages(&memory)?;
    ensure!(huge == count, "The kernel gave {huge} huge pages");
    Ok((memory, content))
}

fn both_see(device: &Device, memory: &Mapping, content: &[u8]) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), content)
}

fn in_fragmented_memory_a_huge_page_is_split() -> CaseResult {
    let device = Device::open()?;
    let filler = full(&device)?;
    make_fragments(&device, &filler)?;
    let (memory, content) = filled(261, 2)?;
    device.take(&memory)?;
    let huge = smaps::huge_pages(&memory)?;
    ensure!(huge == 0, "{huge} huge pages on a fragmented device");
    both_see(&device, &memory, &content)?;
    filler_is_whole(&filler)
}

fn of_a_huge_page_that_does_not_fit_part_may_move() -> CaseResult {
    let device = Device::open()?;
    let filler = full(&device)?;
    make_room(&device, &filler, 0, 300)?;
    let (memory, content) = filled(262, 1)?;
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(
        migrated.moved <= 300 && migrated.moved + migrated.left == PAGES,
        "{migrated:?}"
    );
    let there = device.device_pages(&memory)?;
    ensure!(there == migrated.moved, "{there} pages: {migrated:?}");
    both_see(&device, &memory, &content)?;
    device.fill(&memory, 0..HUGE, PATTERN)?;
    both_see(&device, &memory, &PATTERN.to_le_bytes().repeat(HUGE / 8))?;
    filler_is_whole(&filler)
}

fn beside_full_memory_a_huge_page_stays_whole() -> CaseResult {
    let device = Device::open()?;
    let filler = full(&device)?;
    let (memory, content) = filled(263, 1)?;
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(
        (migrated.moved, migrated.left) == (0, PAGES),
        "{migrated:?}"
    );
    both_see(&device, &memory, &content)?;
    device.fill(&memory, 0..HUGE, PATTERN)?;
    both_see(&device, &memory, &PATTERN.to_le_bytes().repeat(HUGE / 8))?;
    let huge = smaps::huge_pages(&memory)?;
    ensure!(huge == 1, "{huge} huge pages in system memory");
    filler_is_whole(&filler)
}

fn beside_full_memory_untouched_memory_can_be_written() -> CaseResult {
    let device = Device::open()?;
    let filler = full(&device)?;
    // With no page free, then with some, which are too few for all.
    for room in [0, 100] {
        if room > 0 {
            make_room(&device, &filler, 0, room)?;
        }
        let memory = Mapping::huge(HUGE)?;
        device.fill(&memory, 50 * PAGE..51 * PAGE, PATTERN)?;
        let mut expected = vec![0; HUGE];
        let words = PATTERN.to_le_bytes().repeat(PAGE / 8);
        expected[50 * PAGE..51 * PAGE].copy_from_slice(&words);
        both_see(&device, &memory, &expected)?;
    }
    filler_is_whole(&filler)
}

fn huge_pages_larger_than_device_memory_are_written() -> CaseResult {
    let device = Device::open()?;
    let pages = usize::try_from(device.info()?.device_pages)?;
    let memory = Mapping::huge((pages * PAGE).next_multiple_of(HUGE) / 2 * 3)?;
    for pattern in [PATTERN, !PATTERN] {
        let done = device.fill(&memory, 0..memory.len(), pattern)?;
        ensure!(done.bytes_done == memory.len() as u64, "{done:?}");
        for offset in (0..memory.len()).step_by(PAGE) {
            let word = memory.load(offset + 16);
            ensure!(word == pattern, "Page {}: {word:#x}", offset / PAGE);
        }
    }
    Ok(())
}

fn a_huge_page_comes_whole_once_there_is_room() -> CaseResult {
    let device = Device::open()?;
    let filler = full(&device)?;
    make_fragments(&device, &filler)?;
    let (memory, content) = filled(264, 1)?;
    device.take(&memory)?;
    device.evict(range_of(&memory))?;
    drop(filler);
    wait::until("Device memory being free", || {
        let info = device.info()?;
        Ok(info.free_pages == info.device_pages)
    })?;
    // The page was split on its way; a fresh one shows what the device has room for.
    both_see(&device, &memory, &content)?;
    let (fresh, content) = filled(265, 1)?;
    device.take(&fresh)?;
    let huge = smaps::huge_pages(&fresh)?;
    ensure!(huge == 1, "{huge} huge pages on the device");
    both_see(&device, &fresh, &content)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Huge pages move whole: 2 MiB of system memory and 2 MiB of device-private memory, by one entry
//! of the page tables.
//!
//! The kernel is the witness that they are whole (`guest::smaps`), and that they are on the
//! device (`guest::pagemap`).

use anyhow::{ensure, Result};
use coax::Policy;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pagemap::{self, Place};
use crate::guest::pattern::{self, same};
use crate::guest::pin::Pin;
use crate::guest::smaps;
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "large",
    cases: &[
        case!(a_huge_page_moves_whole_on_request, "MIGRATE_TO_DEVICE").modes(&[Mode::Private]),
        case!(
            a_cpu_touch_of_one_byte_brings_all_back,
            "the CPU's fault on a huge page of the device"
        )
        .modes(&[Mode::Private]),
        case!(a_huge_page_comes_back_whole_on_request, "MIGRATE_TO_SYSTEM").modes(&[Mode::Private]),
        case!(
            a_huge_page_comes_back_whole_at_reset,
            "moved back by page frame number"
        )
        .modes(&[Mode::Private]),
        case!(
            a_device_read_of_one_byte_moves_the_huge_page,
            "the device's fault, for reading"
        )
        .modes(&[Mode::Private, Mode::Numa]),
        case!(
            a_device_write_of_one_word_moves_the_huge_page,
            "the device's fault, for writing"
        )
        .modes(&[Mode::Private, Mode::Numa]),
        case!(
            a_device_write_to_untouched_memory_makes_a_huge_page,
            "2 MiB never touched, huge pages wanted"
        )
        .modes(&[Mode::Private, Mode::Numa]),
        case!(
            without_huge_pages_only_the_window_moves,
            "MADV_NOHUGEPAGE: fault-around as it is set"
        ),
        case!(
            without_huge_pages_small_ones_move_on_request,
            "MADV_NOHUGEPAGE, moved and brought back"
        ),
        case!(
            a_part_brought_back_leaves_the_rest_there,
            "a huge page of the device is split"
        )
        .modes(&[Mode::Private]),
        case!(
            coherent_memory_takes_huge_pages_in_parts,
            "device-coherent memory has small pages only"
        )
        .modes(&[Mode::Coherent]),
        case!(
            moved_huge_pages_can_be_pinned_for_long,
            "io_uring's registered buffers over memory on the device"
        ),
    ],
};

/// Pages of a huge page.
const PAGES: u64 = (HUGE / PAGE) as u64;
const PATTERN: u64 = 0x4c41_5247_4550_4147;

/// One huge page with known content, in system memory.
fn filled(seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::huge(HUGE)?;
    let content = pattern::bytes(seed, HUGE);
    memory.write(0, &content);
    ensure!(
        smaps::huge_pages(&memory)? == 1,
        "The kernel gave no huge page"
    );
    Ok((memory, content))
}

/// Demands that all pages are at the place, as one huge page.
fn whole_at(device: &Device, memory: &Mapping, place: Place) -> Result<()> {
    let there = pagemap::count(&device.info()?, memory, place)?;
    ensure!(there == PAGES, "{there} pages are at {place:?}");
    let huge = smaps::huge_pages(memory)?;
    ensure!(huge == 1, "{huge} huge pages at {place:?}");
    Ok(())
}

/// One huge page with known content, on the device.
fn on_device(device: &Device, seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let (memory, content) = filled(seed)?;
    device.take(&memory)?;
    whole_at(device, &memory, Place::Device)?;
    Ok((memory, content))
}

/// Demands that device, then CPU see the content.
fn both_see(device: &Device, memory: &Mapping, content: &[u8]) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), content)
}

fn a_huge_page_moves_whole_on_request() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(201)?;
    let (before, free) = (device.stats()?, device.info()?.free_pages);
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(
        (migrated.moved, migrated.already, migrated.left) == (PAGES, 0, 0),
        "{migrated:?}"
    );
    whole_at(&device, &memory, Place::Device)?;
    let moved = device.stats()?.to_device_request - before.to_device_request;
    ensure!(moved == PAGES, "The driver counts {moved} pages");
    let taken = free - device.info()?.free_pages;
    ensure!(taken == PAGES, "{taken} pages of the device are in use");
    let again = device.prefetch(range_of(&memory))?;
    ensure!((again.moved, again.already) == (0, PAGES), "{again:?}");
    both_see(&device, &memory, &content)?;
    drop(memory);
    wait::until("Device memory being free after munmap", || {
        Ok(device.info()?.free_pages == free)
    })
}

fn a_cpu_touch_of_one_byte_brings_all_back() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_device(&device, 202)?;
    let before = device.stats()?.to_system_fault;
    let mut byte = [0];
    memory.read(300 * PAGE + 7, &mut byte);
    ensure!(byte[0] == content[300 * PAGE + 7], "The byte is {byte:?}");
    let moved = device.stats()?.to_system_fault - before;
    ensure!(moved == PAGES, "{moved} pages came back");
    whole_at(&device, &memory, Place::System)?;
    same("memory", &memory.to_vec(), &content)?;
    both_see(&device, &memory, &content)
}

fn a_huge_page_comes_back_whole_on_request() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_device(&device, 203)?;
    let back = device.evict(range_of(&memory))?;
    ensure!((back.moved, back.left) == (PAGES, 0), "{back:?}");
    whole_at(&device, &memory, Place::System)?;
    both_see(&device, &memory, &content)
}

fn a_huge_page_comes_back_whole_at_reset() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_device(&device, 204)?;
    let before = device.stats()?.to_system_evict;
    device.reset()?;
    let moved = device.stats()?.to_system_evict - before;
    ensure!(moved >= PAGES, "The driver counts {moved} pages");
    whole_at(&device, &memory, Place::System)?;
    let info = device.info()?;
    ensure!(info.free_pages == info.device_pages, "{info:?}");
    both_see(&device, &memory, &content)
}

/// Has the device touch a little of a huge page in system memory, and demands that all moved.
fn a_touch_moves_it(
    seed: u64,
    touch: fn(&Device, &Mapping, &mut [u8]) -> CaseResult,
) -> CaseResult {
    let device = Device::open_moving()?;
    let (memory, mut content) = filled(seed)?;
    let before = device.stats()?.to_device_fault;
    touch(&device, &memory, &mut content)?;
    whole_at(&device, &memory, Place::Device)?;
    let moved = device.stats()?.to_device_fault - before;
    ensure!(moved == PAGES, "The driver counts {moved} pages");
    both_see(&device, &memory, &content)
}

fn a_device_read_of_one_byte_moves_the_huge_page() -> CaseResult {
    a_touch_moves_it(205, |device, memory, content| {
        let at = 411 * PAGE + 5;
        let digest = device.run(coax::Command::sha256(memory.at(at), 1))?.result;
        ensure!(digest == pattern::sha256(&content[at..=at]), "Wrong digest");
        Ok(())
    })
}

fn a_device_write_of_one_word_moves_the_huge_page() -> CaseResult {
    a_touch_moves_it(206, |device, memory, content| {
        let word = 17 * PAGE + 16..17 * PAGE + 24;
        device.fill(memory, word.clone(), PATTERN)?;
        content[word].copy_from_slice(&PATTERN.to_le_bytes());
        Ok(())
    })
}

fn a_device_write_to_untouched_memory_makes_a_huge_page() -> CaseResult {
    let device = Device::open_moving()?;
    let memory = Mapping::huge(HUGE)?;
    let word = 77 * PAGE..77 * PAGE + 8;
    device.fill(&memory, word.clone(), PATTERN)?;
    whole_at(&device, &memory, Place::Device)?;
    let mut content = vec![0; HUGE];
    content[word].copy_from_slice(&PATTERN.to_le_bytes());
    both_see(&device, &memory, &content)
}

fn without_huge_pages_only_the_window_moves() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::OnFault, Some(16))?;
    let memory = Mapping::small_pages(HUGE)?;
    let mut content = pattern::bytes(207, HUGE);
    memory.write(0, &content);
    device.fill(&memory, 100 * PAGE..100 * PAGE + 8, PATTERN)?;
    content[100 * PAGE..100 * PAGE + 8].copy_from_slice(&PATTERN.to_le_bytes());
    let there = pagemap::count(&device.info()?, &memory, Place::Device)?;
    ensure!(there == 16, "{there} pages moved for one");
    let untouched = Mapping::small_pages(HUGE)?;
    device.fill(&untouched, 100 * PAGE..100 * PAGE + 8, PATTERN)?;
    let there = pagemap::count(&device.info()?, &untouched, Place::Device)?;
    ensure!(there == 1, "{there} pages were made for one");
    both_see(&device, &memory, &content)
}

fn without_huge_pages_small_ones_move_on_request() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::small_pages(HUGE)?;
    let content = pattern::bytes(208, HUGE);
    memory.write(0, &content);
    device.take(&memory)?;
    let huge = smaps::huge_pages(&memory)?;
    ensure!(huge == 0, "{huge} huge pages on the device");
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    let back = device.evict(range_of(&memory))?;
    ensure!((back.moved, back.left) == (PAGES, 0), "{back:?}");
    let huge = smaps::huge_pages(&memory)?;
    ensure!(huge == 0, "{huge} huge pages in system memory");
    both_see(&device, &memory, &content)
}

fn a_part_brought_back_leaves_the_rest_there() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_device(&device, 209)?;
    let part = coax::PageRange::new(memory.at(100 * PAGE), 60 * PAGE as u64);
    let back = device.evict(part)?;
    ensure!((back.moved, back.left) == (60, 0), "{back:?}");
    let there = pagemap::count(&device.info()?, &memory, Place::Device)?;
    ensure!(there == PAGES - 60, "{there} pages are still there");
    let mut seen = vec![0; 60 * PAGE];
    memory.read(100 * PAGE, &mut seen);
    same("the part", &seen, &content[100 * PAGE..160 * PAGE])?;
    both_see(&device, &memory, &content)
}

fn coherent_memory_takes_huge_pages_in_parts() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(210)?;
    device.take(&memory)?;
    let there = pagemap::count(&device.info()?, &memory, Place::Device)?;
    ensure!(there == PAGES, "{there} pages are on the device");
    let huge = smaps::huge_pages(&memory)?;
    ensure!(huge == 0, "{huge} huge pages on the device");
    both_see(&device, &memory, &content)?;
    let back = device.evict(range_of(&memory))?;
    ensure!((back.moved, back.left) == (PAGES, 0), "{back:?}");
    both_see(&device, &memory, &content)
}

fn moved_huge_pages_can_be_pinned_for_long() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(211)?;
    device.take(&memory)?;
    let pin = Pin::of(&memory)?;
    // Device memory is not for long-term pins, so the pages came back, and stay.
    let pages = device.where_is(&memory)?;
    ensure!((pages.system, pages.device) == (PAGES, 0), "{pages:?}");
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(
        (migrated.moved, migrated.left) == (0, PAGES),
        "{migrated:?}"
    );
    both_see(&device, &memory, &content)?;
    drop(pin);
    // The kernel unpins on its own time.
    wait::until("The huge page moving again", || {
        Ok(device.prefetch(range_of(&memory))?.left == 0)
    })?;
    both_see(&device, &memory, &content)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages move when and where they should, and everybody agrees on where they are.

use anyhow::{ensure, Context as _, Result};
use coax::{Location, PageRange, Policy};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pagemap::{self, Place};
use crate::guest::pattern::{self, same};
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "migration",
    cases: &[
        case!(a_device_fault_moves_the_page, "policy on_fault"),
        case!(
            fault_around_of_one_moves_one_page,
            "the fault-around setting"
        ),
        case!(prefetch_moves_and_reports, "moving on request, and again"),
        case!(evict_brings_everything_back, "moving back on request"),
        case!(a_cpu_access_brings_the_page_back, "device-private memory").modes(&[Mode::Private]),
        case!(a_cpu_access_leaves_the_page, "device-coherent memory").modes(&[Mode::Coherent]),
        case!(
            cpu_writes_to_device_pages_are_kept,
            "stores of the CPU to pages on the device"
        ),
        case!(
            residency_agrees_with_pagemap,
            "the kernel's own page map as the witness"
        ),
        case!(
            residency_touches_nothing,
            "asking does not move or allocate"
        ),
        case!(
            free_pages_agree_with_what_is_there,
            "device memory is counted and given back"
        ),
        case!(policy_never_moves_nothing, "the device works in place"),
        case!(
            policy_on_request_moves_on_request_alone,
            "the device works in place until asked"
        ),
        case!(file_and_shared_pages_stay, "prefetch of what cannot move").modes(&Mode::MOVING),
        case!(a_gap_is_reported_and_the_rest_moves, "prefetch over a hole"),
        case!(
            a_forked_child_can_be_prefetched_by_its_number,
            "another process's memory"
        ),
    ],
};

const PAGES: usize = 128;
const LEN: usize = PAGES * PAGE;

fn filled(seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    Ok((memory, content))
}

fn a_device_fault_moves_the_page() -> CaseResult {
    let device = Device::open_moving()?;
    let (memory, content) = filled(41)?;
    let expected = pattern::sha256(&content);
    let before = device.stats()?;
    let digest = device.digest(&memory)?;
    // Before the CPU touches neighbours of the mapping, which may bring some of it back.
    let there = device.device_pages(&memory)?;
    ensure!(digest == expected, "Wrong digest");
    ensure!(
        there == PAGES as u64,
        "{there} of {PAGES} pages on the device after a read of all"
    );
    let after = device.stats()?;
    let moved = after.context_to_device - before.context_to_device;
    ensure!(moved >= there, "The driver counts {moved} pages moved");
    ensure!(
        after.to_device_fault - before.to_device_fault >= there,
        "{after:?}"
    );
    Ok(())
}

fn fault_around_of_one_moves_one_page() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::OnFault, Some(1))?;
    let (memory, _) = filled(42)?;
    device.fill(&memory, 50 * PAGE..50 * PAGE + 8, 0)?;
    let places = device.locate(range_of(&memory))?;
    let there: Vec<usize> = (0..PAGES)
        .filter(|page| places[*page] == Location::Device)
        .collect();
    ensure!(there == [50], "Pages {there:?} are on the device");
    Ok(())
}

fn prefetch_moves_and_reports() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(43)?;
    let first = device.prefetch(range_of(&memory))?;
    ensure!(
        (first.moved, first.already, first.left) == (PAGES as u64, 0, 0),
        "{first:?}"
    );
    let again = device.prefetch(range_of(&memory))?;
    ensure!(
        (again.moved, again.already, again.left) == (0, PAGES as u64, 0),
        "{again:?}"
    );
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)
}

fn evict_brings_everything_back() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(44)?;
    device.take(&memory)?;
    let back = device.evict(range_of(&memory))?;
    ensure!((back.moved, back.left) == (PAGES as u64, 0), "{back:?}");
    let pages = device.where_is(&memory)?;
    ensure!(
        (pages.system, pages.device) == (PAGES as u64, 0),
        "{pages:?}"
    );
    same("memory", &memory.to_vec(), &content)
}

fn a_cpu_access_brings_the_page_back() -> CaseResult {
    covers!("coax.drv.23");
    let device = Device::open()?;
    let (memory, content) = filled(45)?;
    device.take(&memory)?;
    let before = device.stats()?.to_system_fault;
    let mut word = [0; 8];
    memory.read(7 * PAGE, &mut word);
    same("word", &word, &content[7 * PAGE..7 * PAGE + 8])?;
    let places = device.locate(range_of(&memory))?;
    ensure!(
        places[7] == Location::System,
        "Page 7 is in {:?}",
        places[7]
    );
    ensure!(
        device.stats()?.to_system_fault > before,
        "The driver counts no page brought back"
    );
    same("memory", &memory.to_vec(), &content)?;
    ensure!(
        device.device_pages(&memory)? == 0,
        "Pages stayed on the device"
    );
    Ok(())
}

fn a_cpu_access_leaves_the_page() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(46)?;
    device.take(&memory)?;
    same("memory", &memory.to_vec(), &content)?;
    let there = device.device_pages(&memory)?;
    ensure!(
        there == PAGES as u64,
        "{there} pages on the device after the CPU read them"
    );
    Ok(())
}

fn cpu_writes_to_device_pages_are_kept() -> CaseResult {
    let device = Device::open()?;
    let (memory, mut content) = filled(47)?;
    for round in 0..4 {
        device.take(&memory)?;
        for page in 0..PAGES {
            memory.store(page * PAGE + 8 * round, page as u64);
            content[page * PAGE + 8 * round..][..8].copy_from_slice(&(page as u64).to_ne_bytes());
        }
        ensure!(
            device.digest(&memory)? == pattern::sha256(&content),
            "Round {round}"
        );
    }
    same("memory", &memory.to_vec(), &content)
}

fn residency_agrees_with_pagemap() -> CaseResult {
    let device = Device::open()?;
    let info = device.info()?;
    let memory = Mapping::anonymous(LEN)?;
    // A third never touched, a third in system memory, a third on the device.
    let third = LEN / 3 / PAGE * PAGE;
    memory.fill(third..LEN, 1);
    device.prefetch(PageRange::new(
        memory.at(2 * third),
        (LEN - 2 * third) as u64,
    ))?;
    let driver = device.locate(range_of(&memory))?;
    let kernel = pagemap::places(&info, &memory)?;
    for (page, (driver, kernel)) in driver.into_iter().zip(kernel).enumerate() {
        let expected = match kernel {
            Place::Nowhere | Place::Swapped => Location::None,
            Place::System => Location::System,
            Place::Device => Location::Device,
        };
        ensure!(
            driver == expected,
            "Page {page}: driver {driver:?}, kernel {kernel:?}"
        );
    }
    let there = pagemap::count(&info, &memory, Place::Device)?;
    ensure!(
        there == ((LEN - 2 * third) / PAGE) as u64,
        "{there} pages on the device"
    );
    Ok(())
}

fn residency_touches_nothing() -> CaseResult {
    let device = Device::open()?;
    let info = device.info()?;
    let memory = Mapping::anonymous(LEN)?;
    let pages = device.where_is(&memory)?;
    ensure!(pages.none == PAGES as u64, "{pages:?}");
    let nowhere = pagemap::count(&info, &memory, Place::Nowhere)?;
    ensure!(
        nowhere == PAGES as u64,
        "Asking allocated {} pages",
        PAGES as u64 - nowhere
    );
    memory.unmap(0..LEN)?;
    let pages = device.where_is(&memory)?;
    ensure!(pages.none == PAGES as u64, "{pages:?} of unmapped memory");
    Ok(())
}

fn free_pages_agree_with_what_is_there() -> CaseResult {
    let device = Device::open()?;
    let free = device.info()?.free_pages;
    let (memory, _) = filled(48)?;
    device.take(&memory)?;
    let taken = free.saturating_sub(device.info()?.free_pages);
    ensure!(
        taken >= PAGES as u64,
        "Only {taken} pages are counted as used"
    );
    drop(memory);
    wait::until("Device memory being free after munmap", || {
        Ok(device.info()?.free_pages == free)
    })
}

fn policy_never_moves_nothing() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::Never, None)?;
    let (memory, content) = filled(49)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.fill(&memory, 0..LEN, 5)?;
    let untouched = Mapping::anonymous(LEN)?;
    device.fill(&untouched, 0..LEN, 6)?;
    refused("prefetch", device.prefetch(range_of(&memory)), libc::EPERM)?;
    for mapping in [&memory, &untouched] {
        let pages = device.where_is(mapping)?;
        ensure!(
            (pages.system, pages.device) == (PAGES as u64, 0),
            "{pages:?}"
        );
    }
    same(
        "memory",
        &memory.to_vec(),
        &5u64.to_le_bytes().repeat(LEN / 8),
    )?;
    same(
        "memory",
        &untouched.to_vec(),
        &6u64.to_le_bytes().repeat(LEN / 8),
    )
}

fn policy_on_request_moves_on_request_alone() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::OnRequest, None)?;
    let (memory, content) = filled(50)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    ensure!(
        device.device_pages(&memory)? == 0,
        "Pages moved without a request"
    );
    device.take(&memory)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest on the device"
    );
    Ok(())
}

fn file_and_shared_pages_stay() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::shared(LEN)?;
    memory.fill(0..LEN, 3);
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(
        (migrated.moved, migrated.left) == (0, PAGES as u64),
        "{migrated:?}"
    );
    let pages = device.where_is(&memory)?;
    ensure!(pages.file == PAGES as u64, "{pages:?}");
    same("memory", &memory.to_vec(), &[3; LEN])
}

fn a_gap_is_reported_and_the_rest_moves() -> CaseResult {
    let device = Device::open()?;
    let (memory, _) = filled(51)?;
    memory.unmap(60 * PAGE..61 * PAGE)?;
    refused(
        "prefetch over a hole",
        device.prefetch(range_of(&memory)),
        libc::EFAULT,
    )?;
    let pages = device.where_is(&memory)?;
    ensure!(
        (pages.none, pages.device) == (1, PAGES as u64 - 1),
        "{pages:?}"
    );
    Ok(())
}

fn a_forked_child_can_be_prefetched_by_its_number() -> CaseResult {
    use crate::guest::process::{fork, line};
    let (parent_end, child_end) = line()?;
    let (memory, content) = filled(52)?;
    let address = range_of(&memory);
    let child = fork(|| {
        // Pages of its own: those shared with the parent by fork may stay.
        let mut own = content.clone();
        own[..8].fill(1);
        (0..PAGES).for_each(|page| memory.write(page * PAGE, &content[page * PAGE..][..8]));
        memory.write(0, &own[..8]);
        child_end.announce(1)?;
        child_end.await_step(2)?;
        same("child's memory after it was moved", &memory.to_vec(), &own)
    })?;
    parent_end.await_step(1)?;
    let device = Device::open()?;
    let to_device = coax::Direction::ToDevice;
    let migrated = device
        .migrate_process(child.pid(), address, to_device)
        .context("Migrate")?;
    ensure!(migrated.moved > 0, "{migrated:?}");
    parent_end.announce(2)?;
    child.succeeds()?;
    same("parent's memory", &memory.to_vec(), &content)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moving what the device uses often, where the IOMMU translates and the device's faults do not pass the driver.
//!
//! The device tells the driver before it answers the command, and the driver says where pages are when it has
//! done what it was told of. So after a command nothing has to be waited for.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use coax::{Access, Advice, Command, Location, PageRange, Policy};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Skip, Subject, Vm};
use crate::guest::counters;
use crate::guest::device::{faulted, range_of, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::wait;

/// Modes that an IOMMU can translate in.
const MODES: &[Mode] = &[Mode::Coherent, Mode::Numa];

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "hot",
    cases: &[
        case!(
            what_the_device_uses_often_moves_to_it,
            "4 MiB that the device reads once, page by page"
        )
        .modes(MODES),
        case!(
            pages_move_there_and_back_under_a_running_command,
            "a walk without end, whose pages are moved back again and again"
        )
        .limit(Duration::from_secs(180))
        .modes(MODES),
        case!(
            what_the_device_uses_seldom_stays,
            "some words, far below what it is asked to tell of"
        )
        .modes(MODES),
        case!(
            policy_and_advice_say_what_moves,
            "on request, and on fault for a part of it"
        )
        .modes(MODES),
        case!(
            shared_memory_stays_and_is_told_of_ever_more_seldom,
            "memory that does not migrate, read 64 times"
        )
        .modes(&[Mode::Coherent]),
        case!(
            more_than_device_memory_is_used_in_place,
            "twice as much as fits"
        )
        .limit(Duration::from_secs(180))
        .in_vm(Vm::SmallDevice)
        .modes(&[Mode::Coherent]),
        case!(
            two_devices_have_an_iommus_translations_each,
            "the same memory, hot on the one and then on the other"
        )
        .in_vm(Vm::TwoDevices)
        .modes(MODES),
    ],
};

const LEN: usize = 2 * HUGE;

/// Memory on boundaries of 2 MiB, whose single pages hold a pattern.
fn filled(seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    Ok((memory, content))
}

/// Opens a device for a context of this policy.
fn open(number: u32, policy: Policy) -> Result<Device> {
    let device = Device::open_number(number)?;
    let path = format!("/proc/self/fdinfo/{}", device.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).context(path)?;
    if !text.contains("coax-translation:\tpcie") {
        return Err(
            Skip("the driver translates, and moves pages as they are asked for".into()).into(),
        );
    }
    device.set_policy(policy, None)?;
    Ok(device)
}

fn sees(device: &Device, memory: &Mapping, content: &[u8]) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "The device sees other content"
    );
    Ok(())
}

fn what_the_device_uses_often_moves_to_it() -> CaseResult {
    covers!("coax.drv.40");
    let device = open(0, Policy::OnFault)?;
    let (memory, content) = filled(91)?;
    let before = device.stats()?;
    sees(&device, &memory, &content)?;
    let there = device.device_pages(&memory)?;
    ensure!(there == memory.pages(), "{there} pages are on the device");
    let after = device.stats()?;
    let moved = after.context_to_device - before.context_to_device;
    ensure!(moved >= there, "The driver counts {moved} pages moved");
    ensure!(
        after.to_device_fault - before.to_device_fault >= there,
        "They are not counted as moved for the device: {after:?}"
    );
    ensure!(
        (after.page_requests, after.device_errors) == (before.page_requests, before.device_errors),
        "The device has asked the driver: {after:?}"
    );
    // The CPU uses them where they are, and the device sees what it writes.
    memory.store(5 * PAGE, 0x1234);
    let mut changed = content;
    changed[5 * PAGE..5 * PAGE + 8].copy_from_slice(&0x1234u64.to_le_bytes());
    sees(&device, &memory, &changed)?;
    ensure!(device.device_pages(&memory)? == there, "Pages have left");
    evict(&device, &memory)?;
    same("memory", &memory.to_vec(), &changed)
}

/// Moves all pages back, by whoever does that in this mode.
fn evict(device: &Device, memory: &Mapping) -> Result<()> {
    device.evict(range_of(memory)).context("Evict")?;
    let left = device.device_pages(memory)?;
    ensure!(left == 0, "{left} pages are on the device after that");
    Ok(())
}

fn pages_move_there_and_back_under_a_running_command() -> CaseResult {
    let device = open(0, Policy::OnFault)?;
    let ring = Mapping::small_pages(HUGE)?;
    let walk = list::start_endless(&device, &ring)?;
    for round in 0..4 {
        wait::until("The pages that the walk uses come to the device", || {
            Ok(device.device_pages(&ring)? == ring.pages())
        })
        .with_context(|| format!("Round {round}"))?;
        // Some of it is hot again before the last page is back, so it is not looked for.
        let back = device.evict(range_of(&ring)).context("Evict")?;
        ensure!(back.moved > 0, "Round {round}: {back:?}");
    }
    // The end of the ring ends the walk, which has gone around it all the time.
    ring.store((ring.pages() as usize - 1) * PAGE + list::NEXT, 0);
    let done = device.finish(walk)?;
    let nodes = done.word(1);
    ensure!(
        nodes % ring.pages() == 0
            && done.word(0) == (nodes / ring.pages()).wrapping_mul(list::sum(ring.pages())),
        "The walk has lost its way: {done:?}"
    );
    Ok(())
}

fn what_the_device_uses_seldom_stays() -> CaseResult {
    let device = open(0, Policy::OnFault)?;
    let (memory, _) = filled(92)?;
    for page in [0, 100, 400] {
        device.fill(&memory, page * PAGE..page * PAGE + 8, 1)?;
    }
    let there = device.device_pages(&memory)?;
    ensure!(there == 0, "{there} pages have moved for three words");
    Ok(())
}

fn policy_and_advice_say_what_moves() -> CaseResult {
    let device = open(0, Policy::OnRequest)?;
    let (memory, content) = filled(93)?;
    sees(&device, &memory, &content)?;
    ensure!(
        device.device_pages(&memory)? == 0,
        "Pages have moved unasked"
    );
    // The first three quarters of the first window, and no page beside them.
    let advised = 3 * HUGE / 4;
    let range = PageRange::new(memory.address(), advised as u64);
    device.advise(range, Advice::from(Policy::OnFault))?;
    sees(&device, &memory, &content)?;
    let places = device.locate(range_of(&memory))?;
    let on_device = |place: &Location| *place == Location::Device;
    let moved = places.iter().take_while(|place| on_device(place)).count();
    ensure!(
        moved * PAGE == advised && !places[moved..].iter().any(on_device),
        "{moved} pages have moved at the start, {} in all",
        places.iter().filter(|place| on_device(place)).count()
    );
    device.set_policy(Policy::Never, None)?;
    device.advise(range, Advice::from(Policy::Never))?;
    evict(&device, &memory)?;
    sees(&device, &memory, &content)?;
    ensure!(
        device.device_pages(&memory)? == 0,
        "Pages move that never may"
    );
    Ok(())
}

fn shared_memory_stays_and_is_told_of_ever_more_seldom() -> CaseResult {
    let device = open(0, Policy::OnFault)?;
    let memory = Mapping::shared(HUGE)?;
    let content = pattern::bytes(94, HUGE);
    memory.write(0, &content);
    let before = counters::of_driver("notifications")?;
    for _ in 0..64 {
        sees(&device, &memory, &content)?;
    }
    let told = counters::of_driver("notifications")? - before;
    // 2^15 accesses to each of two windows, from 2^4 on.
    ensure!((1..=2 * 16).contains(&told), "It was told of {told} times");
    let pages = device.where_is(&memory)?;
    ensure!(pages.device == 0, "{pages:?}");
    Ok(())
}

fn more_than_device_memory_is_used_in_place() -> CaseResult {
    let device = open(0, Policy::OnFault)?;
    let info = device.info()?;
    let pages = 2 * info.device_pages as usize;
    let memory = Mapping::small_pages(pages * PAGE)?;
    for page in 0..pages {
        memory.store(page * PAGE, page as u64);
    }
    let before = device.stats()?.device_full;
    let sum = Command::sha256(memory.address(), memory.len() as u64);
    let first = device.run(sum)?.result;
    let there = device.device_pages(&memory)?;
    ensure!(
        there > info.device_pages / 2 && there <= info.device_pages,
        "{there} pages are on the device, which has {}",
        info.device_pages
    );
    ensure!(
        device.stats()?.device_full > before,
        "Nobody was told that it is full"
    );
    let sum = Command::sha256(memory.address(), memory.len() as u64);
    ensure!(device.run(sum)?.result == first, "The content has changed");
    for page in 0..pages {
        let word = memory.load(page * PAGE);
        ensure!(word == page as u64, "Page {page} holds {word:#x}");
    }
    Ok(())
}

fn two_devices_have_an_iommus_translations_each() -> CaseResult {
    let devices = [open(0, Policy::OnFault)?, open(1, Policy::OnFault)?];
    let (memory, content) = filled(95)?;
    sees(&devices[0], &memory, &content)?;
    let there = devices[0].device_pages(&memory)?;
    ensure!(there == memory.pages(), "{there} pages are on the first");
    // Coherent pages of a peer stay; those of a node move as any memory does.
    sees(&devices[1], &memory, &content)?;
    let [first, second] = [
        devices[0].device_pages(&memory)?,
        devices[1].device_pages(&memory)?,
    ];
    ensure!(
        [(there, 0), (0, there)].contains(&(first, second)),
        "{first} pages are on the first, {second} on the second"
    );
    // Both are told when the memory goes.
    let half = LEN / 2;
    memory.unmap(half..LEN)?;
    for device in &devices {
        let gone = memory.at(half);
        let read = device.run(Command::sha256(gone, 8));
        faulted(read, gone, Access::Read)?;
        let rest = Command::sha256(memory.address(), half as u64);
        ensure!(
            device.run(rest)?.result == pattern::sha256(&content[..half]),
            "The device sees other content"
        );
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two devices in one VM: memory on one of them is the other's as well, by the same pointers.

use anyhow::{ensure, Result};
use coax::Policy;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "two_devices",
    cases: &[
        case!(
            pages_go_from_device_to_device,
            "private memory comes to the one from the other"
        )
        .in_vm(Vm::TwoDevices)
        .modes(&[Mode::Private]),
        case!(
            huge_pages_go_from_device_to_device,
            "2 MiB of private memory, whole"
        )
        .in_vm(Vm::TwoDevices)
        .modes(&[Mode::Private]),
        case!(
            a_peers_memory_is_used_in_place,
            "coherent memory of one device stays there while the other uses it"
        )
        .in_vm(Vm::TwoDevices)
        .modes(&[Mode::Coherent]),
        case!(
            a_request_leaves_the_peers_pages,
            "moving on request takes pages of system memory alone"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::TwoDevices),
        case!(
            fork_keeps_two_devices_apart,
            "the parent on one device, the child on the other"
        )
        .in_vm(Vm::TwoDevices),
        case!(
            both_devices_memory_is_free_at_the_end,
            "nothing was lost by the cases before"
        )
        .in_vm(Vm::TwoDevices),
    ],
};

const LEN: usize = 64 * PAGE;

fn both() -> Result<[Device; 2]> {
    Ok([Device::open_number(0)?, Device::open_number(1)?])
}

/// Demands the digest of this content from the device.
fn sees(device: &Device, memory: &Mapping, content: &[u8]) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "A device sees other content"
    );
    Ok(())
}

/// Pages of the mapping on each device.
fn places(devices: &[Device; 2], memory: &Mapping) -> Result<[u64; 2]> {
    Ok([
        devices[0].device_pages(memory)?,
        devices[1].device_pages(memory)?,
    ])
}

/// Has the devices read and write in turns, and demands that the pages follow.
fn pages_follow(memory: &Mapping, seed: u64) -> CaseResult {
    let devices = both()?;
    // The program's own pages beside the mapping must stay: touching one brings its neighbours back.
    for device in &devices {
        device.set_policy(Policy::OnFault, Some(1))?;
    }
    let all = memory.pages();
    let mut content = pattern::bytes(seed, memory.len());
    memory.write(0, &content);
    devices[0].take(memory)?;
    for round in 0..3u64 {
        for (at, number) in [(1, 1), (0, 2)] {
            sees(&devices[at], memory, &content)?;
            let mut expected = [0; 2];
            expected[at] = all;
            let there = places(&devices, memory)?;
            ensure!(there == expected, "Round {round}: {there:?} pages");
            let pattern = round * 8 + number;
            devices[at].fill(memory, 8..24, pattern)?;
            content[8..24].copy_from_slice(&pattern.to_le_bytes().repeat(2));
        }
    }
    sees(&devices[1], memory, &content)?;
    same("memory", &memory.to_vec(), &content)
}

fn pages_go_from_device_to_device() -> CaseResult {
    pages_follow(&Mapping::anonymous(LEN)?, 251)
}

fn huge_pages_go_from_device_to_device() -> CaseResult {
    pages_follow(&Mapping::huge(HUGE)?, 252)
}

fn a_peers_memory_is_used_in_place() -> CaseResult {
    let devices = both()?;
    let memory = Mapping::anonymous(LEN)?;
    let mut content = pattern::bytes(253, LEN);
    memory.write(0, &content);
    devices[0].take(&memory)?;
    sees(&devices[1], &memory, &content)?;
    devices[1].fill(&memory, 0..PAGE, 0x77)?;
    content[..PAGE].copy_from_slice(&0x77u64.to_le_bytes().repeat(PAGE / 8));
    let there = places(&devices, &memory)?;
    ensure!(there == [memory.pages(), 0], "{there:?} pages");
    sees(&devices[0], &memory, &content)?;
    same("memory", &memory.to_vec(), &content)
}

fn a_request_leaves_the_peers_pages() -> CaseResult {
    let devices = both()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(254, LEN);
    memory.write(0, &content);
    devices[0].take(&memory)?;
    let all = memory.pages();
    let migrated = devices[1].prefetch(range_of(&memory))?;
    ensure!((migrated.moved, migrated.left) == (0, all), "{migrated:?}");
    let back = devices[1].evict(range_of(&memory))?;
    ensure!(back.moved == 0, "{back:?}");
    let there = places(&devices, &memory)?;
    ensure!(there == [all, 0], "{there:?} pages");
    // Until their own device lets them go.
    devices[0].evict(range_of(&memory))?;
    devices[1].take(&memory)?;
    sees(&devices[1], &memory, &content)?;
    same("memory", &memory.to_vec(), &content)
}

fn fork_keeps_two_devices_apart() -> CaseResult {
    let devices = both()?;
    let memory = Mapping::huge(HUGE + LEN)?;
    let content = pattern::bytes(255, HUGE + LEN);
    memory.write(0, &content);
    devices[0].take(&memory)?;
    let (parent_end, child_end) = line()?;
    let written = |pattern: u64| {
        let mut content = content.clone();
        let words = pattern.to_le_bytes().repeat(LEN / 8);
        content[HUGE..].copy_from_slice(&words);
        content
    };
    let child = fork(|| {
        let own = both()?;
        own[1].fill(&memory, HUGE..HUGE + LEN, 1)?;
        child_end.announce(1)?;
        child_end.await_step(2)?;
        sees(&own[1], &memory, &written(1))?;
        sees(&own[0], &memory, &written(1))?;
        same("the child's memory", &memory.to_vec(), &written(1))
    })?;
    sees(&devices[1], &memory, &content)?;
    parent_end.await_step(1)?;
    sees(&devices[0], &memory, &content)?;
    devices[0].fill(&memory, HUGE..HUGE + LEN, 2)?;
    parent_end.announce(2)?;
    sees(&devices[1], &memory, &written(2))?;
    child.succeeds()?;
    sees(&devices[0], &memory, &written(2))?;
    same("the parent's memory", &memory.to_vec(), &written(2))
}

fn both_devices_memory_is_free_at_the_end() -> CaseResult {
    for device in both()? {
        crate::guest::wait::until("Device memory being free", || {
            let info = device.info()?;
            Ok(info.free_pages == info.device_pages)
        })?;
    }
    Ok(())
}

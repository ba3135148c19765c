// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fork with pages on the device: copy-on-write keeps parent and child apart, whoever writes.

use anyhow::{ensure, Result};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{refused, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "fork",
    cases: &[
        case!(
            the_child_reads_device_pages,
            "inherited pages on the device, read by the CPU"
        ),
        case!(
            a_write_of_the_childs_cpu_stays_with_it,
            "the child breaks the sharing"
        ),
        case!(
            a_write_of_the_childs_device_stays_with_it,
            "the child's context breaks it"
        ),
        case!(
            a_write_of_the_parents_cpu_stays_with_it,
            "the parent breaks the sharing"
        ),
        case!(
            a_write_of_the_parents_device_stays_with_it,
            "the parent's context breaks it"
        ),
        case!(
            the_parents_context_is_not_the_childs,
            "the inherited file is refused"
        ),
        case!(
            fork_under_a_running_command,
            "write protection reaches a device at work"
        ),
        case!(
            device_pages_outlive_the_parent,
            "the child keeps what both had"
        ),
    ],
};

const PAGES: usize = 64;
const LEN: usize = PAGES * PAGE;
/// What a writer puts over everything.
const PATTERN: u64 = 0x7071_7273_7475_7677;

struct Shared {
    device: Device,
    memory: Mapping,
    content: Vec<u8>,
}

/// Memory with known content, all of it on the device.
fn on_device(seed: u64) -> Result<Shared> {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    Ok(Shared {
        device,
        memory,
        content,
    })
}

fn overwritten() -> Vec<u8> {
    PATTERN.to_le_bytes().repeat(LEN / 8)
}

/// Demands that CPU and device see this content.
fn both_see(device: &Device, memory: &Mapping, content: &[u8]) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "The device sees other content"
    );
    same("the CPU's view", &memory.to_vec(), content)?;
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "The device sees it no more"
    );
    Ok(())
}

fn the_child_reads_device_pages() -> CaseResult {
    let Shared {
        device,
        memory,
        content,
    } = on_device(61)?;
    fork(|| same("the child's view", &memory.to_vec(), &content))?.succeeds()?;
    both_see(&device, &memory, &content)
}

fn a_write_of_the_childs_cpu_stays_with_it() -> CaseResult {
    let Shared {
        device,
        memory,
        content,
    } = on_device(62)?;
    fork(|| {
        memory.write(0, &overwritten());
        both_see(&Device::open()?, &memory, &overwritten())
    })?
    .succeeds()?;
    both_see(&device, &memory, &content)
}

fn a_write_of_the_childs_device_stays_with_it() -> CaseResult {
    let Shared {
        device,
        memory,
        content,
    } = on_device(63)?;
    fork(|| {
        let own = Device::open()?;
        own.fill(&memory, 0..LEN, PATTERN)?;
        both_see(&own, &memory, &overwritten())
    })?
    .succeeds()?;
    both_see(&device, &memory, &content)
}

fn a_write_of_the_parents_cpu_stays_with_it() -> CaseResult {
    let Shared {
        device,
        memory,
        content,
    } = on_device(64)?;
    let (parent_end, child_end) = line()?;
    let child = fork(|| {
        child_end.await_step(1)?;
        both_see(&Device::open()?, &memory, &content)
    })?;
    memory.write(0, &overwritten());
    parent_end.announce(1)?;
    child.succeeds()?;
    both_see(&device, &memory, &overwritten())
}

fn a_write_of_the_parents_device_stays_with_it() -> CaseResult {
    let Shared {
        device,
        memory,
        content,
    } = on_device(65)?;
    // The device holds translations for writing when fork protects the pages.
    device.fill(&memory, 0..PAGE, PATTERN)?;
    let mut content = content;
    content[..PAGE].copy_from_slice(&overwritten()[..PAGE]);
    let (parent_end, child_end) = line()?;
    let child = fork(|| {
        child_end.await_step(1)?;
        both_see(&Device::open()?, &memory, &content)
    })?;
    device.fill(&memory, 0..LEN, PATTERN)?;
    parent_end.announce(1)?;
    child.succeeds()?;
    both_see(&device, &memory, &overwritten())
}

fn the_parents_context_is_not_the_childs() -> CaseResult {
    let Shared {
        device,
        memory,
        content,
    } = on_device(66)?;
    fork(|| {
        refused("submit", device.start(coax::Command::nop()), libc::EPERM)?;
        let range = crate::guest::device::range_of(&memory);
        refused("prefetch", device.prefetch(range), libc::EPERM)?;
        refused("residency", device.residency(range), libc::EPERM)?;
        refused(
            "policy",
            device.set_policy(coax::Policy::Never, None),
            libc::EPERM,
        )
    })?
    .succeeds()?;
    both_see(&device, &memory, &content)
}

fn fork_under_a_running_command() -> CaseResult {
    let Shared { device, memory, .. } = on_device(67)?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;
    // The device goes on writing to one mapping and reading another while children come.
    for round in 0..8u64 {
        let fill = coax::Command::fill(memory.address(), LEN as u64, round);
        let write = device.start(fill)?;
        let child = fork(|| {
            // Each word is of this round or the one before, and does not change any more.
            let first = memory.to_vec();
            let mixed = first.chunks_exact(8).any(|word| {
                let old = round.wrapping_sub(1).to_le_bytes();
                word != round.to_le_bytes() && round > 0 && word != old
            });
            ensure!(!mixed, "The child sees words of neither round");
            same("the child's second look", &memory.to_vec(), &first)
        })?;
        device.finish(write)?;
        child.succeeds()?;
        same(
            "the parent's view",
            &memory.to_vec(),
            &round.to_le_bytes().repeat(LEN / 8),
        )?;
    }
    ring.store(0, 0);
    device.finish(walk)?;
    Ok(())
}

fn device_pages_outlive_the_parent() -> CaseResult {
    let (our_end, grandchild_end) = line()?;
    // The parent of the case is a child itself, so that it can end first.
    fork(|| {
        let Shared {
            device,
            memory,
            content,
        } = on_device(68)?;
        let grandchild = fork(|| {
            grandchild_end.await_step(1)?;
            let seen = both_see(&Device::open()?, &memory, &content);
            grandchild_end.announce(if seen.is_ok() { 2 } else { 3 })?;
            seen
        })?;
        drop(device);
        // It lives on, and is not collected by this process.
        std::mem::forget(grandchild);
        Ok(())
    })?
    .succeeds()?;
    our_end.announce(1)?;
    our_end.await_step(2)
}

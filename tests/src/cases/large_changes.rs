// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Changes of mappings whose huge pages are on the device, and fork: the data is right everywhere,
//! and no device memory stays behind.

use anyhow::{ensure, Result};
use coax::Access;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{faulted, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE, READ_ONLY, READ_WRITE};
use crate::guest::pagemap::{self, Place};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};
use crate::guest::{smaps, wait};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "large_changes",
    cases: &[
        case!(munmap_of_the_middle, "both ends stay").modes(&[Mode::Private]),
        case!(mprotect_of_a_part, "read only for the device too").modes(&[Mode::Private]),
        case!(dontneed_of_a_part, "zeros there, the rest as it was").modes(&[Mode::Private]),
        case!(
            mremap_to_a_boundary,
            "moved in the address space, still whole"
        )
        .modes(&[Mode::Private]),
        case!(mremap_to_an_odd_place, "moved where no huge page fits").modes(&[Mode::Private]),
        case!(
            mremap_that_keeps_the_mapping,
            "MREMAP_DONTUNMAP: zeros at the old place"
        )
        .modes(&[Mode::Private]),
        case!(exit_of_the_process, "nobody unmaps").modes(&[Mode::Private]),
        case!(
            fork_and_a_write_of_the_childs_cpu,
            "the child breaks the sharing"
        )
        .modes(&[Mode::Private]),
        case!(
            fork_and_a_write_of_the_childs_device,
            "the child's context breaks it"
        )
        .modes(&[Mode::Private]),
        case!(
            fork_and_a_write_of_the_parents_cpu,
            "the parent breaks the sharing"
        )
        .modes(&[Mode::Private]),
        case!(
            fork_and_a_write_of_the_parents_device,
            "the parent's context breaks it"
        )
        .modes(&[Mode::Private]),
        case!(
            fork_and_writes_of_both_devices,
            "both contexts write at the same time"
        )
        .modes(&[Mode::Private]),
    ],
};

/// Huge pages of a mapping here.
const COUNT: usize = 2;
const LEN: usize = COUNT * HUGE;
/// Part of the first huge page that a case changes.
const PART: std::ops::Range<usize> = 100 * PAGE..200 * PAGE;
/// What a writer puts into the part.
const PATTERN: u64 = 0x6368_616e_6765_6421;

/// Huge pages with known content, on the device.
struct There {
    device: Device,
    memory: Mapping,
    content: Vec<u8>,
}

fn on_device(seed: u64) -> Result<There> {
    let device = Device::open()?;
    let memory = Mapping::huge(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    let huge = smaps::huge_pages(&memory)?;
    ensure!(huge == COUNT, "{huge} of {COUNT} huge pages are whole");
    Ok(There {
        device,
        memory,
        content,
    })
}

/// Demands that all device memory is free, soon.
fn all_free(device: &Device) -> Result<()> {
    wait::until("Device memory being free", || {
        let info = device.info()?;
        Ok(info.free_pages == info.device_pages)
    })
}

/// Demands that device, CPU and device again see this from `offset` on.
fn sees(device: &Device, memory: &Mapping, offset: usize, content: &[u8]) -> Result<()> {
    let hash = || -> Result<bool> {
        let command = coax::Command::sha256(memory.at(offset), content.len() as u64);
        Ok(device.run(command)?.result == pattern::sha256(content))
    };
    ensure!(hash()?, "The device sees other content");
    let mut seen = vec![0; content.len()];
    memory.read(offset, &mut seen);
    same("the CPU's view", &seen, content)?;
    ensure!(hash()?, "The device sees it no more");
    Ok(())
}

/// The content after the part was written.
fn overwritten(content: &[u8], part: std::ops::Range<usize>, pattern: u64) -> Vec<u8> {
    let mut content = content.to_vec();
    let words = pattern.to_le_bytes().repeat(part.len() / 8);
    content[part].copy_from_slice(&words);
    content
}

fn munmap_of_the_middle() -> CaseResult {
    let There {
        device,
        memory,
        content,
    } = on_device(221)?;
    memory.unmap(PART)?;
    let at = memory.at(PART.start);
    let outcome = device.run(coax::Command::sha256(memory.address(), LEN as u64));
    faulted(outcome, at, Access::Read)?;
    sees(&device, &memory, 0, &content[..PART.start])?;
    sees(&device, &memory, PART.end, &content[PART.end..])?;
    drop(memory);
    all_free(&device)
}

fn mprotect_of_a_part() -> CaseResult {
    let There {
        device,
        memory,
        content,
    } = on_device(222)?;
    memory.protect(PART, READ_ONLY)?;
    let failure = faulted(
        device.fill(&memory, 0..LEN, PATTERN),
        memory.at(PART.start),
        Access::Write,
    )?;
    ensure!(failure.bytes_done == PART.start as u64, "{failure:?}");
    let content = overwritten(&content, 0..PART.start, PATTERN);
    sees(&device, &memory, 0, &content)?;
    memory.protect(PART, READ_WRITE)?;
    device.fill(&memory, PART, PATTERN)?;
    let content = overwritten(&content, PART, PATTERN);
    sees(&device, &memory, 0, &content)?;
    drop(memory);
    all_free(&device)
}

fn dontneed_of_a_part() -> CaseResult {
    let There {
        device,
        memory,
        content,
    } = on_device(223)?;
    memory.advise(PART, libc::MADV_DONTNEED)?;
    let content = overwritten(&content, PART, 0);
    sees(&device, &memory, 0, &content)?;
    drop(memory);
    all_free(&device)
}

/// Moves the mapping in the address space and demands that its pages are still on the device.
fn relocated(there: There, huge: usize, offset: usize) -> CaseResult {
    let There {
        device,
        memory,
        content,
    } = there;
    let old = memory.address();
    let memory = memory.relocate_to_offset(offset)?;
    let pages = pagemap::count(&device.info()?, &memory, Place::Device)?;
    ensure!(pages == memory.pages(), "{pages} pages are on the device");
    let found = smaps::huge_pages(&memory)?;
    ensure!(found == huge, "{found} huge pages at the new place");
    sees(&device, &memory, 0, &content)?;
    faulted(device.run(coax::Command::sha256(old, 8)), old, Access::Read)?;
    drop(memory);
    all_free(&device)
}

fn mremap_to_a_boundary() -> CaseResult {
    relocated(on_device(224)?, COUNT, 0)
}

fn mremap_to_an_odd_place() -> CaseResult {
    relocated(on_device(225)?, 0, 37 * PAGE)
}

fn mremap_that_keeps_the_mapping() -> CaseResult {
    let There {
        device,
        memory,
        content,
    } = on_device(226)?;
    let new = memory.move_content()?;
    sees(&device, &new, 0, &content)?;
    sees(&device, &memory, 0, &vec![0; LEN])?;
    drop((memory, new));
    all_free(&device)
}

fn exit_of_the_process() -> CaseResult {
    fork(|| {
        let There { device, memory, .. } = on_device(227)?;
        // The end of the process finds them in place.
        std::mem::forget((device, memory));
        Ok(())
    })?
    .succeeds()?;
    all_free(&Device::open()?)
}

/// Who writes after the fork, and how.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Writer {
    Cpu,
    Device,
    Nobody,
}

impl Writer {
    /// Writes to the part and returns what is there now.
    fn write(self, device: &Device, memory: &Mapping, pattern: u64, old: &[u8]) -> Result<Vec<u8>> {
        let new = overwritten(old, PART, pattern);
        match self {
            Writer::Cpu => memory.write(PART.start, &new[PART]),
            Writer::Device => drop(device.fill(memory, PART, pattern)?),
            Writer::Nobody => return Ok(old.to_vec()),
        }
        Ok(new)
    }
}

/// Forks, has both sides write what they are to, at the same time, and demands that each sees its
/// own.
fn forked(seed: u64, parent: Writer, child: Writer) -> CaseResult {
    let There {
        device,
        memory,
        content,
    } = on_device(seed)?;
    let (parent_end, child_end) = line()?;
    let process = fork(|| {
        let own = Device::open()?;
        let new = child.write(&own, &memory, PATTERN, &content)?;
        // What the parent writes comes before this look, or at the same time.
        if child == Writer::Nobody {
            child_end.await_step(1)?;
        }
        sees(&own, &memory, 0, &new)
    })?;
    let new = parent.write(&device, &memory, !PATTERN, &content)?;
    parent_end.announce(1)?;
    sees(&device, &memory, 0, &new)?;
    process.succeeds()?;
    sees(&device, &memory, 0, &new)?;
    drop(memory);
    all_free(&device)
}

fn fork_and_a_write_of_the_childs_cpu() -> CaseResult {
    forked(228, Writer::Nobody, Writer::Cpu)
}

fn fork_and_a_write_of_the_childs_device() -> CaseResult {
    forked(229, Writer::Nobody, Writer::Device)
}

fn fork_and_a_write_of_the_parents_cpu() -> CaseResult {
    forked(230, Writer::Cpu, Writer::Nobody)
}

fn fork_and_a_write_of_the_parents_device() -> CaseResult {
    forked(231, Writer::Device, Writer::Nobody)
}

fn fork_and_writes_of_both_devices() -> CaseResult {
    forked(232, Writer::Device, Writer::Device)
}

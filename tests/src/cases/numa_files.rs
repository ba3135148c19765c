// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages of files and shared memory on the device's node: they move there, which only ordinary
//! memory can, and everyone who uses the file sees the same bytes.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{ensure, Context as _, Result};
use coax::Command;
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::signal::Signal;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{faulted, range_of, Device};
use crate::guest::disk::Disk;
use crate::guest::memory::{Mapping, PAGE, READ_WRITE};
use crate::guest::node::{self, MOVE, MOVE_ALL, SYSTEM};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "numa_files",
    cases: &[
        case!(shared_memory_moves, "MAP_SHARED | MAP_ANONYMOUS").modes(NUMA),
        case!(
            memory_of_two_processes_moves,
            "one page table moves, both see it"
        )
        .modes(NUMA),
        case!(
            a_memfd_moves,
            "pages of shmem, read and written through the file"
        )
        .modes(NUMA),
        case!(
            file_pages_move,
            "ext4: pages of the page cache, read and written through the file"
        )
        .modes(NUMA),
        case!(
            device_writes_reach_the_disk,
            "ext4: written by the device on the node, synced, read from the disk"
        )
        .modes(NUMA),
        case!(
            truncation_takes_pages_off_the_node,
            "ext4: the end of the file goes while it is there"
        )
        .modes(NUMA),
        case!(
            pages_move_under_writeback,
            "ext4: written, synced and moved at the same time"
        )
        .modes(NUMA),
        case!(
            a_private_file_mapping_keeps_the_file,
            "MAP_PRIVATE: copies and pages of the file on the node"
        )
        .modes(NUMA),
    ],
};

const NUMA: &[Mode] = &[Mode::Numa];
const LEN: usize = 64 * PAGE;

/// Demands that all pages move to the node and back through libcoax too, and stay what they are.
fn moves(device: &Device, memory: &Mapping, content: &[u8]) -> CaseResult {
    let node = node::of(device)?;
    // What is new comes from the node where system memory was short.
    device.evict(range_of(memory))?;
    let migrated = device.prefetch(range_of(memory))?;
    ensure!(migrated.moved == memory.pages(), "{migrated:?}");
    let there = node::count(memory, node)?;
    ensure!(there == memory.pages(), "{there} pages are on node {node}");
    let residency = device.where_is(memory)?;
    ensure!(residency.device == memory.pages(), "{residency:?}");
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "Wrong digest on the node"
    );
    same("memory on the node", &memory.to_vec(), content)?;
    let migrated = device.evict(range_of(memory))?;
    ensure!(migrated.moved == memory.pages(), "Back: {migrated:?}");
    ensure!(
        node::count(memory, SYSTEM)? == memory.pages(),
        "Pages stayed"
    );
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), content)
}

fn shared_memory_moves() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::shared(LEN)?;
    let content = pattern::bytes(221, LEN);
    memory.write(0, &content);
    moves(&device, &memory, &content)
}

fn memory_of_two_processes_moves() -> CaseResult {
    let node = node::of(&Device::open()?)?;
    let memory = Mapping::shared(LEN)?;
    let content = pattern::bytes(222, LEN);
    memory.write(0, &content);
    let (parent, side) = line()?;
    let child = fork(|| {
        same("memory of the child", &memory.to_vec(), &content)?;
        side.announce(1)?;
        side.await_step(2)?;
        let there = node::count(&memory, node)?;
        ensure!(
            there == memory.pages(),
            "The child sees {there} pages on the node"
        );
        memory.store(PAGE, 17);
        let device = Device::open()?;
        device.fill(&memory, 0..PAGE, 18)?;
        side.announce(3)
    })?;
    parent.await_step(1)?;
    let status = node::move_pages(0, &memory, 0..LEN, node, MOVE)?;
    let denied = status
        .iter()
        .filter(|status| **status == -libc::EACCES)
        .count();
    ensure!(
        denied == LEN / PAGE,
        "MOVE alone: {denied} pages are others' too"
    );
    node::move_pages(0, &memory, 0..LEN, node, MOVE_ALL)?;
    parent.announce(2)?;
    parent.await_step(3)?;
    child.succeeds()?;
    ensure!(
        memory.load(PAGE) == 17 && memory.load(0) == 18,
        "The child's writes are lost"
    );
    let there = node::count(&memory, node)?;
    ensure!(there == memory.pages(), "{there} pages are on the node");
    same(
        "the rest",
        &memory.to_vec()[2 * PAGE..],
        &content[2 * PAGE..],
    )
}

/// Demands that file, mapping and device see each other's writes while the pages are on the node.
fn coherent_on_the_node(device: &Device, file: &File, memory: &Mapping) -> CaseResult {
    device.take(memory)?;
    file.write_all_at(&[0xa1; 100], 10).context("write")?;
    let mut seen = [0; 100];
    memory.read(10, &mut seen);
    same("a write as the mapping shows it", &seen, &[0xa1; 100])?;
    memory.fill(PAGE..PAGE + 100, 0xa2);
    file.read_exact_at(&mut seen, PAGE as u64).context("read")?;
    same("a store as read shows it", &seen, &[0xa2; 100])?;
    device.fill(memory, 2 * PAGE..3 * PAGE, 0xa3)?;
    let mut word = [0; 8];
    file.read_exact_at(&mut word, 2 * PAGE as u64)
        .context("read")?;
    ensure!(
        word == 0xa3u64.to_le_bytes(),
        "read shows {word:?} where the device wrote"
    );
    ensure!(
        device.digest(memory)? == pattern::sha256(&memory.to_vec()),
        "Wrong digest"
    );
    let mut whole = vec![0; memory.len()];
    file.read_exact_at(&mut whole, 0).context("read")?;
    same("the file", &whole, &memory.to_vec())?;
    let there = device.device_pages(memory)?;
    ensure!(
        there == memory.pages(),
        "{there} pages are still on the node"
    );
    Ok(())
}

fn a_memfd_moves() -> CaseResult {
    let device = Device::open()?;
    let fd = memfd_create(c"coax-test", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let mut file = File::from(fd);
    let content = pattern::bytes(223, LEN);
    file.write_all(&content)?;
    let memory = Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)?;
    same("memory", &memory.to_vec(), &content)?;
    moves(&device, &memory, &content)?;
    coherent_on_the_node(&device, &file, &memory)
}

fn file_pages_move() -> CaseResult {
    let device = Device::open()?;
    let disk = Disk::new()?;
    let content = pattern::bytes(224, LEN);
    let (file, memory) = disk.file(&content)?;
    moves(&device, &memory, &content)?;
    coherent_on_the_node(&device, &file, &memory)?;
    let expected = memory.to_vec();
    same("the disk", &disk.reread(file, memory)?, &expected)
}

fn device_writes_reach_the_disk() -> CaseResult {
    let device = Device::open()?;
    let disk = Disk::new()?;
    let (file, memory) = disk.file(&pattern::bytes(225, LEN))?;
    file.sync_all()?;
    device.take(&memory)?;
    let source = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(226, LEN);
    source.write(0, &content);
    device.copy(&memory, &source)?;
    ensure!(
        device.device_pages(&memory)? == memory.pages(),
        "Pages left the node"
    );
    same("the disk", &disk.reread(file, memory)?, &content)
}

fn truncation_takes_pages_off_the_node() -> CaseResult {
    let device = Device::open()?;
    let node = node::of(&device)?;
    let disk = Disk::new()?;
    let content = pattern::bytes(227, LEN);
    let (file, memory) = disk.file(&content)?;
    device.take(&memory)?;
    // So that the device has translations of what goes.
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    file.set_len(LEN as u64 / 2)?;
    // A large folio that lost a part was split, and is mapped again when touched.
    let mut left = vec![0; LEN / 2];
    memory.read(0, &mut left);
    same("what is left", &left, &content[..LEN / 2])?;
    let there = node::count(&memory, node)?;
    ensure!(there == memory.pages() / 2, "{there} pages are on the node");
    let gone = memory.at(LEN / 2);
    let reading = device.run(Command::sha256(gone, PAGE as u64));
    faulted(reading, gone, coax::Access::Read)?;
    fork(|| {
        memory.load(LEN / 2);
        Ok(())
    })?
    .dies_of(Signal::SIGBUS)?;
    file.set_len(LEN as u64)?;
    let mut expected = content;
    expected[LEN / 2..].fill(0);
    ensure!(
        device.digest(&memory)? == pattern::sha256(&expected),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &expected)
}

fn pages_move_under_writeback() -> CaseResult {
    const ROUNDS: u64 = 40;
    let device = Device::open()?;
    let node = node::of(&device)?;
    let disk = Disk::new()?;
    let (file, memory) = disk.file(&pattern::bytes(228, LEN))?;
    let stop = AtomicBool::new(false);
    let moved = std::thread::scope(|scope| -> Result<u64> {
        let mover = scope.spawn(|| -> Result<u64> {
            let mut moved = 0;
            while !stop.load(Ordering::Acquire) {
                for to in [node, SYSTEM] {
                    node::move_pages(0, &memory, 0..LEN, to, MOVE)?;
                    moved += node::count(&memory, to)?;
                }
            }
            Ok(moved)
        });
        let write = || -> CaseResult {
            for round in 1..=ROUNDS {
                for page in 0..LEN / PAGE {
                    memory.store(page * PAGE, round);
                }
                device.fill(&memory, PAGE / 2..PAGE, round)?;
                file.sync_data().context("fdatasync")?;
                let mut word = [0; 8];
                file.read_exact_at(&mut word, LEN as u64 - PAGE as u64)?;
                ensure!(
                    u64::from_le_bytes(word) == round,
                    "{word:?} in round {round}"
                );
            }
            Ok(())
        };
        let written = write();
        stop.store(true, Ordering::Release);
        let moved = mover.join();
        written?;
        moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(moved > 0, "No page moved: the case showed nothing");
    let expected = memory.to_vec();
    for page in 0..LEN / PAGE {
        ensure!(
            memory.load(page * PAGE) == ROUNDS,
            "Page {page} has {}",
            memory.load(page * PAGE)
        );
    }
    ensure!(
        memory.load(PAGE / 2) == ROUNDS,
        "The device's write is lost"
    );
    same("the disk", &disk.reread(file, memory)?, &expected)
}

fn a_private_file_mapping_keeps_the_file() -> CaseResult {
    let device = Device::open()?;
    let disk = Disk::new()?;
    let content = pattern::bytes(229, LEN);
    let (file, shared) = disk.file(&content)?;
    drop(shared);
    let memory = Mapping::file_private(file.as_fd(), LEN)?;
    memory.fill(0..LEN / 2, 9);
    let mut expected = content.clone();
    expected[..LEN / 2].fill(9);
    same("memory", &memory.to_vec(), &expected)?;
    moves(&device, &memory, &expected)?;
    device.take(&memory)?;
    device.fill(&memory, LEN / 2..LEN, 11)?;
    ensure!(
        memory.load(LEN - 8) == 11,
        "The mapping has {:#x}",
        memory.load(LEN - 8)
    );
    let mut seen = vec![0; LEN];
    file.read_exact_at(&mut seen, 0)?;
    same("the file", &seen, &content)
}

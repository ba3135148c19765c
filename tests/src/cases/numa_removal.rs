// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The node emptied, and taken out of the system.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{ensure, Context as _, Result};
use nix::unistd::pipe;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{refused, Device};
use crate::guest::memory::{Mapping, PAGE, READ_WRITE};
use crate::guest::module;
use crate::guest::node::{self, Placement, MOVE, SYSTEM};
use crate::guest::pattern::{self, same};
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "numa_removal",
    cases: &[
        case!(
            a_reset_empties_the_node,
            "all pages come back, the node too"
        )
        .modes(NUMA)
        .in_vm(Vm::Lifecycle),
        case!(a_node_that_is_held_says_so, "a pipe has pages of the node")
            .modes(NUMA)
            .in_vm(Vm::Lifecycle),
        case!(
            unloading_removes_the_node,
            "bound memory and a file on the node, no file open"
        )
        .modes(NUMA)
        .in_vm(Vm::Lifecycle),
        case!(unbinding_waits_for_held_pages, "and says so")
            .modes(NUMA)
            .in_vm(Vm::Lifecycle),
        case!(
            blocks_go_offline_and_online,
            "an administrator empties a part"
        )
        .modes(NUMA)
        .in_vm(Vm::Lifecycle),
    ],
};

const NUMA: &[Mode] = &[Mode::Numa];
const LEN: usize = 256 * PAGE;

/// Anonymous memory on the node, bound there, and its content.
fn on_the_node(device: &Device, seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    node::bind(&memory, Placement::Bind, node::of(device)?, MOVE)?;
    ensure!(
        device.device_pages(&memory)? == memory.pages(),
        "Pages did not move"
    );
    Ok((memory, content))
}

/// Pages that cannot move until this value is read empty.
fn held(memory: &Mapping) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe()?;
    memory.pin_in_pipe(0..4 * PAGE, writer.as_fd())?;
    Ok((reader, writer))
}

fn a_reset_empties_the_node() -> CaseResult {
    let device = Device::open()?;
    let node = node::of(&device)?;
    let (memory, content) = on_the_node(&device, 241)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.reset()?;
    ensure!(
        node::count(&memory, SYSTEM)? == memory.pages(),
        "Pages stayed"
    );
    ensure!(node::has_memory(node)?, "Node {node} is gone");
    let info = device.info()?;
    ensure!(
        info.free_pages == info.device_pages,
        "{} pages are free",
        info.free_pages
    );
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)?;
    device.take(&memory)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)
}

fn a_node_that_is_held_says_so() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_the_node(&device, 242)?;
    let (reader, _writer) = held(&memory)?;
    refused("reset", device.reset(), libc::EBUSY)?;
    let have = node::meminfo(node::of(&device)?, "MemTotal")?;
    ensure!(
        have == device.info()?.device_pages,
        "{have} pages are online"
    );
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    let mut seen = vec![0; 4 * PAGE];
    File::from(reader).read_exact(&mut seen)?;
    same("what comes out of the pipe", &seen, &content[..4 * PAGE])?;
    device.reset()?;
    ensure!(device.device_pages(&memory)? == 0, "Pages stayed");
    same("memory", &memory.to_vec(), &content)
}

fn unloading_removes_the_node() -> CaseResult {
    let device = Device::open()?;
    let node = node::of(&device)?;
    let (memory, content) = on_the_node(&device, 243)?;
    let file = nix::sys::memfd::memfd_create(c"coax-test", nix::sys::memfd::MFdFlags::empty())?;
    let file = File::from(file);
    file.set_len(LEN as u64)?;
    let shared = Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)?;
    shared.write(0, &content);
    device.take(&shared)?;
    drop(device);
    module::unload().context("Unloading with pages on the node")?;
    ensure!(
        !node::has_memory(node)?,
        "Node {node} is there without the driver"
    );
    ensure!(
        node::count(&memory, SYSTEM)? == memory.pages(),
        "Pages are nowhere"
    );
    let iomem = fs::read_to_string("/proc/iomem").context("/proc/iomem")?;
    ensure!(!iomem.contains("(coax)"), "{iomem}");
    same("memory", &memory.to_vec(), &content)?;
    same("the file", &shared.to_vec(), &content)?;
    module::load(Mode::Numa)?;
    let device = Device::open()?;
    ensure!(node::has_memory(node)?, "Node {node} is not there again");
    device.take(&shared)?;
    ensure!(
        device.digest(&shared)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("the file", &shared.to_vec(), &content)
}

fn unbinding_waits_for_held_pages() -> CaseResult {
    let name = module::bound_device()?;
    let device = Device::open()?;
    let node = node::of(&device)?;
    let (memory, content) = on_the_node(&device, 244)?;
    let (reader, _writer) = held(&memory)?;
    drop(device);
    std::thread::scope(|scope| -> Result<()> {
        let unbinding = scope.spawn(|| module::unbind(&name));
        wait::until("The driver saying that the node is held", || {
            kernel_said("cannot be taken out of the system")
        })?;
        ensure!(node::has_memory(node)?, "The node is gone");
        ensure!(!unbinding.is_finished(), "Unbinding did not wait");
        let mut seen = vec![0; 4 * PAGE];
        File::from(reader).read_exact(&mut seen)?;
        same("what comes out of the pipe", &seen, &content[..4 * PAGE])?;
        let unbound = unbinding.join();
        unbound.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(!node::has_memory(node)?, "The node is still there");
    same("memory", &memory.to_vec(), &content)?;
    module::bind(&name)?;
    Device::open()?.take(&memory)?;
    same("memory", &memory.to_vec(), &content)
}

/// Whether these words are in the kernel's log.
fn kernel_said(words: &str) -> Result<bool> {
    let output = std::process::Command::new("/bin/busybox")
        .arg("dmesg")
        .output();
    let output = output.context("dmesg")?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(words))
}

fn blocks_go_offline_and_online() -> CaseResult {
    let device = Device::open()?;
    let node = node::of(&device)?;
    let (memory, content) = on_the_node(&device, 245)?;
    let blocks = node::blocks(node)?;
    for block in &blocks {
        fs::write(block.join("state"), "offline").context("offline")?;
    }
    ensure!(!node::has_memory(node)?, "Node {node} has memory");
    ensure!(
        device.info()?.free_pages == 0,
        "The driver knows free pages"
    );
    let prefetched = device.prefetch(crate::guest::device::range_of(&memory));
    refused("prefetch", prefetched, libc::ENODEV)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)?;
    for block in &blocks {
        fs::write(block.join("state"), "online_movable").context("online_movable")?;
    }
    device.take(&memory)?;
    same("memory", &memory.to_vec(), &content)
}

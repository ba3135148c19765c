// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory nodes as programs know them: the system calls that place and move pages, and what the
//! kernel shows of nodes.

// UNSAFETY: neither libc nor nix has the calls on memory nodes.
#![expect(unsafe_code)]

use std::fs;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};

use super::device::Device;
use super::memory::{Mapping, PAGE};
use super::process::fork;
use crate::case::CaseResult;

/// The node of the CPUs.
pub const SYSTEM: u32 = 0;

/// Only pages that this process alone maps are moved.
pub const MOVE: i32 = 1 << 1;
/// Pages that others map too are moved as well.
pub const MOVE_ALL: i32 = 1 << 2;

/// How memory is placed (`MPOL_*` of `include/uapi/linux/mempolicy.h`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Placement {
    /// As the task's policy, or the kernel, has it.
    Default = 0,
    /// On the node while it has room.
    Preferred = 1,
    /// On the node only.
    Bind = 2,
}

/// Bits of a node mask: one word.
const MASK_BITS: usize = 64;

/// The node that the device's memory is.
pub fn of(device: &Device) -> Result<u32> {
    let info = device.info()?;
    ensure!(info.node != coax::NO_NODE, "The device has no memory node");
    Ok(info.node)
}

/// Where each page of a range is: a node, or a negative errno.
pub fn places(mapping: &Mapping, range: Range<usize>) -> Result<Vec<i32>> {
    let pages = addresses(mapping, range);
    let mut status = vec![0; pages.len()];
    let none: *const i32 = std::ptr::null();
    // SAFETY: the arrays have as many elements as the call is told; it only looks at the pages.
    let result = unsafe {
        let (pages, count) = (pages.as_ptr(), pages.len());
        libc::syscall(
            libc::SYS_move_pages,
            0,
            count,
            pages,
            none,
            status.as_mut_ptr(),
            0,
        )
    };
    ensure!(result == 0, "move_pages to look: {}", last_error());
    Ok(status)
}

/// Pages of the mapping that are on the node.
pub fn count(mapping: &Mapping, node: u32) -> Result<u64> {
    let places = places(mapping, 0..mapping.len())?;
    let on = places
        .iter()
        .filter(|place| u32::try_from(**place) == Ok(node));
    Ok(on.count() as u64)
}

/// `move_pages(2)` for a range of process `pid` (0: this one), whose mapping lies where this process
/// has it: the status of each page.
pub fn move_pages(
    pid: u32,
    mapping: &Mapping,
    range: Range<usize>,
    node: u32,
    flags: i32,
) -> io::Result<Vec<i32>> {
    let pages = addresses(mapping, range);
    let nodes = vec![node; pages.len()];
    let mut status = vec![0; pages.len()];
    // SAFETY: the arrays have as many elements as the call is told; moving pages changes neither
    // their content nor where they are mapped.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            pages.len(),
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            flags,
        )
    };
    if result < 0 {
        return Err(last_error());
    }
    Ok(status)
}

/// Moves the whole mapping and demands that all of it got there.
pub fn move_to(mapping: &Mapping, node: u32) -> Result<()> {
    let status = move_pages(0, mapping, 0..mapping.len(), node, MOVE).context("move_pages")?;
    let there = count(mapping, node)?;
    ensure!(
        there == mapping.pages(),
        "{there} of {} pages are on node {node}: {:?}",
        mapping.pages(),
        status
            .iter()
            .find(|status| u32::try_from(**status) != Ok(node)),
    );
    Ok(())
}

/// `mbind(2)`: how the mapping is placed from now on, and with [`MOVE`] also what is there already.
pub fn bind(mapping: &Mapping, placement: Placement, node: u32, flags: i32) -> io::Result<()> {
    let mask = 1u64 << node;
    // SAFETY: the mask has the bits that the call is told; placement changes no content.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            mapping.address(),
            mapping.len(),
            placement as i32,
            &raw const mask,
            MASK_BITS + 1,
            flags,
        )
    };
    done(result)
}

/// `set_mempolicy(2)`: how this thread, and the children it makes, get memory from now on.
pub fn set_policy(placement: Placement, node: u32) -> io::Result<()> {
    let mask = match placement {
        Placement::Default => 0u64,
        _ => 1 << node,
    };
    // SAFETY: the mask has the bits that the call is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            placement as i32,
            &raw const mask,
            MASK_BITS + 1,
        )
    };
    done(result)
}

/// Runs `body` in a child that may have memory of this node alone (`cpuset.mems`), and demands that it
/// succeeds.
pub fn confined_to(node: u32, body: impl FnOnce() -> CaseResult) -> Result<()> {
    const ROOT: &str = "/sys/fs/cgroup";
    let group = format!("{ROOT}/coax-test");
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+cpuset").context("cpuset")?;
    fs::create_dir_all(&group).context(group.clone())?;
    fs::write(format!("{group}/cpuset.mems"), node.to_string()).context("cpuset.mems")?;
    let ended = fork(|| {
        fs::write(format!("{group}/cgroup.procs"), "0").context("cgroup.procs")?;
        body()
    })?
    .succeeds();
    fs::remove_dir(&group).context(group)?;
    ended
}

/// `migrate_pages(2)`: moves what process `pid` has on one node to another.
pub fn migrate_process(pid: u32, from: u32, to: u32) -> io::Result<()> {
    let (from, to) = (1u64 << from, 1u64 << to);
    // SAFETY: the masks have the bits that the call is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_migrate_pages,
            pid,
            MASK_BITS + 1,
            &raw const from,
            &raw const to,
        )
    };
    done(result)
}

/// A number in `nodeN/meminfo`, in pages.
pub fn meminfo(node: u32, field: &str) -> Result<u64> {
    let path = folder(node).join("meminfo");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let name = format!("{field}:");
    let mut words = text.split_whitespace().skip_while(|word| *word != name);
    let kib = words.nth(1).with_context(|| format!("{field} in {text}"))?;
    let kib: u64 = kib.parse().with_context(|| kib.to_owned())?;
    Ok(kib / (PAGE as u64 >> 10))
}

/// Whether the node has memory that is online.
pub fn has_memory(node: u32) -> Result<bool> {
    let path = "/sys/devices/system/node/has_memory";
    let text = fs::read_to_string(path).context(path)?;
    Ok(in_list(text.trim(), node))
}

/// The folders of the node's memory blocks.
pub fn blocks(node: u32) -> Result<Vec<PathBuf>> {
    let folder = folder(node);
    let mut blocks = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_string_lossy()
            .strip_prefix("memory")
            .map(str::to_owned);
        if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            blocks.push(entry.path());
        }
    }
    blocks.sort();
    Ok(blocks)
}

/// The node's folder in sysfs.
pub fn folder(node: u32) -> PathBuf {
    PathBuf::from(format!("/sys/devices/system/node/node{node}"))
}

/// What `/proc/self/numa_maps` says of the mapping: policy and counts, in its own words.
pub fn numa_maps(mapping: &Mapping) -> Result<String> {
    let text = fs::read_to_string("/proc/self/numa_maps").context("/proc/self/numa_maps")?;
    let start = format!("{:x} ", mapping.address());
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    Ok(line
        .with_context(|| format!("No {start}in\n{text}"))?
        .to_owned())
}

/// Whether a list like `0-1,4` has the number.
fn in_list(list: &str, number: u32) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.parse::<u32>(), last.parse::<u32>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

fn addresses(mapping: &Mapping, range: Range<usize>) -> Vec<u64> {
    range
        .step_by(PAGE)
        .map(|offset| mapping.at(offset))
        .collect()
}

fn done(result: i64) -> io::Result<()> {
    match result {
        0 => Ok(()),
        // A positive number is pages that stayed, which the caller looks for itself.
        positive if positive > 0 => Ok(()),
        _ => Err(last_error()),
    }
}

fn last_error() -> io::Error {
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::in_list;

    #[test]
    fn lists_of_nodes_have_ranges() {
        assert!(in_list("0-1,4", 1) && in_list("0-1,4", 4) && in_list("0", 0));
        assert!(!in_list("0-1,4", 2) && !in_list("", 0));
    }
}

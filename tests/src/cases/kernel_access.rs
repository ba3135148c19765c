// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel itself uses pages on the device: system calls on buffers there, and access to the
//! memory of another process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use anyhow::{ensure, Context as _, Result};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::unistd::pipe;

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "kernel_access",
    cases: &[
        case!(
            write_from_device_pages,
            "write(2) from a buffer on the device"
        ),
        case!(
            read_into_device_pages,
            "read(2) into a buffer on the device"
        ),
        case!(
            sockets_take_and_give_device_pages,
            "send and receive with buffers on the device"
        ),
        case!(
            pinned_pages_are_used_in_place,
            "pages in a pipe cannot move, and the device works on them"
        ),
        case!(
            another_process_reads_device_pages,
            "/proc/PID/mem of a process with pages there"
        ),
        case!(
            another_process_writes_device_pages,
            "/proc/PID/mem, written"
        ),
    ],
};

const LEN: usize = 16 * PAGE;

/// Memory with known content, on the device.
fn on_device(device: &Device, seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    Ok((memory, content))
}

fn memfd() -> Result<File> {
    let fd = memfd_create(c"coax-test", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    Ok(File::from(fd))
}

fn write_from_device_pages() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_device(&device, 151)?;
    let file = memfd()?;
    let sent = memory.send(0..LEN, file.as_fd())?;
    ensure!(sent == LEN, "{sent} bytes written");
    let mut seen = vec![0; LEN];
    file.read_exact_at(&mut seen, 0)?;
    same("file", &seen, &content)
}

fn read_into_device_pages() -> CaseResult {
    let device = Device::open()?;
    let (memory, mut content) = on_device(&device, 152)?;
    let file = memfd()?;
    let (from, part) = (100, pattern::bytes(153, 3 * PAGE));
    file.write_all_at(&part, 0)?;
    let got = memory.receive(from..from + part.len(), file.as_fd())?;
    ensure!(got == part.len(), "{got} bytes read");
    content[from..from + part.len()].copy_from_slice(&part);
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "The device sees old data"
    );
    same("memory", &memory.to_vec(), &content)
}

fn sockets_take_and_give_device_pages() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_device(&device, 154)?;
    let (mut one, other) = UnixStream::pair()?;
    let sent = memory.send(0..PAGE, one.as_fd())?;
    ensure!(sent == PAGE, "{sent} bytes sent");
    let mut seen = vec![0; PAGE];
    (&other).read_exact(&mut seen)?;
    same("received", &seen, &content[..PAGE])?;
    device.take(&memory)?;
    let answer = pattern::bytes(155, 1000);
    (&other).write_all(&answer)?;
    let got = memory.receive(PAGE..PAGE + 1000, one.as_fd())?;
    ensure!(got == 1000, "{got} bytes received");
    let mut expected = content;
    expected[PAGE..PAGE + 1000].copy_from_slice(&answer);
    one.flush()?;
    same("memory", &memory.to_vec(), &expected)
}

fn pinned_pages_are_used_in_place() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let mut content = pattern::bytes(158, LEN);
    memory.write(0, &content);
    let (reader, writer) = pipe()?;
    let pinned = 4 * PAGE;
    let taken = memory.pin_in_pipe(0..pinned, writer.as_fd())?;
    ensure!(taken == pinned, "{taken} bytes in the pipe");
    let migrated = device.prefetch(range_of(&memory))?;
    let expected = (memory.pages() - 4, 4);
    ensure!((migrated.moved, migrated.left) == expected, "{migrated:?}");
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.fill(&memory, 0..PAGE, 0)?;
    content[..PAGE].fill(0);
    // The pipe holds the same pages, not copies.
    let mut seen = vec![0; pinned];
    File::from(reader).read_exact(&mut seen)?;
    same("what comes out of the pipe", &seen, &content[..pinned])?;
    same("memory", &memory.to_vec(), &content)?;
    // Free to move again.
    device.take(&memory)
}

fn another_process_reads_device_pages() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = on_device(&device, 156)?;
    let path = format!("/proc/{}/mem", std::process::id());
    fork(|| {
        let mut seen = vec![0; LEN];
        let file = File::open(&path).with_context(|| path.clone())?;
        file.read_exact_at(&mut seen, memory.address())
            .context("Reading the parent's memory")?;
        same("the parent's memory", &seen, &content)
    })?
    .succeeds()?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    Ok(())
}

fn another_process_writes_device_pages() -> CaseResult {
    let (parent_end, child_end) = line()?;
    let memory = Mapping::anonymous(LEN)?;
    // The child's own memory, at an address that the parent knows.
    let child = fork(|| {
        let device = Device::open()?;
        memory.write(0, &pattern::bytes(157, LEN));
        device.take(&memory)?;
        child_end.announce(1)?;
        child_end.await_step(2)?;
        let mut expected = pattern::bytes(157, LEN);
        expected[PAGE + 7..3 * PAGE].fill(0x99);
        ensure!(
            device.digest(&memory)? == pattern::sha256(&expected),
            "The device sees old data"
        );
        same("memory", &memory.to_vec(), &expected)
    })?;
    parent_end.await_step(1)?;
    let path = format!("/proc/{}/mem", child.pid());
    let file = File::options()
        .write(true)
        .open(&path)
        .with_context(|| path.clone())?;
    file.write_all_at(&vec![0x99; 2 * PAGE - 7], memory.at(PAGE + 7))
        .context("Writing the child's memory")?;
    parent_end.announce(2)?;
    child.succeeds()
}

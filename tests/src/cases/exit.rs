// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes that end, orderly or not: the device lets go of their memory, and device memory
//! and contexts come back.

use std::os::fd::AsFd;

use anyhow::{ensure, Context as _, Result};
use coax::Command;
use coax_specification::covers;
use nix::sys::signal::Signal;

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::Device;
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line, Line};
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "exit",
    cases: &[
        case!(
            a_process_killed_in_mid_command_leaves_nothing,
            "SIGKILL during a walk without end"
        ),
        case!(
            a_process_killed_with_device_pages_leaves_nothing,
            "SIGKILL, pages on the device"
        ),
        case!(
            a_process_killed_in_many_commands_leaves_nothing,
            "SIGKILL, all queues full"
        ),
        case!(
            exit_without_close_leaves_nothing,
            "the kernel closes for the program"
        ),
        case!(
            a_fatal_signal_in_wait_ends_the_process,
            "SIGKILL while it sleeps in the driver"
        ),
        case!(
            closing_in_mid_command_ends_the_command,
            "close, the process lives on"
        ),
        case!(
            device_pages_outlive_the_context,
            "close, the memory lives on"
        ),
        case!(a_context_ends_with_its_last_descriptor, "dup keeps it"),
    ],
};

const LEN: usize = 256 * PAGE;

/// What must be as before when a process is gone.
#[derive(Debug, Eq, PartialEq)]
struct Usage {
    free_pages: u64,
    contexts: u64,
}

fn usage(device: &Device) -> Result<Usage> {
    let (info, stats) = (device.info()?, device.stats()?);
    Ok(Usage {
        free_pages: info.free_pages,
        contexts: stats.contexts,
    })
}

/// Runs a child up to its announcement, kills it, and waits until nothing of it is left.
fn killed_leaves_nothing(body: impl FnOnce(&Line) -> CaseResult) -> CaseResult {
    let witness = Device::open()?;
    let before = usage(&witness)?;
    let (parent_end, child_end) = line()?;
    let child = fork(|| body(&child_end))?;
    parent_end.await_step(1)?;
    child.kill()?;
    wait::until("Everything of the killed process being free", || {
        Ok(usage(&witness)? == before)
    })?;
    witness
        .run(Command::nop())
        .context("Command after the kill")?;
    Ok(())
}

/// Says that it is ready and waits to be killed.
fn ready(end: &Line) -> CaseResult {
    end.announce(1)?;
    loop {
        nix::unistd::pause();
    }
}

fn a_process_killed_in_mid_command_leaves_nothing() -> CaseResult {
    killed_leaves_nothing(|end| {
        let device = Device::open()?;
        let ring = Mapping::anonymous(LEN)?;
        list::start_endless(&device, &ring)?;
        ready(end)
    })
}

fn a_process_killed_with_device_pages_leaves_nothing() -> CaseResult {
    killed_leaves_nothing(|end| {
        let device = Device::open()?;
        let memory = Mapping::anonymous(16 * LEN)?;
        memory.fill(0..memory.len(), 9);
        device.take(&memory)?;
        ready(end)
    })
}

fn a_process_killed_in_many_commands_leaves_nothing() -> CaseResult {
    covers!("coax.drv.12");
    killed_leaves_nothing(|end| {
        let mut rings = Vec::new();
        for _ in 0..8 {
            let device = Device::open()?;
            for _ in 0..32 {
                let ring = Mapping::anonymous(4 * PAGE)?;
                list::lay(&ring, ring.address());
                device.start(list::walk(&ring, u64::MAX))?;
                rings.push(ring);
            }
            // Stays open until the process is gone.
            std::mem::forget(device);
        }
        ready(end)
    })
}

fn exit_without_close_leaves_nothing() -> CaseResult {
    let witness = Device::open()?;
    let before = usage(&witness)?;
    fork(|| {
        let device = Device::open()?;
        let ring = Mapping::anonymous(LEN)?;
        list::start_endless(&device, &ring)?;
        // `fork` ends the child at once after this, and runs no destructors of these.
        std::mem::forget((device, ring));
        Ok(())
    })?
    .succeeds()?;
    wait::until("Everything of the process being free", || {
        Ok(usage(&witness)? == before)
    })
}

fn a_fatal_signal_in_wait_ends_the_process() -> CaseResult {
    let witness = Device::open()?;
    let before = usage(&witness)?;
    let (parent_end, child_end) = line()?;
    let child = fork(|| {
        let device = Device::open()?;
        let ring = Mapping::anonymous(LEN)?;
        let walk = list::start_endless(&device, &ring)?;
        child_end.announce(1)?;
        device.wait(walk, None)?;
        Ok(())
    })?;
    parent_end.await_step(1)?;
    let status = format!("/proc/{}/stat", child.pid());
    wait::until("The child sleeping in the driver", || {
        Ok(std::fs::read_to_string(&status)?.contains(" S "))
    })?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.pid())?),
        Signal::SIGKILL,
    )?;
    child.dies_of(Signal::SIGKILL)?;
    wait::until("Everything of the process being free", || {
        Ok(usage(&witness)? == before)
    })
}

fn closing_in_mid_command_ends_the_command() -> CaseResult {
    let witness = Device::open()?;
    let before = usage(&witness)?;
    let device = Device::open()?;
    let ring = Mapping::anonymous(LEN)?;
    list::start_endless(&device, &ring)?;
    drop(device);
    // The memory is the program's own again.
    ring.fill(0..LEN, 4);
    drop(ring);
    wait::until("Everything of the context being free", || {
        Ok(usage(&witness)? == before)
    })
}

fn device_pages_outlive_the_context() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(91, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    drop(device);
    same("memory after the close", &memory.to_vec(), &content)?;
    let device = Device::open()?;
    let digest = device.digest(&memory)?;
    ensure!(digest == pattern::sha256(&content), "Wrong digest");
    Ok(())
}

fn a_context_ends_with_its_last_descriptor() -> CaseResult {
    let witness = Device::open()?;
    let device = Device::open()?;
    let before = usage(&witness)?;
    let second = device.as_fd().try_clone_to_owned()?;
    drop(device);
    ensure!(
        usage(&witness)? == before,
        "The context went with one of two descriptors"
    );
    drop(second);
    wait::until("The context being gone", || {
        Ok(witness.stats()?.contexts == before.contexts - 1)
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opening the device holds up nobody who opens something else, and cannot be used to keep others out.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _};
use coax::Command;
use coax_program::outln;
use nix::unistd::{setgid, setuid, Gid, Uid};

use crate::case;
use crate::case::{CaseResult, Subject, Vm};
use crate::guest::device::Device;
use crate::guest::process::{fork, line};
use crate::guest::wait;
use crate::request::Request;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "openers",
    cases: &[
        case!(
            others_open_other_devices_while_the_device_is_stopped,
            "a device of the kernel's misc class beside an open that waits for the back end"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            a_user_with_all_contexts_leaves_room_for_another_user,
            "one unprivileged user opens until refused, then another opens"
        )
        .in_vm(Vm::Lifecycle),
    ],
};

/// How long the back end is stopped.
const STOPPED: Duration = Duration::from_secs(8);
/// What an empty command does not take while the device lives.
const SILENCE: Duration = Duration::from_millis(500);
/// What an open takes that waits for nobody, on a busy host.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A device of the misc class that every guest has.
const OTHER: &str = "/dev/fuse";

const OPENING: u8 = 1;
const FULL: u8 = 2;
const DONE: u8 = 3;

fn others_open_other_devices_while_the_device_is_stopped() -> CaseResult {
    let (ours, theirs) = line()?;
    let opener = fork(|| {
        theirs.await_step(OPENING)?;
        theirs.announce(OPENING)?;
        // It is open when the back end goes on, or refused before.
        Device::open().map(drop).or_else(|error| {
            let gone = [libc::EIO, libc::ENODEV].contains(&error.errno());
            gone.then_some(()).ok_or(error)
        })?;
        Ok(())
    })?;
    let device = Device::open()?;
    outln!("{}", Request::StopDeviceFor(STOPPED))?;
    let since = Instant::now();
    wait::until("The device being stopped", || {
        let empty = device.start(Command::nop()).context("An empty command")?;
        match device.wait(empty, Some(SILENCE)) {
            Err(error) if error.errno() == libc::ETIMEDOUT => Ok(true),
            Err(error) => Err(error).context("An empty command"),
            Ok(_) => Ok(false),
        }
    })?;
    ours.announce(OPENING)?;
    ours.await_step(OPENING)?;
    let pid = opener.pid();
    wait::until("The opener waiting in the kernel", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("Its state")?;
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        Ok(state != Some('R'))
    })?;
    let begin = Instant::now();
    File::open(OTHER).context(OTHER)?;
    let took = begin.elapsed();
    ensure!(
        begin.duration_since(since) < STOPPED - AT_ONCE,
        "The host is too busy: the stop is nearly over after {:?}",
        begin.duration_since(since)
    );
    ensure!(
        took < AT_ONCE,
        "Opening {OTHER} took {took:?} while somebody was opening a stopped device"
    );
    opener.succeeds()?;
    wait::until("The device at work", || {
        Ok(Device::open()
            .and_then(|device| device.run(Command::nop()))
            .is_ok())
    })
}

fn become_user(number: u32) -> CaseResult {
    setgid(Gid::from_raw(number)).context("setgid")?;
    setuid(Uid::from_raw(number)).context("setuid")
}

fn a_user_with_all_contexts_leaves_room_for_another_user() -> CaseResult {
    /// More than any device here has.
    const MOST: usize = 1000;
    let (ours, theirs) = line()?;
    let greedy = fork(|| {
        become_user(65534)?;
        let mut open = Vec::new();
        while open.len() < MOST {
            match Device::open() {
                Ok(device) => open.push(device),
                Err(error) => {
                    outln!("refused after {} contexts: {error}", open.len())?;
                    break;
                }
            }
        }
        ensure!(!open.is_empty(), "The first open was refused");
        ensure!(open.len() < MOST, "There seems to be no end of contexts");
        theirs.announce(FULL)?;
        theirs.await_step(DONE)
    })?;
    ours.await_step(FULL)?;
    let other = fork(|| {
        become_user(1000)?;
        let device = Device::open().context("Another user's open")?;
        device.run(Command::nop())?;
        Ok(())
    })?;
    let opened = other.succeeds();
    ours.announce(DONE)?;
    greedy.succeeds()?;
    opened
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Contexts that are closed while the driver is in a fault for them that does not end: a write to a file
//! system that is frozen.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Error};
use coax_specification::covers;
use nix::unistd::{setuid, Uid};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{refused, Device};
use crate::guest::disk::Disk;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::process::{fork, line};
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "endings",
    cases: &[
        case!(
            a_number_is_not_given_out_while_its_worker_lives,
            "close under a fault that does not end, and open"
        ),
        case!(
            contexts_that_cannot_end_are_limited,
            "a user who closes context after context under such faults"
        ),
    ],
};

const LEN: usize = 16 * PAGE;
/// Longest close.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A user without privilege, and the part of the contexts that they may have.
const USER: u32 = 1000;
const USER_SHARE: usize = 4;

/// Number of the context.
fn number(device: &Device) -> Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", device.as_fd().as_raw_fd());
    let info = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let number = info
        .lines()
        .find_map(|line| line.strip_prefix("coax-context:"));
    Ok(number.context(path)?.trim().parse()?)
}

/// A context for which the driver is in a fault that does not end.
fn stuck(memory: &Mapping) -> Result<Device> {
    let device = Device::open()?;
    let before = device.stats()?.context_page_requests;
    device.start(Command::fill(memory.address(), memory.len() as u64, 1))?;
    wait::until("The device's page request", || {
        Ok(device.stats()?.context_page_requests > before)
    })?;
    Ok(device)
}

/// Freezes a file system while `body` runs, which gets a mapping of a file on it. Its faults are to be those of
/// other processes: one that is in a fault can change no mapping, and this process has to thaw.
fn frozen<T>(body: impl FnOnce(&Mapping) -> Result<T>) -> Result<T> {
    let disk = Disk::new()?;
    let (_file, memory) = disk.file(&[0; LEN])?;
    disk.freeze()?;
    let outcome = body(&memory);
    disk.thaw()?;
    outcome
}

fn a_number_is_not_given_out_while_its_worker_lives() -> CaseResult {
    covers!("coax.drv.11");
    let watch = Device::open()?;
    let before = watch.stats()?.contexts;
    // The next to open gets it.
    let taken = number(&Device::open()?)?;
    let closer = frozen(|memory| {
        let (theirs, ours) = line()?;
        let closer = fork(|| {
            let device = stuck(memory)?;
            ensure!(number(&device)? == taken, "Another number");
            let closing = Instant::now();
            drop(device);
            let took = closing.elapsed();
            ensure!(took < AT_ONCE, "Closing took {took:?}");
            theirs.announce(1)
        })?;
        ours.await_step(1)?;
        for round in 0..32 {
            let next = Device::open()?;
            ensure!(
                number(&next)? != taken,
                "Round {round}: {taken} is given out again"
            );
            next.run(Command::nop())?;
        }
        Ok(closer)
    })?;
    closer.succeeds()?;
    wait::until("The context being gone", || {
        Ok(watch.stats()?.contexts == before)
    })?;
    let next = number(&Device::open()?)?;
    ensure!(
        next == taken,
        "Number {taken} stays taken, {next} is given out"
    );
    Ok(())
}

fn contexts_that_cannot_end_are_limited() -> CaseResult {
    let watch = Device::open()?;
    let before = watch.stats()?.contexts;
    let limit = watch.info()?.max_contexts as usize / USER_SHARE;
    frozen(|memory| {
        let (theirs, ours) = line()?;
        let greedy = fork(|| {
            setuid(Uid::from_raw(USER)).context("setuid")?;
            let mut closed = 0;
            let refusal = loop {
                match stuck(memory) {
                    Ok(device) => drop(device),
                    Err(error) => break error,
                }
                closed += 1;
                ensure!(closed <= limit, "{closed} contexts were closed");
            };
            let refusal = refusal.downcast::<Error>()?;
            refused::<Device>("one context more", Err(refusal), libc::EMFILE)?;
            ensure!(closed == limit, "{closed} contexts of {limit}");
            theirs.announce(1)
        })?;
        let waited = ours.await_step(1);
        Device::open()
            .context("Another user")?
            .run(Command::nop())?;
        waited?;
        greedy.succeeds()
    })?;
    wait::until("The contexts being gone", || {
        Ok(watch.stats()?.contexts == before)
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A context closed while the kernel is still resolving a fault for it, on a file whose server does not
//! answer: what comes of that fault later is nobody else's, and costs nothing meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use coax::Command;

use crate::case;
use crate::case::{CaseResult, Skip, Subject, Vm};
use crate::guest::device::Device;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::mute::Mute;
use crate::guest::pattern::sha256;
use crate::guest::process::{fork, line, Line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "unanswered",
    cases: &[
        case!(
            an_answer_for_a_closed_context_reaches_no_other,
            "all tags of the device outstanding at the close, the same addresses in the next process"
        )
        .in_vm(Vm::Lifecycle)
        .limit(LIMIT),
        case!(
            contexts_closed_while_a_fault_hangs_cost_no_memory,
            "20,000 times open and close beside a closed context whose fault has not ended"
        )
        .in_vm(Vm::Lifecycle)
        .limit(LIMIT),
    ],
};

const LIMIT: Duration = Duration::from_secs(150);
/// As many commands as a context may have, each on a page of its own.
const COMMANDS: usize = 64;
/// How long a command that may not end is looked at.
const LOOK: Duration = Duration::from_millis(60);

/// What the files of the closed contexts and of the open one are full of.
const CLOSED: u8 = 0xaa;
const OPEN: u8 = 0xbb;

const FAULTING: u8 = 1;
const LOOK_NOW: u8 = 2;
const LOOKED: u8 = 3;

/// A context with all its commands on pages of a mute file, at an address that is told.
fn hang(mute: &Mute, address: &Mapping) -> Result<(Device, Mapping, Vec<coax::CommandId>)> {
    let device = Device::open()?;
    let pages = mute.map(COMMANDS)?;
    address.store(0, pages.address());
    let start = |page| device.start(Command::sha256(pages.at(page * PAGE), PAGE as u64));
    let ids = (0..COMMANDS).map(start).collect::<Result<Vec<_>, _>>()?;
    mute.await_reader()?;
    Ok((device, pages, ids))
}

/// Is closed in the middle of it.
fn closed(mute: &Mute, address: &Mapping, line: &Line) -> CaseResult {
    let (device, pages, _) = hang(mute, address)?;
    line.announce(FAULTING)?;
    drop(device);
    // A fault that hangs may hold the lock that it takes to unmap; the process's end does without.
    std::mem::forget(pages);
    Ok(())
}

/// None of its commands ends before its own file speaks.
fn open(mute: &Mute, address: &Mapping, line: &Line) -> CaseResult {
    let (device, _pages, ids) = hang(mute, address)?;
    line.announce(FAULTING)?;
    line.await_step(LOOK_NOW)?;
    let foreign = sha256(&[CLOSED; PAGE]);
    for (page, id) in ids.iter().enumerate() {
        match device.wait(*id, Some(LOOK)) {
            Err(error) if error.errno() == libc::ETIMEDOUT => {}
            other => {
                let whose = match &other {
                    Ok(done) if done.result == foreign => "with what the closed one's page is",
                    _ => "though nobody has its page",
                };
                anyhow::bail!("The command on page {page} has ended {whose}: {other:?}");
            }
        }
    }
    line.announce(LOOKED)?;
    let own = sha256(&[OPEN; PAGE]);
    for id in ids {
        ensure!(device.finish(id)?.result == own, "Wrong digest");
    }
    Ok(())
}

fn an_answer_for_a_closed_context_reaches_no_other() -> CaseResult {
    let theirs = Mute::mount(Path::new("/tmp/mute-closed"), CLOSED)?;
    let ours = Mute::mount(Path::new("/tmp/mute-open"), OPEN)?;
    let addresses = [0; 3].map(|_| Mapping::shared(PAGE));
    let [first, second, third] = addresses;
    let (first, second, third) = (first?, second?, third?);
    for address in [&first, &second] {
        let (here, there) = line()?;
        let child = fork(|| closed(&theirs, address, &there))?;
        here.await_step(FAULTING)?;
        child.succeeds().context("A process whose fault hangs")?;
    }
    let (here, there) = line()?;
    let child = fork(|| open(&ours, &third, &there))?;
    here.await_step(FAULTING)?;
    if first.load(0) != third.load(0) {
        return Err(Skip("the kernel gives each process other addresses".into()).into());
    }
    theirs.speak();
    here.announce(LOOK_NOW)?;
    let looked = here.await_step(LOOKED);
    ours.speak();
    child.succeeds()?;
    looked
}

/// Kernel memory that cannot be taken back, in bytes.
fn unreclaimable() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("No SUnreclaim in /proc/meminfo")? << 10)
}

fn contexts_closed_while_a_fault_hangs_cost_no_memory() -> CaseResult {
    /// Many times what the device has numbers for.
    const ROUNDS: usize = 20_000;
    /// What all contexts of a device together may cost, and what else the kernel needs meanwhile.
    const MOST: u64 = 48 << 20;
    let mute = Mute::mount(Path::new("/tmp/mute-kept"), CLOSED)?;
    let address = Mapping::shared(PAGE)?;
    let (here, there) = line()?;
    let child = fork(|| closed(&mute, &address, &there))?;
    here.await_step(FAULTING)?;
    child.succeeds()?;
    let before = unreclaimable()?;
    let (mut opened, mut most) = (0, 0);
    for round in 0..ROUNDS {
        match Device::open() {
            Ok(_) => opened += 1,
            // As many as may be are waiting for their end: that is a bound, too.
            Err(error) if [libc::EMFILE, libc::EBUSY].contains(&error.errno()) => {}
            Err(error) => return Err(error).context("Open"),
        }
        if round % 500 == 0 {
            most = most.max(unreclaimable()?.saturating_sub(before));
            ensure!(
                most <= MOST,
                "{} MiB of kernel memory after {opened} times open and close",
                most >> 20
            );
        }
    }
    println!(
        "{opened} opened, {} KiB of kernel memory at most",
        most >> 10
    );
    mute.speak();
    crate::guest::wait::until("A device that opens", || Ok(Device::open().is_ok()))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much one process with the device is held up by another: a measurement of `coax bench fairness`, in the
//! guest.
//!
//! A fault of the device, as a program sees it, is timed alone and then beside each neighbour of
//! `NEIGHBOURS`, which is a process of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Policy};
use coax_program::errln;
use nix::unistd::{setgid, setuid, Gid, Uid};

use super::tell;
use crate::case::CaseResult;
use crate::guest::device::{range_of, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::mute::Mute;
use crate::guest::process::{fork, line, Line};

/// Faults timed in each measurement.
const FAULTS: usize = 400;
/// A fault that takes longer is one that is not served; the measurement ends with it.
const LONGEST: Duration = Duration::from_secs(10);
/// As many commands as one context may have.
const COMMANDS: usize = 64;
/// Announced when the neighbour is at it.
const AT_IT: u8 = 1;

/// Something that a process does without end.
type Work = fn(&Mute, &Line) -> CaseResult;

/// Neighbours, by name.
const NEIGHBOURS: [(&str, Work); 6] = [
    ("stuck_faults", stuck_faults),
    ("stuck_contexts", stuck_contexts),
    ("long_commands", long_commands),
    ("large_copies", large_copies),
    ("moves", moves),
    ("opens", opens),
];

/// Measures, and tells each measurement.
///
/// # Errors
///
/// Something could not be measured.
pub fn run() -> Result<()> {
    for (name, work) in NEIGHBOURS {
        let mute = Mute::mount(&Path::new("/tmp/mute").join(name), 0)?;
        errln!("fairness: a fault alone and beside {name} …");
        tell(&format!("fault_without_{name}"), &mut faults()?)?;
        let (ours, theirs) = line()?;
        let neighbour = fork(|| work(&mute, &theirs))?;
        ours.await_step(AT_IT)
            .with_context(|| format!("The neighbour, {name}"))?;
        let beside = faults();
        // Before what it waits for is taken away: it has to be there to the end.
        ensure!(!neighbour.has_ended()?, "The neighbour, {name}, has ended");
        neighbour.send_kill()?;
        tell(&format!("fault_beside_{name}"), &mut beside?)?;
        // What hangs would keep the process from its end.
        mute.speak();
        drop(neighbour);
    }
    Ok(())
}

/// Times faults of the device, each on a page that nobody has touched, as whole commands.
fn faults() -> Result<Vec<Duration>> {
    let device = Device::open()?;
    device.set_policy(Policy::OnFault, Some(1))?;
    let memory = Mapping::small_pages(FAULTS * PAGE)?;
    let mut times = Vec::new();
    for page in 0..FAULTS {
        let begin = Instant::now();
        let fill = device.start(Command::fill(memory.at(page * PAGE), 8, 1))?;
        match device.wait(fill, Some(LONGEST)) {
            Ok(_) => times.push(begin.elapsed()),
            Err(error) if error.errno() == libc::ETIMEDOUT => {
                errln!("fairness: a fault was not served within {LONGEST:?}");
                times.push(begin.elapsed());
                break;
            }
            Err(error) => return Err(error).context("A fault"),
        }
    }
    Ok(times)
}

/// All commands that a context may have, each on a page that never comes.
fn stuck_faults(mute: &Mute, line: &Line) -> CaseResult {
    let pages = mute.map(COMMANDS)?;
    let _stuck = stuck(&pages)?;
    mute.await_reader()?;
    line.announce(AT_IT)?;
    for_ever()
}

fn stuck(pages: &Mapping) -> Result<Device> {
    let device = Device::open()?;
    for page in 0..COMMANDS {
        device.start(Command::sha256(pages.at(page * PAGE), PAGE as u64))?;
    }
    Ok(device)
}

/// The same in as many contexts as an unprivileged user gets, of eight.
fn stuck_contexts(mute: &Mute, line: &Line) -> CaseResult {
    const USER: u32 = 1000;
    setgid(Gid::from_raw(USER)).context("setgid")?;
    setuid(Uid::from_raw(USER)).context("setuid")?;
    let pages = mute.map(COMMANDS)?;
    let contexts: Vec<Device> = (0..8).map_while(|_| stuck(&pages).ok()).collect();
    ensure!(!contexts.is_empty(), "No context");
    errln!("fairness: {} contexts are stuck", contexts.len());
    mute.await_reader()?;
    line.announce(AT_IT)?;
    for_ever()
}

/// All commands that a context may have, none of which ends.
fn long_commands(_: &Mute, line: &Line) -> CaseResult {
    let ring = Mapping::anonymous(16 * PAGE)?;
    let device = Device::open()?;
    list::start_endless(&device, &ring)?;
    for _ in 1..COMMANDS {
        device.start(list::walk(&ring, u64::MAX))?;
    }
    line.announce(AT_IT)?;
    for_ever()
}

/// Copies of several huge pages, one behind the other.
fn large_copies(_: &Mute, line: &Line) -> CaseResult {
    let (from, to) = (Mapping::huge(8 * HUGE)?, Mapping::huge(8 * HUGE)?);
    from.fill(0..from.len(), 1);
    let device = Device::open()?;
    device.copy(&to, &from)?;
    line.announce(AT_IT)?;
    loop {
        let copies = [0; 8].map(|_| {
            device.start(Command::copy(
                to.address(),
                from.address(),
                from.len() as u64,
            ))
        });
        for copy in copies {
            device.finish(copy?)?;
        }
    }
}

/// Moves of memory to the device and back.
fn moves(_: &Mute, line: &Line) -> CaseResult {
    let memory = Mapping::huge(16 * HUGE)?;
    memory.fill(0..memory.len(), 1);
    let device = Device::open()?;
    device.take(&memory)?;
    line.announce(AT_IT)?;
    loop {
        device.evict(range_of(&memory))?;
        device.prefetch(range_of(&memory))?;
    }
}

/// Contexts that come and go.
fn opens(_: &Mute, line: &Line) -> CaseResult {
    drop(Device::open()?);
    line.announce(AT_IT)?;
    loop {
        Device::open()?.run(Command::nop())?;
    }
}

/// Until it is killed.
fn for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The back end alone is stopped, for longer than any answer takes, and goes on: nobody loses anything, and
//! the device writes to nothing that was let go.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::Barrier;
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use coax::{Command, Error, Policy};
use coax_program::outln;
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::{process, wait};
use crate::request::Request;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "stall",
    cases: &[
        case!(
            memory_of_a_stalled_fill_is_not_let_go,
            "pages given up under a fill whose device is stopped; the memory that others get then"
        )
        .in_vm(Vm::Lifecycle)
        .limit(Duration::from_secs(120)),
        case!(
            a_stall_is_told_once_with_its_length,
            "the kernel's log, several waiting"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            a_page_on_its_way_when_the_device_stalls_arrives,
            "copies both ways over a stall"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::Lifecycle),
        case!(
            an_opening_that_waits_can_be_killed,
            "kill -9 of a process that opens a stopped device; its context goes later"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            closing_does_not_wait_for_a_stalled_device,
            "exit of a process that has a stopped device open"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            a_stalled_device_that_dies_ends_all_waits,
            "the back end stopped, then killed; who waits goes on at once"
        )
        .in_vm(Vm::DoomedStalled),
        case!(
            pages_on_their_way_arrive_when_a_stalled_device_dies,
            "copies both ways that the device never made"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::DoomedMoving),
    ],
};

const LEN: usize = 16 << 20;
/// Fills under way when the device stops: they last for long after it goes on.
const FILLS: usize = 60;
/// How long the device is stopped: more than the 10 s for which a driver might be content to wait.
const STALL: Duration = Duration::from_secs(13);
/// Longest end of a wait after what it waited for.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Stops the back end and waits until it has.
fn stop(device: &Device) -> Result<()> {
    outln!("{}", Request::StopDevice)?;
    wait::until("The device being stopped", || {
        let nop = device.start(Command::nop())?;
        match device.wait(nop, Some(Duration::from_millis(500))) {
            Ok(_) => Ok(false),
            Err(Error::TimedOut) => Ok(true),
            Err(error) => Err(error).context("A command before the stop"),
        }
    })
}

fn go_on() -> Result<()> {
    Ok(outln!("{}", Request::ContinueDevice)?)
}

/// A context whose device is at work on `memory` in place, for long.
fn fill_for_long(memory: &Mapping) -> Result<Device> {
    let device = Device::open()?;
    device.set_policy(Policy::Never, None)?;
    device.fill(memory, 0..LEN, 1)?;
    for round in 0..FILLS {
        device.start(Command::fill(memory.address(), LEN as u64, round as u64))?;
    }
    Ok(device)
}

/// Does `what` in a thread of `scope`; the channel tells when it is done. What changes mappings is to be begun
/// last: while it waits the process can map nothing, a thread's stack neither.
fn begin<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    what: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Receiver<Result<T>> {
    let (done, receiver) = channel();
    // A case that has failed does not listen any more.
    scope.spawn(move || drop(done.send(what())));
    receiver
}

/// What was done within the stall, although the device did not answer; `None` if it waits for that.
fn done_early<T>(receiver: &Receiver<Result<T>>) -> Result<Option<Result<T>>> {
    match receiver.recv_timeout(STALL) {
        Ok(done) => Ok(Some(done)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => bail!("A thread panicked"),
    }
}

fn memory_of_a_stalled_fill_is_not_let_go() -> CaseResult {
    covers!("coax.drv.20");
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 7);
    let watch = Device::open()?;
    let filler = fill_for_long(&memory)?;
    stop(&watch)?;
    let early = std::thread::scope(|scope| -> Result<bool> {
        // The addresses stay taken: the device goes on there, with other pages.
        let unmapping = begin(scope, || Ok(memory.advise(0..LEN, libc::MADV_DONTNEED)?));
        let early = done_early(&unmapping);
        if !matches!(early, Ok(Some(_))) {
            go_on()?;
        }
        match early? {
            Some(unmapped) => unmapped.map(|()| true),
            None => unmapping.recv()?.map(|()| false),
        }
    })?;
    // Whoever gets the pages now must find in them what they put there.
    let fresh = Mapping::anonymous(4 * LEN)?;
    fresh.fill(0..4 * LEN, 0xa5);
    if early {
        go_on()?;
    }
    drop(filler);
    watch.run(Command::nop())?;
    let bad = fresh.to_vec().iter().filter(|byte| **byte != 0xa5).count();
    ensure!(bad == 0, "{bad} bytes were overwritten");
    ensure!(!early, "The memory was let go while the device was stopped");
    Ok(())
}

/// The kernel's log from now on.
struct Log(std::fs::File);

impl Log {
    fn from_now() -> Result<Self> {
        let mut open = std::fs::File::options();
        open.read(true).custom_flags(libc::O_NONBLOCK);
        let mut log = Log(open.open("/dev/kmsg").context("/dev/kmsg")?);
        log.lines()?;
        Ok(log)
    }

    /// What was logged since the last call.
    fn lines(&mut self) -> Result<Vec<String>> {
        let (mut lines, mut record) = (Vec::new(), [0; 8192]);
        loop {
            match self.0.read(&mut record) {
                Ok(len) => lines.push(String::from_utf8_lossy(&record[..len]).into_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(lines),
                // Records were overwritten before they were read.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }
}

fn a_stall_is_told_once_with_its_length() -> CaseResult {
    let mut log = Log::from_now()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 7);
    let watch = Device::open()?;
    watch.set_policy(Policy::Never, None)?;
    watch.fill(&memory, 0..LEN, 1)?;
    stop(&watch)?;
    std::thread::scope(|scope| -> Result<()> {
        // One waits for an invalidation, one for a control request.
        let asking = begin(scope, || Ok(watch.stats().map(drop)?));
        let unmapping = begin(scope, || memory.unmap(0..LEN));
        let early = done_early(&unmapping);
        go_on()?;
        ensure!(early?.is_none(), "The memory was let go");
        unmapping.recv()??;
        asking.recv()?
    })?;
    watch.run(Command::nop())?;
    let lines = log.lines()?;
    let told = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    let (begun, ended) = (
        told("the device has not"),
        told("the wait for the device ended after"),
    );
    ensure!(
        (begun, ended) == (1, 1),
        "Told {begun} times that it began and {ended} times that it ended: {lines:?}"
    );
    Ok(())
}

/// Has pages on their way both ways when the device stops, and demands that they arrive as they were after what
/// `end` does to it; the calls that moved them have to satisfy `check`.
fn move_over_a_stall(
    end: impl FnOnce() -> Result<()>,
    check: impl Fn(Result<()>) -> CaseResult,
) -> CaseResult {
    const PIECE: usize = 512 * PAGE;
    let device = Device::open_moving()?;
    let (there, back) = (Mapping::anonymous(PIECE)?, Mapping::anonymous(PIECE)?);
    let content = pattern::bytes(151, PIECE);
    there.write(0, &content);
    back.write(0, &content);
    device.take(&back)?;
    stop(&device)?;
    // A move holds the mmap lock while it waits, and a thread's stack has to be mapped.
    let both = Barrier::new(3);
    std::thread::scope(|scope| -> Result<()> {
        let going = begin(scope, || {
            both.wait();
            Ok(device.prefetch(range_of(&there)).map(drop)?)
        });
        let coming = begin(scope, || {
            both.wait();
            Ok(device.evict(range_of(&back)).map(drop)?)
        });
        both.wait();
        let early = done_early(&going);
        let early = early.map(|going| going.is_some() || coming.try_recv().is_ok());
        end()?;
        ensure!(!early?, "A move ended while the device was stopped");
        check(going.recv()?)?;
        check(coming.recv()?)
    })?;
    same("what moved to the device", &there.to_vec(), &content)?;
    same("what moved back", &back.to_vec(), &content)
}

fn a_page_on_its_way_when_the_device_stalls_arrives() -> CaseResult {
    move_over_a_stall(go_on, |moved| moved)
}

fn pages_on_their_way_arrive_when_a_stalled_device_dies() -> CaseResult {
    // Whether a call has noticed does not matter: pages are what counts.
    let kill = || Ok(outln!("{}", Request::KillDevice)?);
    move_over_a_stall(kill, |_| Ok(()))
}

/// Contexts that are open.
fn contexts(device: &Device) -> Result<u64> {
    Ok(device.stats()?.contexts)
}

/// Waits until a process waits in the kernel.
fn sleeps(pid: u32) -> Result<()> {
    wait::until("The process waiting for the device", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let state = stat.rsplit(')').next().map(str::trim_start);
        Ok(state.is_some_and(|state| state.starts_with('D')))
    })
}

/// Kills a process while the device is stopped, then has the device go on, and demands that its context goes.
fn killed_at_once(device: &Device, child: process::Child, before: u64) -> CaseResult {
    let killed = Instant::now();
    let gone = child.kill();
    let took = killed.elapsed();
    go_on()?;
    gone?;
    ensure!(took < AT_ONCE, "It took {took:?} to kill it");
    wait::until("The context of the killed process being closed", || {
        Ok(contexts(device)? == before)
    })
}

fn an_opening_that_waits_can_be_killed() -> CaseResult {
    let device = Device::open()?;
    let before = contexts(&device)?;
    let (ours, theirs) = process::line()?;
    let child = process::fork(|| {
        theirs.await_step(1)?;
        match Device::open() {
            Ok(_) => bail!("A stopped device was opened"),
            Err(error) => Err(error).context("Open"),
        }
    })?;
    stop(&device)?;
    ours.announce(1)?;
    let slept = sleeps(child.pid());
    // Another driver's file, of the kind of which only one at a time can be opened.
    let other = Instant::now();
    let opened = std::fs::File::open("/dev/fuse").context("/dev/fuse");
    let took = other.elapsed();
    killed_at_once(&device, child, before)?;
    slept?;
    opened?;
    ensure!(took < AT_ONCE, "Opening /dev/fuse took {took:?} meanwhile");
    Ok(())
}

fn closing_does_not_wait_for_a_stalled_device() -> CaseResult {
    let device = Device::open()?;
    let before = contexts(&device)?;
    let (ours, theirs) = process::line()?;
    let child = process::fork(|| {
        let device = Device::open()?;
        device.run(Command::nop())?;
        theirs.announce(1)?;
        theirs.await_step(2)
    })?;
    ours.await_step(1)?;
    stop(&device)?;
    killed_at_once(&device, child, before)
}

fn a_stalled_device_that_dies_ends_all_waits() -> CaseResult {
    covers!("coax.drv.25");
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 7);
    let watch = Device::open()?;
    let filler = fill_for_long(&memory)?;
    stop(&watch)?;
    std::thread::scope(|scope| -> Result<()> {
        // The driver's own counters are told without the device.
        let asking = begin(scope, || Ok(watch.stats().map(drop)?));
        let unmapping = begin(scope, || memory.unmap(0..LEN));
        let early = done_early(&unmapping);
        outln!("{}", Request::KillDevice)?;
        let killed = Instant::now();
        ensure!(early?.is_none(), "The memory was let go");
        unmapping.recv()??;
        asking.recv()??;
        let took = killed.elapsed();
        ensure!(took < AT_ONCE, "It took {took:?} after the device's end");
        Ok(())
    })?;
    drop(filler);
    refused("a new command", watch.run(Command::nop()), libc::EIO)
}

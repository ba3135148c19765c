// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages whose faults a program resolves (`userfaultfd(2)`): the device's faults are told to it as the
//! CPU's are, and nobody else waits for it meanwhile.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Context};
use coax_specification::covers;
use nix::sys::memfd::{memfd_create, MFdFlags};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE, READ_WRITE};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};
use crate::guest::userfault::{Fault, Monitor, Watch};
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "userfaults",
    cases: &[
        case!(
            missing_anonymous_pages_are_given_by_the_monitor,
            "a device read, a page a fault"
        ),
        case!(
            missing_shared_pages_are_given_by_the_monitor,
            "a device read of shared memory"
        ),
        case!(
            unmapped_pages_of_a_file_are_mapped_by_the_monitor,
            "a device read of pages that are in the file"
        ),
        case!(
            pages_needed_later_are_told_while_the_first_is_waited_for,
            "a device read over a border of 2 MiB"
        ),
        case!(
            part_of_a_missing_page_is_written_over_what_the_monitor_gives,
            "a device write of 8 bytes"
        ),
        case!(
            a_device_write_to_a_protected_page_is_told,
            "reads and prefetches are not, and leave the protection"
        ),
        case!(
            a_device_write_to_a_protected_shared_page_is_told,
            "shared memory"
        ),
        case!(
            an_atomic_operation_waits_for_the_monitor,
            "on a missing and on a protected page"
        ),
        case!(
            other_commands_go_on_while_one_waits_for_the_monitor,
            "of the same context, and of another"
        ),
        case!(
            commands_that_wait_end_with_the_context,
            "close, the monitor never answers"
        ),
        case!(
            a_process_that_waits_for_a_monitor_can_be_killed,
            "SIGKILL, the monitor never answers"
        ),
    ],
};

const PAGES: usize = 8;
const LEN: usize = PAGES * PAGE;
const PATTERN: u64 = 0x4141_4242_4343_4444;

/// What the monitor gives for a page.
fn given(page: usize) -> [u8; PAGE] {
    let byte = b'a' + u8::try_from(page % 26).expect("below 26");
    [byte; PAGE]
}

fn all_given() -> Vec<u8> {
    (0..PAGES).flat_map(given).collect()
}

/// The first page behind a border of 2 MiB in `memory`: the device asks for it with the first of all, since it
/// will need it.
fn asked_ahead(memory: &Mapping) -> Option<usize> {
    (1..PAGES).find(|page| memory.at(page * PAGE) % HUGE as u64 == 0)
}

/// Demands that a command reads `memory` page by page as `resolve` has it.
fn read_with(
    memory: &Mapping,
    monitor: &Monitor,
    resolve: impl Fn(usize) -> Result<()>,
) -> Result<()> {
    let device = Device::open()?;
    let id = device.start(Command::sha256(memory.address(), LEN as u64))?;
    let ahead = asked_ahead(memory);
    let mut missing: Vec<usize> = (0..PAGES).collect();
    while let Some(&first) = missing.first() {
        let Fault { page, protected } = monitor.next()?;
        let due = page == first || ahead == Some(page) && missing.contains(&page);
        ensure!(
            due && !protected,
            "Page {page}, protected: {protected}; missing {missing:?}, asked ahead {ahead:?}"
        );
        resolve(page)?;
        missing.retain(|other| *other != page);
    }
    let digest = device.finish(id).context("Reading")?.result;
    ensure!(digest == pattern::sha256(&all_given()), "Wrong digest");
    ensure!(monitor.pending()?.is_none(), "A fault more");
    same("memory", &memory.to_vec(), &all_given())
}

fn missing_anonymous_pages_are_given_by_the_monitor() -> CaseResult {
    let memory = Mapping::anonymous(LEN)?;
    let monitor = Monitor::new(&memory, Watch::Missing)?;
    read_with(&memory, &monitor, |page| monitor.give(page, &given(page)))
}

fn missing_shared_pages_are_given_by_the_monitor() -> CaseResult {
    let memory = Mapping::shared(LEN)?;
    let monitor = Monitor::new(&memory, Watch::Missing)?;
    read_with(&memory, &monitor, |page| monitor.give(page, &given(page)))
}

fn unmapped_pages_of_a_file_are_mapped_by_the_monitor() -> CaseResult {
    let file = std::fs::File::from(memfd_create(c"coax-test", MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(&all_given(), 0)?;
    let memory = Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)?;
    let monitor = Monitor::new(&memory, Watch::Unmapped)?;
    read_with(&memory, &monitor, |page| monitor.map(page))
}

fn pages_needed_later_are_told_while_the_first_is_waited_for() -> CaseResult {
    covers!("coax.drv.13");
    const BEHIND: usize = 3;
    let place = Mapping::anonymous(3 * HUGE)?;
    let border = (place.address() as usize + HUGE).next_multiple_of(HUGE);
    drop(place);
    let memory = Mapping::anonymous_at(border - BEHIND * PAGE, LEN)?;
    let monitor = Monitor::new(&memory, Watch::Missing)?;
    let device = Device::open()?;
    let id = device.start(Command::sha256(memory.address(), LEN as u64))?;
    let mut told = [monitor.next()?.page, monitor.next()?.page];
    told.sort_unstable();
    ensure!(told == [0, BEHIND], "Told of {told:?}");
    for page in 0..PAGES {
        monitor.give(page, &given(page))?;
    }
    let digest = device.finish(id).context("Reading")?.result;
    ensure!(digest == pattern::sha256(&all_given()), "Wrong digest");
    Ok(())
}

fn part_of_a_missing_page_is_written_over_what_the_monitor_gives() -> CaseResult {
    let memory = Mapping::anonymous(LEN)?;
    let monitor = Monitor::new(&memory, Watch::Missing)?;
    let device = Device::open()?;
    let at = 3 * PAGE + 104;
    let id = device.start(Command::fill(memory.at(at), 8, PATTERN))?;
    let fault = monitor.next()?;
    ensure!(fault.page == 3, "{fault:?}");
    monitor.give(3, &given(3))?;
    device.finish(id).context("Writing")?;
    let mut expected = given(3);
    expected[104..112].copy_from_slice(&PATTERN.to_le_bytes());
    let mut page = [0; PAGE];
    memory.read(3 * PAGE, &mut page);
    same("page", &page, &expected)
}

fn a_device_write_to_a_protected_page_is_told() -> CaseResult {
    let memory = Mapping::anonymous(LEN)?;
    let device = Device::open()?;
    memory.write(0, &all_given());
    let monitor = Monitor::new(&memory, Watch::Writes)?;
    monitor.protect(0..PAGES, true)?;
    device.prefetch(range_of(&memory))?;
    writes_are_told(&device, &memory, &monitor)
}

fn a_device_write_to_a_protected_shared_page_is_told() -> CaseResult {
    let memory = Mapping::shared(LEN)?;
    let device = Device::open()?;
    memory.write(0, &all_given());
    let monitor = Monitor::new(&memory, Watch::Writes)?;
    monitor.protect(0..PAGES, true)?;
    writes_are_told(&device, &memory, &monitor)
}

/// Demands that reads of protected memory are not told, and writes by the device and the CPU are, once.
fn writes_are_told(device: &Device, memory: &Mapping, monitor: &Monitor) -> Result<()> {
    ensure!(
        Device::digest(device, memory)? == pattern::sha256(&all_given()),
        "Wrong digest"
    );
    ensure!(monitor.pending()?.is_none(), "A read was told");
    let id = device.start(Command::fill(memory.at(2 * PAGE), PAGE as u64, PATTERN))?;
    let written = Fault {
        page: 2,
        protected: true,
    };
    let fault = monitor.next()?;
    ensure!(fault == written, "{fault:?}");
    monitor.protect(2..3, false)?;
    device.finish(id).context("Writing")?;
    let mut page = vec![0; PAGE];
    memory.read(2 * PAGE, &mut page);
    same("page", &page, &PATTERN.to_le_bytes().repeat(PAGE / 8))?;
    // Not told again, and the others are as protected as before.
    device.fill(memory, 2 * PAGE..3 * PAGE, PATTERN)?;
    ensure!(monitor.pending()?.is_none(), "A write was told twice");
    std::thread::scope(|scope| -> Result<()> {
        let by_cpu = scope.spawn(|| memory.store(5 * PAGE, PATTERN));
        let fault = monitor.next()?;
        monitor.protect(0..PAGES, false)?;
        by_cpu.join().expect("the thread that writes");
        ensure!(fault.page == 5 && fault.protected, "{fault:?}");
        Ok(())
    })
}

fn an_atomic_operation_waits_for_the_monitor() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let monitor = Monitor::new(&memory, Watch::Missing)?;
    let id = device.start(Command::fetch_add(memory.at(PAGE), 8, 1, 1, 0))?;
    let fault = monitor.next().context("On a missing page")?;
    ensure!(fault.page == 1, "{fault:?}");
    monitor.give(1, &[0; PAGE])?;
    device.finish(id).context("On a missing page")?;
    ensure!(memory.load(PAGE) == 1, "{}", memory.load(PAGE));

    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0);
    let monitor = Monitor::new(&memory, Watch::Writes)?;
    monitor.protect(0..PAGES, true)?;
    let id = device.start(Command::fetch_add(memory.at(PAGE), 8, 1, 1, 0))?;
    let fault = monitor.next().context("On a protected page")?;
    ensure!(fault.page == 1 && fault.protected, "{fault:?}");
    monitor.protect(0..PAGES, false)?;
    device.finish(id).context("On a protected page")?;
    ensure!(memory.load(PAGE) == 1, "{}", memory.load(PAGE));
    Ok(())
}

fn other_commands_go_on_while_one_waits_for_the_monitor() -> CaseResult {
    covers!("coax.drv.13");
    let (device, other) = (Device::open()?, Device::open()?);
    let memory = Mapping::anonymous(LEN)?;
    let monitor = Monitor::new(&memory, Watch::Missing)?;
    let id = device.start(Command::sha256(memory.address(), PAGE as u64))?;
    let page = monitor.next()?.page;
    // Each of these faults, too.
    for device in [&device, &other] {
        let ordinary = Mapping::anonymous(LEN)?;
        ordinary.write(0, &all_given());
        ensure!(
            Device::digest(device, &ordinary)? == pattern::sha256(&all_given()),
            "Wrong digest"
        );
        let untouched = Mapping::anonymous(LEN)?;
        device.fill(&untouched, 0..LEN, PATTERN)?;
    }
    // Another fault of the same program waits beside it.
    let second = device.start(Command::sha256(memory.at(PAGE), PAGE as u64))?;
    let next = monitor.next()?.page;
    ensure!((page, next) == (0, 1), "Pages {page} and {next}");
    monitor.give(next, &given(next))?;
    device.finish(second).context("The one that waited less")?;
    monitor.give(page, &given(page))?;
    let digest = device.finish(id).context("The one that waited")?.result;
    ensure!(digest == pattern::sha256(&given(page)), "Wrong digest");
    Ok(())
}

fn contexts(witness: &Context) -> Result<u64> {
    Ok(witness.stats()?.contexts)
}

fn commands_that_wait_end_with_the_context() -> CaseResult {
    let witness = Device::open()?;
    let before = contexts(&witness)?;
    let memory = Mapping::anonymous(LEN)?;
    let monitor = Monitor::new(&memory, Watch::Missing)?;
    let device = Device::open()?;
    for page in 0..PAGES {
        device.start(Command::sha256(memory.at(page * PAGE), PAGE as u64))?;
        ensure!(monitor.next()?.page == page, "Another page");
    }
    drop(device);
    wait::until("The context's number being free", || {
        Ok(contexts(&witness)? == before)
    })?;
    witness.run(Command::nop()).context("Command afterwards")?;
    Ok(())
}

fn a_process_that_waits_for_a_monitor_can_be_killed() -> CaseResult {
    let witness = Device::open()?;
    let before = contexts(&witness)?;
    let (parent_end, child_end) = line()?;
    let child = fork(|| {
        let device = Device::open()?;
        let memory = Mapping::anonymous(LEN)?;
        let monitor = Monitor::new(&memory, Watch::Missing)?;
        device.start(Command::sha256(memory.address(), PAGE as u64))?;
        monitor.next()?;
        child_end.announce(1)?;
        loop {
            nix::unistd::pause();
        }
    })?;
    parent_end.await_step(1)?;
    child.kill()?;
    wait::until("The context of the killed process being gone", || {
        Ok(contexts(&witness)? == before)
    })?;
    witness.run(Command::nop()).context("Command afterwards")?;
    Ok(())
}

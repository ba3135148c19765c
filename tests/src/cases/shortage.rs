// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each allocation failing in turn: what was asked for is refused as a whole, and nothing else is lost.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Error};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::module;
use crate::guest::pattern::{self, same};
use crate::guest::process;
use crate::guest::shortage::{Nth, Shortage, WorkersShortage};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "shortage",
    cases: &[
        case!(
            calls_are_refused_and_lose_nothing,
            "open, commands, moves and reports, each allocation failing in turn"
        )
        .limit(LIMIT),
        case!(
            changes_of_mappings_lose_nothing,
            "CPU access, fork, mremap and munmap with pages on the device, each allocation failing in turn"
        )
        .limit(LIMIT),
        case!(
            device_faults_outlast_a_shortage,
            "commands on memory never touched, a part of the workers' allocations failing"
        )
        .limit(LIMIT),
        case!(
            a_device_is_bound_whole_or_not_at_all,
            "bind, each allocation failing in turn"
        )
        .in_vm(Vm::Lifecycle)
        .limit(LIMIT),
    ],
};

const LIMIT: Duration = Duration::from_secs(600);
const PAGES: usize = 16;
const LEN: usize = PAGES * PAGE;
/// More allocations than any call of these makes.
const MOST: u32 = 400;
/// Times that the device touches all pages under a shortage.
const ROUNDS: u64 = 64;

/// Demands that a result is good, or a refusal for want of memory.
fn good_or_short<T>(what: &str, result: Result<T, Error>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno() == libc::ENOMEM => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{what}: neither done nor refused")),
    }
}

/// A mapping with known content.
fn known(seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    Ok((memory, content))
}

/// Demands that the device and the CPU see this content.
fn is(device: &Device, memory: &Mapping, content: &[u8]) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), content)
}

fn calls_are_refused_and_lose_nothing() -> CaseResult {
    let shortage = Shortage::of_this_thread()?;
    let device = Device::open_moving()?;
    let (memory, content) = known(201)?;

    let made = shortage.each("open", MOST, |nth| {
        let (opened, failed) = nth.fails(Device::open)?;
        if let Some(opened) = good_or_short("open", opened)? {
            is(&opened, &memory, &content)?;
        }
        Ok(failed)
    })?;
    ensure!(made > 0, "Opening the device allocates nothing");

    call(&shortage, "a hash", || {
        let command = Command::sha256(memory.address(), LEN as u64);
        device.run(command).map(drop)
    })?;
    let range = range_of(&memory);
    call(&shortage, "prefetch", || device.prefetch(range).map(drop))?;
    device.take(&memory)?;
    call(&shortage, "residency", || device.residency(range).map(drop))?;
    for what in ["evict", "a hash of what is away", "prefetch"] {
        shortage.each(what, MOST, |nth| {
            device.take(&memory)?;
            let (result, failed) = nth.fails(|| match what {
                "evict" => device.evict(range).map(drop),
                "prefetch" => device.prefetch(range).map(drop),
                _ => device
                    .run(Command::sha256(memory.address(), LEN as u64))
                    .map(drop),
            })?;
            good_or_short(what, result)?;
            Ok(failed)
        })?;
        is(&device, &memory, &content)?;
    }
    Ok(())
}

/// A call that may be refused, each of its allocations failing in turn.
fn call(
    shortage: &Shortage,
    what: &str,
    mut body: impl FnMut() -> Result<(), Error>,
) -> Result<()> {
    let each = |nth: &Nth<'_>| {
        let (result, failed) = nth.fails(&mut body)?;
        good_or_short(what, result)?;
        Ok(failed)
    };
    shortage.each(what, MOST, each).map(drop)
}

fn changes_of_mappings_lose_nothing() -> CaseResult {
    let shortage = Shortage::of_this_thread()?;
    let device = Device::open()?;

    shortage.each("CPU access", MOST, |nth| {
        let (memory, content) = known(202)?;
        device.take(&memory)?;
        let (seen, failed) = nth.fails(|| {
            let mut seen = [0; 8];
            memory.read(0, &mut seen);
            seen
        })?;
        same("a page", &seen, &content[..8])?;
        is(&device, &memory, &content)?;
        Ok(failed)
    })?;

    shortage.each("fork", MOST, |nth| {
        let (memory, content) = known(203)?;
        device.take(&memory)?;
        let (child, failed) =
            nth.fails(|| process::fork(|| same("the child's memory", &memory.to_vec(), &content)))?;
        // The kernel's own allocations fail too, and then there is no child.
        if let Ok(child) = child {
            child.succeeds()?;
        }
        is(&device, &memory, &content)?;
        Ok(failed)
    })?;

    shortage.each("MADV_DONTNEED", MOST, |nth| {
        let (memory, content) = known(204)?;
        device.take(&memory)?;
        let middle = LEN / 2;
        let (advised, failed) = nth.fails(|| memory.advise(0..middle, libc::MADV_DONTNEED))?;
        let mut expected = content;
        if advised.is_ok() {
            expected[..middle].fill(0);
        }
        is(&device, &memory, &expected)?;
        Ok(failed)
    })?;

    shortage.each("mprotect", MOST, |nth| {
        let (memory, content) = known(205)?;
        device.take(&memory)?;
        // What was refused has changed nothing, or a part that can still be read.
        let (_, failed) = nth.fails(|| memory.protect(PAGE..LEN / 2, libc::PROT_READ))?;
        is(&device, &memory, &content)?;
        Ok(failed)
    })?;

    shortage.each("munmap", MOST, |nth| {
        let (memory, content) = known(206)?;
        device.take(&memory)?;
        let (unmapped, failed) = nth.fails(|| memory.unmap(0..PAGE))?;
        let mut first = [0; PAGE];
        if unmapped.is_err() {
            memory.read(0, &mut first);
            same("what stayed", &first, &content[..PAGE])?;
        }
        let mut rest = vec![0; LEN - PAGE];
        memory.read(PAGE, &mut rest);
        same("the rest", &rest, &content[PAGE..])?;
        Ok(failed)
    })?;
    Ok(())
}

fn device_faults_outlast_a_shortage() -> CaseResult {
    covers!("coax.drv.17");
    let device = Device::open_moving()?;
    let shortage = WorkersShortage::of(10)?;
    for round in 1..=ROUNDS {
        let memory = Mapping::small_pages(LEN)?;
        device
            .fill(&memory, 0..LEN, round)
            .with_context(|| format!("Round {round}"))?;
        let words = round.to_le_bytes().repeat(LEN / 8);
        same("what the device wrote", &memory.to_vec(), &words)
            .with_context(|| format!("Round {round}"))?;
        let digest = device.digest(&memory)?;
        ensure!(digest == pattern::sha256(&words), "Round {round}: digest");
    }
    drop(shortage);
    Ok(())
}

fn a_device_is_bound_whole_or_not_at_all() -> CaseResult {
    let shortage = Shortage::of_this_thread()?;
    let mode = module::mode()?;
    let bound = module::bound_device()?;
    let (mut number, mut failed) = (0, true);
    while failed {
        number = next(number, mode);
        module::unbind(&bound)?;
        let (taken, one_failed) = shortage.at(number, || module::try_bind(&bound))?;
        failed = one_failed;
        let context = || format!("Allocation {number} of bind, which said {taken:?}");
        if taken.is_err() {
            ensure!(failed, "{}", context());
            ensure!(!module::has_device(), "{}: a file is left", context());
            ensure!(
                !Path::new("/sys/kernel/debug/coax/coax0").exists(),
                "{}: a folder of debugfs is left",
                context()
            );
            module::bind(&bound).with_context(context)?;
        }
        works().with_context(context)?;
    }
    ensure!(number > 16, "bind makes {number} allocations");
    Ok(())
}

/// The allocation to fail after this one. A node's memory takes thousands, which are much alike.
fn next(number: u32, mode: Mode) -> u32 {
    let alike = match mode {
        Mode::Private | Mode::Coherent => 32,
        Mode::Numa => 8,
    };
    number + 1 + number / alike
}

/// Demands that the device works.
fn works() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = known(207)?;
    device.take(&memory)?;
    is(&device, &memory, &content)
}

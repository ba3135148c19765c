// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Atomic operations of the device on words that the CPU uses at the same time: none is lost.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use anyhow::{bail, ensure, Context as _, Result};
use coax::{Access, Command, Error, Policy, Status};
use coax_specification::covers;
use nix::sys::memfd::{memfd_create, MFdFlags};

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{faulted, Device, Outcome};
use crate::guest::memory::{Mapping, HUGE, PAGE, READ_ONLY, READ_WRITE};
use crate::guest::process::{fork, line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "atomics",
    cases: &[
        case!(
            both_sizes_return_the_value_before,
            "FetchAdd and compare and swap of 32 and 64 bits, by the library"
        ),
        case!(
            every_word_of_a_range_is_changed_once,
            "a FetchAdd over many windows, absent, in system memory and on the device"
        ),
        case!(
            nothing_is_lost_in_system_memory,
            "CPU and device add to a word of a page that does not move"
        ),
        case!(
            nothing_is_lost_in_device_memory,
            "CPU and device add to a word of a page on the device"
        ),
        case!(
            nothing_is_lost_in_shared_memory,
            "CPU and device add to a word of shared anonymous memory"
        ),
        case!(
            nothing_is_lost_in_a_file,
            "CPU and device add to a word that two mappings of a memfd show"
        ),
        case!(
            nothing_is_lost_with_one_processor,
            "the only CPU and the device add to a word that both use in place"
        )
        .modes(&[Mode::Coherent])
        .in_vm(Vm::OneCpu),
        case!(
            nothing_is_lost_on_the_stack,
            "CPU and device add to a local variable"
        ),
        case!(
            nothing_is_lost_in_a_huge_page,
            "CPU and device add to a word of a transparent huge page"
        ),
        case!(
            contexts_lose_nothing_among_each_other,
            "two contexts of a process add to the same word"
        ),
        case!(
            compare_and_swap_succeeds_once_a_value,
            "CPU and device increment by compare and swap"
        ),
        case!(unaligned_words_are_refused, "no word crosses a border"),
        case!(
            read_only_memory_refuses_atomics,
            "a fault with the address, for anonymous memory and for a file"
        ),
        case!(
            fork_keeps_the_words_of_parent_and_child_apart,
            "copy-on-write of a page that the device has for itself"
        ),
        case!(
            protection_reaches_a_page_that_the_device_has,
            "mprotect after an atomic operation"
        ),
    ],
};

/// Commands of the device while the CPU adds.
const ROUNDS: u64 = 16;
/// Additions of each.
const ADDITIONS: u64 = 2000;
/// What the device adds: the CPU adds 1, and never so often that it gets to the upper half.
const DEVICE_ONE: u64 = 1 << 32;
/// Where the words lie: behind the start of the second page.
const AT: usize = PAGE + 40;
const LEN: usize = 4 * PAGE;

fn add(memory: &Mapping, offset: usize, addend: u64) -> Command {
    Command::fetch_add(memory.at(offset), 8, addend, 1, 0)
}

/// Has the device add to a word by `by_device`, which says how often, while the CPU does by
/// `add`, and demands that `load` gives the sum.
fn nothing_is_lost(
    mut by_device: impl FnMut() -> Result<u64>,
    add: impl Fn() + Sync,
    load: impl Fn() -> u64,
) -> Result<()> {
    let (stop, by_cpu) = (AtomicBool::new(false), AtomicU64::new(0));
    let by_device = std::thread::scope(|scope| -> Result<u64> {
        let cpu = scope.spawn(|| {
            while !stop.load(SeqCst) {
                add();
                by_cpu.fetch_add(1, SeqCst);
            }
        });
        let mut rounds = || -> Result<u64> {
            let (mut sum, mut round) = (0, 0);
            // The device may be done with its rounds before the thread has got a processor.
            while round < ROUNDS || by_cpu.load(SeqCst) == 0 {
                sum += by_device()?;
                round += 1;
            }
            Ok(sum)
        };
        let by_device = rounds();
        stop.store(true, SeqCst);
        match cpu.join() {
            Ok(()) => by_device,
            Err(_) => bail!("The adding thread panicked"),
        }
    })?;
    let by_cpu = by_cpu.load(SeqCst);
    let (found, expected) = (load(), by_cpu + by_device * DEVICE_ONE);
    ensure!(
        found == expected,
        "{found:#x}, not {expected:#x}: upper half by the device, lower half by the CPU"
    );
    Ok(())
}

/// Adds by the device to the word of a mapping, many times over.
fn add_by_device(device: &Device, memory: &Mapping) -> Result<u64> {
    add_so_often(device, memory, ADDITIONS)
}

fn add_so_often(device: &Device, memory: &Mapping, additions: u64) -> Result<u64> {
    let command = Command::fetch_add(memory.at(AT), 8, DEVICE_ONE, additions, 0);
    let done = device.run(command).context("FetchAdd")?;
    ensure!(done.word(1) == additions, "{done:?}");
    Ok(additions)
}

/// The device and the CPU add to the word of a mapping.
fn nothing_is_lost_in(device: &Device, memory: &Mapping) -> Result<()> {
    let by_device = || add_by_device(device, memory);
    nothing_is_lost(by_device, || memory.add(AT, 1), || memory.load(AT))
}

fn both_sizes_return_the_value_before() -> CaseResult {
    let device = Device::open()?;
    let word = AtomicU64::new(u64::MAX);
    ensure!(device.fetch_add_u64(&word, 3)? == u64::MAX);
    ensure!(word.load(SeqCst) == 2, "{word:?}");
    ensure!(device.compare_swap_u64(&word, 1, 9)? == 2);
    ensure!(device.compare_swap_u64(&word, 2, 9)? == 2);
    ensure!(word.load(SeqCst) == 9, "{word:?}");
    let words = [u32::MAX, u32::MAX - 1, 5].map(AtomicU32::new);
    ensure!(device.fetch_add_u32(&words[1], 4)? == u32::MAX - 1);
    ensure!(device.compare_swap_u32(&words[2], 4, 0)? == 5);
    ensure!(device.compare_swap_u32(&words[2], 5, 7)? == 5);
    let after = words.map(AtomicU32::into_inner);
    ensure!(after == [u32::MAX, 2, 7], "{after:?}");
    Ok(())
}

fn every_word_of_a_range_is_changed_once() -> CaseResult {
    let device = Device::open()?;
    // Not on the border of a window, so that there are four of them.
    let len = 3 * HUGE;
    let memory = Mapping::anonymous(len + PAGE)?;
    // The device does not reach the last page, which could not be taken if it were not there.
    memory.fill(len..len + PAGE, 0);
    let words = len / 24;
    for (round, on_device) in [(1, false), (2, false), (3, true)] {
        if on_device {
            device.take(&memory)?;
        }
        let command = Command::fetch_add(memory.at(16), 8, 7, words as u64, 24);
        let done = device.run(command)?;
        ensure!(
            (done.word(0), done.word(1)) == (7 * (round - 1), words as u64),
            "{done:?}"
        );
        let bytes = memory.to_vec();
        for (n, word) in bytes.chunks_exact(8).enumerate() {
            let changed = n >= 2 && (n - 2) % 3 == 0 && (n - 2) / 3 < words;
            let expected: u64 = if changed { 7 * round } else { 0 };
            ensure!(word == expected.to_le_bytes(), "Word {n}, round {round}");
        }
    }
    Ok(())
}

fn nothing_is_lost_in_system_memory() -> CaseResult {
    covers!("coax.drv.18");
    let device = Device::open()?;
    device.set_policy(Policy::Never, None)?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0);
    nothing_is_lost_in(&device, &memory)?;
    let there = device.device_pages(&memory)?;
    ensure!(there == 0, "{there} pages moved");
    Ok(())
}

fn nothing_is_lost_in_device_memory() -> CaseResult {
    covers!("coax.drv.18");
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0);
    device.take(&memory)?;
    nothing_is_lost_in(&device, &memory)
}

fn nothing_is_lost_in_shared_memory() -> CaseResult {
    nothing_is_lost_in(&Device::open()?, &Mapping::shared(LEN)?)
}

fn nothing_is_lost_in_a_file() -> CaseResult {
    covers!("coax.drv.18");
    let device = Device::open()?;
    let fd = memfd_create(c"coax-test", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let file = File::from(fd);
    file.set_len(LEN as u64).context("Size of the memfd")?;
    let one = Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)?;
    let other = Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)?;
    // The device by one mapping, the CPU by the other.
    let by_device = || add_by_device(&device, &one);
    nothing_is_lost(by_device, || other.add(AT, 1), || one.load(AT))
}

fn nothing_is_lost_with_one_processor() -> CaseResult {
    let cpus = std::thread::available_parallelism().context("CPUs")?;
    ensure!(cpus.get() == 1, "{cpus} CPUs");
    let device = Device::open()?;
    let memory = Mapping::shared(LEN)?;
    // Many: the only CPU adds meanwhile only when nothing else is to be done.
    let by_device = || add_so_often(&device, &memory, 1 << 20);
    nothing_is_lost(by_device, || memory.add(AT, 1), || memory.load(AT))
}

fn nothing_is_lost_on_the_stack() -> CaseResult {
    let device = Device::open()?;
    let word = AtomicU64::new(0);
    let by_device = || {
        // Few, for each is a command of its own.
        for _ in 0..20 {
            device
                .fetch_add_u64(&word, DEVICE_ONE)
                .context("FetchAdd")?;
        }
        Ok(20)
    };
    let add = || {
        word.fetch_add(1, SeqCst);
    };
    nothing_is_lost(by_device, add, || word.load(SeqCst))
}

fn nothing_is_lost_in_a_huge_page() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::huge(HUGE)?;
    memory.fill(0..HUGE, 0);
    nothing_is_lost_in(&device, &memory)
}

fn contexts_lose_nothing_among_each_other() -> CaseResult {
    let (one, other) = (Device::open()?, Device::open()?);
    let memory = Mapping::anonymous(LEN)?;
    let command = Command::fetch_add(memory.at(AT), 8, 1, ADDITIONS, 0);
    for _ in 0..ROUNDS {
        let (first, second) = (one.start(command)?, other.start(command)?);
        one.finish(first)?;
        other.finish(second)?;
    }
    let found = memory.load(AT);
    ensure!(found == 2 * ROUNDS * ADDITIONS, "{found} additions");
    Ok(())
}

fn compare_and_swap_succeeds_once_a_value() -> CaseResult {
    const ATTEMPTS: u64 = 400;
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.store(AT, 0);
    let attempts = AtomicU64::new(0);
    let by_device = std::thread::scope(|scope| -> Result<u64> {
        // One increment for two attempts of the device, which could never be in time for a CPU
        // that does nothing else.
        scope.spawn(|| {
            for n in 1..=ATTEMPTS / 2 {
                while attempts.load(SeqCst) < 2 * n {
                    std::thread::yield_now();
                }
                loop {
                    let value = memory.load(AT);
                    if memory.swap(AT, value, value + 1) {
                        break;
                    }
                }
            }
        });
        let (mut expected, mut swapped, mut outcome) = (0, 0u64, Ok(()));
        for _ in 0..ATTEMPTS {
            attempts.fetch_add(1, SeqCst);
            let swap = Command::compare_swap(memory.at(AT), 8, expected, expected + 1);
            match device.run(swap) {
                Ok(done) => {
                    let hit = done.word(0) == expected;
                    swapped += u64::from(hit);
                    expected = done.word(0) + u64::from(hit);
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome.context("Compare and swap").map(|()| swapped)
    })?;
    ensure!(by_device > 0, "The device never swapped");
    let found = memory.load(AT);
    ensure!(
        found == by_device + ATTEMPTS / 2,
        "{found} increments, {by_device} of them by the device"
    );
    Ok(())
}

fn unaligned_words_are_refused() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    for command in [
        Command::fetch_add(memory.at(4), 8, 1, 1, 0),
        Command::fetch_add(memory.at(PAGE - 2), 4, 1, 1, 0),
        Command::fetch_add(memory.at(0), 8, 1, 2, 12),
        Command::fetch_add(memory.at(0), 2, 1, 1, 0),
        Command::compare_swap(memory.at(1), 4, 0, 1),
        Command::compare_swap(memory.at(0), 4, 0, 1 << 32),
    ] {
        match device.run(command) {
            Err(Error::Command(failure)) if failure.status == Status::BadArgument => {}
            other => bail!("{command:x?}: {other:?}"),
        }
    }
    ensure!(memory.to_vec().iter().all(|&byte| byte == 0));
    Ok(())
}

fn read_only_memory_refuses_atomics() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.store(AT, 5);
    memory.protect(0..LEN, READ_ONLY)?;
    refused(device.run(add(&memory, AT, 1)), &memory)?;
    let fd = memfd_create(c"coax-test", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let file = File::from(fd);
    file.set_len(LEN as u64).context("Size of the memfd")?;
    let mapped = Mapping::file_shared(file.as_fd(), LEN, READ_ONLY)?;
    refused(device.run(add(&mapped, AT, 1)), &mapped)?;
    ensure!((memory.load(AT), mapped.load(AT)) == (5, 0));
    Ok(())
}

/// Demands that an atomic operation on the word of the mapping was refused.
fn refused(outcome: Outcome, memory: &Mapping) -> Result<()> {
    let failure = faulted(outcome, memory.at(AT), Access::Atomic)?;
    ensure!(failure.bytes_done == 0, "{failure:?}");
    Ok(())
}

fn fork_keeps_the_words_of_parent_and_child_apart() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.store(AT, 5);
    device.run(add(&memory, AT, 10))?;
    let (parent_end, child_end) = line()?;
    let child = fork(|| {
        let own = Device::open()?;
        ensure!(memory.load(AT) == 15, "The child sees {}", memory.load(AT));
        own.run(add(&memory, AT, 100))?;
        child_end.announce(1)?;
        child_end.await_step(2)?;
        let before = own.run(add(&memory, AT, 100))?.word(0);
        ensure!(before == 115, "The child's word was {before}");
        Ok(())
    })?;
    parent_end.await_step(1)?;
    let before = device.run(add(&memory, AT, 10))?.word(0);
    ensure!(before == 15, "The parent's word was {before}");
    parent_end.announce(2)?;
    child.succeeds()?;
    memory.add(AT, 1);
    ensure!(memory.load(AT) == 26, "The parent sees {}", memory.load(AT));
    Ok(())
}

fn protection_reaches_a_page_that_the_device_has() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.store(AT, 5);
    for round in 0..20u64 {
        device.run(add(&memory, AT, 1))?;
        memory.protect(0..LEN, READ_ONLY)?;
        ensure!(memory.load(AT) == 6 + round, "Round {round}");
        refused(device.run(add(&memory, AT, 1)), &memory)?;
        memory.protect(0..LEN, READ_WRITE)?;
    }
    ensure!(memory.load(AT) == 25);
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Queues of a few descriptors, as a front end may offer them: who finds one full waits until it is not, also
//! where all others wait for the same.

use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Policy};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "small_queues",
    cases: &[
        case!(
            movers_that_fill_the_copy_queue_all_arrive,
            "more copies at once than the queue has room for"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::SmallQueues)
        .limit(Duration::from_secs(120)),
        case!(
            changes_of_mappings_that_fill_the_translation_queue_all_pass,
            "more answers and invalidations at once than the queue has room for"
        )
        .in_vm(Vm::SmallQueues),
        case!(
            commands_that_find_no_room_are_refused_and_the_others_end,
            "more commands and requests at once than their queues have room for"
        )
        .in_vm(Vm::SmallQueues),
        case!(
            openings_that_fill_the_control_queue_all_open,
            "more openings and closings at once than the queue has room for"
        )
        .in_vm(Vm::SmallQueues),
    ],
};

/// Twice as many as a queue has descriptors.
const THREADS: u64 = 8;
const ROUNDS: u64 = 4;
/// Several windows of the pipeline that moves small pages.
const LEN: usize = 1024 * PAGE;

/// Does `what` in all threads at once, each with its number.
fn at_once(what: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let what = &what;
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || what(number)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn movers_that_fill_the_copy_queue_all_arrive() -> CaseResult {
    at_once(|number| {
        let device = Device::open_moving()?;
        let memory = Mapping::small_pages(LEN)?;
        let content = pattern::bytes(number + 1, LEN);
        memory.write(0, &content);
        for _ in 0..ROUNDS {
            let there = device.prefetch(range_of(&memory)).context("There")?;
            ensure!(there.left == 0, "{there:?}");
            let back = device.evict(range_of(&memory)).context("Back")?;
            ensure!(back.left == 0, "{back:?}");
        }
        same("memory", &memory.to_vec(), &content)
    })
}

fn changes_of_mappings_that_fill_the_translation_queue_all_pass() -> CaseResult {
    const PIECE: usize = 64 * PAGE;
    at_once(|number| {
        let device = Device::open()?;
        device.set_policy(Policy::Never, None)?;
        let memory = Mapping::small_pages(PIECE)?;
        for round in 0..ROUNDS * 4 {
            let word = (number << 32) | round;
            loop {
                match device.fill(&memory, 0..PIECE, word) {
                    // Others have the queue of the commands.
                    Err(error) if error.errno() == libc::EBUSY => std::thread::yield_now(),
                    filled => break filled.map(drop)?,
                }
            }
            ensure!(memory.load(PIECE - 8) == word, "{word:#x}");
            for page in 0..PIECE / PAGE {
                memory.advise(page * PAGE..(page + 1) * PAGE, libc::MADV_DONTNEED)?;
            }
            ensure!(memory.load(PIECE - 8) == 0, "{word:#x}");
        }
        Ok(())
    })
}

fn commands_that_find_no_room_are_refused_and_the_others_end() -> CaseResult {
    covers!("coax.drv.22");
    const WINDOW: usize = 512 * PAGE;
    let device = Device::open()?;
    let memory = Mapping::anonymous(32 * WINDOW)?;
    let mut started = Vec::new();
    let mut refused = 0;
    for number in 0..32 {
        let at = memory.at(number * WINDOW);
        match device.start(Command::fill(at, PAGE as u64, number as u64 + 1)) {
            Ok(id) => started.push((number, id)),
            Err(error) if error.errno() == libc::EBUSY => refused += 1,
            Err(error) => return Err(error).context("A command"),
        }
    }
    ensure!(!started.is_empty(), "All of {refused} were refused");
    for (number, id) in started {
        device.finish(id)?;
        let word = memory.load(number * WINDOW + PAGE - 8);
        ensure!(word == number as u64 + 1, "{number}: {word}");
    }
    device.run(Command::nop())?;
    Ok(())
}

fn openings_that_fill_the_control_queue_all_open() -> CaseResult {
    let before = Device::open()?.stats()?.contexts;
    at_once(|_| {
        for _ in 0..ROUNDS {
            let opened: Vec<Device> = (0..4).map(|_| Device::open()).collect::<Result<_, _>>()?;
            for device in &opened {
                device.stats()?;
            }
        }
        Ok(())
    })?;
    let after = Device::open()?.stats()?.contexts;
    ensure!(after == before, "{after} contexts, {before} before");
    Ok(())
}

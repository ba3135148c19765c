// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Contexts side by side: each sees its own memory, and none keeps the others from working.

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Context};
use coax_abi::uapi::MAX_IN_FLIGHT;
use coax_specification::covers;
use nix::unistd::{setuid, Uid};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{refused, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::{fork, line};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "isolation",
    cases: &[
        case!(
            same_addresses_in_two_processes_are_two_memories,
            "addresses belong to a context"
        ),
        case!(
            sixty_four_contexts_work_at_once,
            "commands of many contexts in flight"
        ),
        case!(
            sixty_four_processes_work_at_once,
            "contexts of many address spaces"
        ),
        case!(
            contexts_of_one_process_share_its_memory,
            "several contexts, one memory"
        ),
        case!(
            one_context_too_many_is_refused,
            "the limit of contexts, and after it"
        ),
        case!(
            one_user_leaves_contexts_to_others,
            "the limit of a user without privilege"
        ),
        case!(
            commands_in_flight_are_limited,
            "the limit of a context, and after it"
        ),
        case!(
            greedy_contexts_leave_room_for_a_command,
            "many contexts with as many commands as they get"
        ),
        case!(
            a_walk_without_end_does_not_starve_others,
            "engines are shared"
        ),
    ],
};

/// Where both processes map: far from what the kernel picks by itself.
const FIXED: usize = 0x1000_0000_0000;
const LEN: usize = 32 * PAGE;
/// A user without privilege.
const USER: u32 = 1000;
/// Part of the contexts that one such user may have.
const USER_SHARE: usize = 4;

fn same_addresses_in_two_processes_are_two_memories() -> CaseResult {
    let (one, other) = line()?;
    let work = |end: crate::guest::process::Line, seed: u64| -> CaseResult {
        let device = Device::open()?;
        let memory = Mapping::anonymous_at(FIXED, LEN)?;
        // In step, so that both have translations of the same addresses all the time.
        for round in 0..10 {
            let content = pattern::bytes(seed + 2 * round, LEN);
            memory.write(0, &content);
            end.announce(round as u8)?;
            end.await_step(round as u8)?;
            ensure!(
                device.digest(&memory)? == pattern::sha256(&content),
                "Round {round}"
            );
            device.fill(&memory, 0..LEN / 2, seed)?;
            end.announce(round as u8)?;
            end.await_step(round as u8)?;
            let mut expected = content;
            expected[..LEN / 2].copy_from_slice(&seed.to_le_bytes().repeat(LEN / 16));
            same("memory", &memory.to_vec(), &expected)?;
        }
        Ok(())
    };
    let child = fork(|| work(one, 1))?;
    let ours = work(other, 2);
    child.succeeds()?;
    ours
}

fn sixty_four_contexts_work_at_once() -> CaseResult {
    covers!("coax.drv.6", "coax.drv.8");
    const CONTEXTS: usize = 64;
    const EACH: usize = 64 * PAGE;
    let devices = (0..CONTEXTS)
        .map(|_| Device::open())
        .collect::<Result<Vec<_>, _>>()
        .context("Opening")?;
    let memories = (0..CONTEXTS)
        .map(|_| Mapping::anonymous(EACH))
        .collect::<Result<Vec<_>>>()?;
    for (memory, byte) in memories.iter().zip(0u8..) {
        memory.fill(0..EACH, byte);
    }
    // All are in flight before the first is collected.
    let mut hashes = Vec::new();
    for (device, memory) in devices.iter().zip(&memories) {
        hashes.push(device.start(Command::sha256(memory.address(), EACH as u64))?);
    }
    for ((device, id), byte) in devices.iter().zip(hashes).zip(0u8..) {
        let expected = pattern::sha256(&[byte; EACH]);
        ensure!(device.finish(id)?.result == expected, "Context {byte}");
    }
    let contexts = devices[0].stats()?.contexts;
    ensure!(
        contexts >= CONTEXTS as u64,
        "The driver counts {contexts} contexts"
    );
    Ok(())
}

fn sixty_four_processes_work_at_once() -> CaseResult {
    let mut children = Vec::new();
    for number in 0..64u64 {
        children.push(fork(|| {
            let device = Device::open()?;
            let memory = Mapping::anonymous_at(FIXED, LEN)?;
            let content = pattern::bytes(number, LEN);
            memory.write(0, &content);
            ensure!(
                device.digest(&memory)? == pattern::sha256(&content),
                "Process {number}"
            );
            device.fill(&memory, 0..LEN, number)?;
            same(
                "memory",
                &memory.to_vec(),
                &number.to_le_bytes().repeat(LEN / 8),
            )
        })?);
    }
    children.into_iter().try_for_each(|child| child.succeeds())
}

fn contexts_of_one_process_share_its_memory() -> CaseResult {
    let (one, other) = (Device::open()?, Device::open()?);
    let memory = Mapping::anonymous(LEN)?;
    for round in 0..20u64 {
        let (writer, reader) = if round % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        writer.fill(&memory, 0..LEN, round)?;
        let expected = pattern::sha256(&round.to_le_bytes().repeat(LEN / 8));
        ensure!(reader.digest(&memory)? == expected, "Round {round}");
    }
    Ok(())
}

fn one_context_too_many_is_refused() -> CaseResult {
    let first = Device::open()?;
    let limit = first.info()?.max_contexts;
    let mut open = vec![first];
    let refusal = loop {
        match Device::open() {
            Ok(device) => open.push(device),
            Err(error) => break error,
        }
        ensure!(
            open.len() <= limit as usize,
            "{} contexts of {limit} are open",
            open.len()
        );
    };
    ensure!(
        open.len() == limit as usize,
        "{refusal} after {} of {limit}",
        open.len()
    );
    refused::<Device>("one context more", Err(refusal), libc::EMFILE)?;
    open[0]
        .run(Command::nop())
        .context("A context beside the refused one")?;
    open.pop();
    Device::open()
        .context("After one was closed")?
        .run(Command::nop())?;
    Ok(())
}

fn one_user_leaves_contexts_to_others() -> CaseResult {
    let limit = Device::open()?.info()?.max_contexts as usize / USER_SHARE;
    let (theirs, ours) = line()?;
    let greedy = fork(|| {
        setuid(Uid::from_raw(USER)).context("setuid")?;
        let mut open = Vec::new();
        let refusal = loop {
            match Device::open() {
                Ok(device) => open.push(device),
                Err(error) => break error,
            }
            ensure!(open.len() <= limit, "{} contexts are open", open.len());
        };
        ensure!(
            open.len() == limit,
            "{refusal} after {} of {limit}",
            open.len()
        );
        refused::<Device>("one context more", Err(refusal), libc::EMFILE)?;
        theirs.announce(1)?;
        theirs.await_step(2)?;
        open.pop();
        Device::open()
            .context("After one was closed")?
            .run(Command::nop())?;
        Ok(())
    })?;
    ours.await_step(1)?;
    let other = fork(|| {
        setuid(Uid::from_raw(USER + 1)).context("setuid")?;
        Device::open()?.run(Command::nop())?;
        Ok(())
    })?;
    other.succeeds().context("Another user")?;
    Device::open()
        .context("A user with privilege")?
        .run(Command::nop())?;
    ours.announce(2)?;
    greedy.succeeds()
}

fn greedy_contexts_leave_room_for_a_command() -> CaseResult {
    covers!("coax.drv.22");
    /// More than it takes to fill the ring of every engine with contexts that each have all they may.
    const CONTEXTS: usize = 16;
    let modest = Device::open()?;
    let ring = Mapping::anonymous(4 * PAGE)?;
    list::lay(&ring, ring.address());
    let mut greedy = Vec::new();
    for number in 0..CONTEXTS {
        let device = Device::open()?;
        let mut walks = Vec::new();
        let refusal = loop {
            match device.start(list::walk(&ring, u64::MAX)) {
                Ok(walk) => walks.push(walk),
                Err(error) => break error,
            }
        };
        refused::<()>("one command more", Err(refusal), libc::EBUSY)?;
        ensure!(!walks.is_empty(), "Context {number} got no command in");
        greedy.push((device, walks));
    }
    modest
        .run(Command::nop())
        .context("A command of a modest context")?;
    ring.store(list::NEXT, 0);
    for (device, walks) in &greedy {
        for walk in walks {
            device.finish(*walk)?;
        }
    }
    Ok(())
}

fn commands_in_flight_are_limited() -> CaseResult {
    let device = Device::open()?;
    let mut ids = Vec::new();
    for number in 0..MAX_IN_FLIGHT {
        ids.push(
            device
                .start(Command::nop())
                .with_context(|| format!("Command {number}"))?,
        );
    }
    refused(
        "one command more",
        device.start(Command::nop()),
        libc::EBUSY,
    )?;
    // Another context is not concerned.
    Device::open()?.run(Command::nop())?;
    for id in ids {
        device.finish(id)?;
    }
    device.run(Command::nop())?;
    Ok(())
}

fn a_walk_without_end_does_not_starve_others() -> CaseResult {
    let greedy = Device::open()?;
    // More endless walks than there are engines.
    let engines = greedy.info()?.command_queues;
    let mut walks = Vec::new();
    for _ in 0..2 * engines {
        let ring = Mapping::anonymous(4 * PAGE)?;
        list::lay(&ring, ring.address());
        walks.push((greedy.start(list::walk(&ring, u64::MAX))?, ring));
    }
    let modest = Device::open()?;
    let bytes = pattern::bytes(81, 1 << 20);
    ensure!(
        Context::sha256(&modest, &bytes)? == pattern::sha256(&bytes),
        "Wrong digest"
    );
    for (walk, ring) in walks {
        ring.store(list::NEXT, 0);
        greedy.finish(walk)?;
    }
    Ok(())
}

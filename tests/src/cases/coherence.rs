// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One memory: what the CPU writes the device sees, and the other way round.

use anyhow::ensure;
use coax::Command;

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "coherence",
    cases: &[
        case!(
            cpu_writes_between_commands_are_seen,
            "no stale data in the device"
        ),
        case!(
            device_writes_are_seen_by_the_cpu,
            "no stale data in the CPU's page table"
        ),
        case!(
            a_word_passed_to_and_fro_keeps_count,
            "ownership of a page, many times over"
        ),
        case!(
            a_list_changed_by_the_cpu_is_walked_as_it_is,
            "structures, not only buffers"
        ),
        case!(
            a_running_walk_sees_a_cpu_write,
            "a write of the CPU ends a walk without end"
        ),
        case!(commands_see_what_earlier_commands_wrote, "device to device"),
    ],
};

const LEN: usize = 64 * PAGE;

fn cpu_writes_between_commands_are_seen() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let mut content = pattern::bytes(31, LEN);
    memory.write(0, &content);
    for round in 0..8 {
        ensure!(
            device.digest(&memory)? == pattern::sha256(&content),
            "Round {round}"
        );
        let at = (round * 11 + 3) * PAGE / 2;
        let change = pattern::bytes(round as u64, 1000);
        memory.write(at, &change);
        content[at..at + 1000].copy_from_slice(&change);
    }
    Ok(())
}

fn device_writes_are_seen_by_the_cpu() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0x77);
    for round in 0..8u64 {
        device.fill(&memory, 0..LEN, round)?;
        same(
            "memory",
            &memory.to_vec(),
            &round.to_le_bytes().repeat(LEN / 8),
        )?;
    }
    Ok(())
}

fn a_word_passed_to_and_fro_keeps_count() -> CaseResult {
    let device = Device::open()?;
    let (one, other) = (Mapping::anonymous(PAGE)?, Mapping::anonymous(PAGE)?);
    // Enough that a lost invalidation, should it need a race, has its chance.
    for count in 0..200 {
        one.store(0, count);
        device.copy(&other, &one)?;
        let got = other.load(0);
        ensure!(got == count, "{got} came back instead of {count}");
    }
    Ok(())
}

fn a_list_changed_by_the_cpu_is_walked_as_it_is() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    list::lay(&memory, 0);
    let pages = memory.pages();
    let done = device.run(list::walk(&memory, pages))?;
    ensure!(
        (done.word(0), done.word(1)) == (list::sum(pages), pages),
        "{done:?}"
    );
    // The CPU takes page 9 out, and changes a value.
    memory.store(8 * PAGE + list::NEXT, memory.at(10 * PAGE));
    memory.store(20 * PAGE + list::VALUE, 1000);
    let expected = list::sum(pages) - 10 - 21 + 1000;
    let done = device.run(list::walk(&memory, pages))?;
    ensure!(
        (done.word(0), done.word(1)) == (expected, pages - 1),
        "{done:?}"
    );
    Ok(())
}

fn a_running_walk_sees_a_cpu_write() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let id = list::start_endless(&device, &memory)?;
    memory.store(30 * PAGE + list::NEXT, 0);
    let done = device.finish(id)?;
    ensure!(done.word(1) % memory.pages() == 31, "{done:?}");
    Ok(())
}

fn commands_see_what_earlier_commands_wrote() -> CaseResult {
    let device = Device::open()?;
    let steps = [0; 6].map(|_| Mapping::anonymous(LEN));
    let steps = steps.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let content = pattern::bytes(32, LEN);
    steps[0].write(0, &content);
    for (index, pair) in steps.windows(2).enumerate() {
        device.copy(&pair[1], &pair[0])?;
        // Some of the copies go from one memory to the other.
        if index % 2 == 0 {
            device.evict(range_of(&pair[1]))?;
        }
    }
    let last = &steps[steps.len() - 1];
    let command = Command::sha256(last.address(), LEN as u64);
    ensure!(
        device.run(command)?.result == pattern::sha256(&content),
        "Wrong digest"
    );
    same("last copy", &last.to_vec(), &content)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device taken out of service and back: everything ends, nothing is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{ensure, Result};
use coax::Command;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "reset",
    cases: &[
        case!(
            an_idle_device_resets_and_works_on,
            "reset of a device that does nothing"
        ),
        case!(
            commands_of_all_contexts_end_cancelled,
            "reset under commands"
        ),
        case!(
            device_pages_go_to_system_memory,
            "reset with pages on the device"
        ),
        case!(resets_in_a_row_lose_nothing, "reset, use, reset"),
        case!(
            resets_under_cpu_faults_lose_nothing,
            "two threads fault pages back that the reset is moving"
        )
        .modes(&[Mode::Private])
        .limit(Duration::from_secs(180)),
    ],
};

const LEN: usize = 256 * PAGE;

fn an_idle_device_resets_and_works_on() -> CaseResult {
    let device = Device::open()?;
    device.reset()?;
    device.run(Command::nop())?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 1);
    device.take(&memory)
}

fn commands_of_all_contexts_end_cancelled() -> CaseResult {
    let mut running = Vec::new();
    for _ in 0..8 {
        let device = Device::open()?;
        let ring = Mapping::anonymous(16 * PAGE)?;
        list::lay(&ring, ring.address());
        let walk = device.start(list::walk(&ring, u64::MAX))?;
        running.push((device, ring, walk));
    }
    Device::open()?.reset()?;
    for (device, ring, walk) in running {
        refused("a walk without end", device.finish(walk), libc::ECANCELED)?;
        // Open contexts stay open, and their memory is what it was.
        list::lay(&ring, 0);
        let done = device.run(list::walk(&ring, 16))?;
        ensure!(done.word(0) == list::sum(16), "{done:?}");
    }
    Ok(())
}

fn device_pages_go_to_system_memory() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(101, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    device.reset()?;
    let pages = device.where_is(&memory)?;
    ensure!(
        (pages.system, pages.device) == (memory.pages(), 0),
        "{pages:?}"
    );
    let info = device.info()?;
    ensure!(info.free_pages == info.device_pages, "{info:?}");
    same("memory", &memory.to_vec(), &content)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    Ok(())
}

fn resets_in_a_row_lose_nothing() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(102, LEN);
    memory.write(0, &content);
    for round in 0..10 {
        let before = device.start(Command::sha256(memory.address(), LEN as u64))?;
        device.reset()?;
        // It was done before the reset, or cancelled by it; nothing else.
        if let Err(error) = device.finish(before) {
            refused::<()>("a hash", Err(error), libc::ECANCELED)?;
        }
        ensure!(
            device.digest(&memory)? == pattern::sha256(&content),
            "Round {round}"
        );
    }
    same("memory", &memory.to_vec(), &content)
}

/// A page that a CPU's fault has just moved away is still found by number, with nothing in it.
fn resets_under_cpu_faults_lose_nothing() -> CaseResult {
    const ROUNDS: usize = 12;
    let device = Device::open()?;
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(103, LEN);
    memory.write(0, &content);
    let pages = LEN / PAGE;
    let ended = AtomicBool::new(false);
    // One thread comes from the front and one from the back, so that one of them meets the reset.
    let touch = |from_front: bool| -> Result<u64> {
        let mut seen = vec![0; PAGE];
        let mut touched = 0;
        while !ended.load(Ordering::Acquire) {
            for step in 0..pages {
                let page = if from_front { step } else { pages - 1 - step };
                memory.read(page * PAGE, &mut seen);
                same("page", &seen, &content[page * PAGE..][..PAGE])?;
                touched += 1;
            }
        }
        Ok(touched)
    };
    std::thread::scope(|scope| -> CaseResult {
        let threads = [true, false].map(|front| scope.spawn(move || touch(front)));
        let resets = (0..ROUNDS).try_for_each(|_| {
            device.prefetch(range_of(&memory))?;
            device.reset()
        });
        ended.store(true, Ordering::Release);
        for thread in threads {
            let touched = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ensure!(touched > 0, "A thread touched nothing");
        }
        Ok(resets?)
    })?;
    let by_fault = device.stats()?.to_system_fault;
    ensure!(by_fault > 0, "No page came back by a CPU's fault");
    same("memory", &memory.to_vec(), &content)
}

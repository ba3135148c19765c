// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device memory smaller than the data: slower, never wrong.

use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use nix::unistd::{setuid, Uid};

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::{range_of, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::process::fork;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "capacity",
    cases: &[
        case!(
            a_list_larger_than_device_memory_is_walked,
            "reads of more than fits"
        )
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            more_than_device_memory_is_written,
            "writes to more than fits"
        )
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            prefetch_of_more_than_fits_says_so,
            "moving on request of more than fits"
        )
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            processes_share_device_memory,
            "two processes, each with more than half"
        )
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
        case!(
            a_user_without_pages_gets_the_fair_share,
            "device memory full of another's pages, small and large"
        )
        .in_vm(Vm::SmallDevice)
        .modes(&Mode::MOVING)
        .limit(LIMIT),
        case!(
            device_memory_is_free_again_at_the_end,
            "nothing was lost by the cases before"
        )
        .in_vm(Vm::SmallDevice)
        .limit(LIMIT),
    ],
};

/// These touch hundreds of MiB page by page, under TCG on a busy host.
const LIMIT: Duration = Duration::from_secs(180);

/// Another user than root.
const USER: u32 = 1000;
/// Pages that do not matter: some are cleared ahead, and whole folios of 512 come home.
const FEW: u64 = 640;

/// Two and a half times device memory.
fn too_much(device: &Device) -> Result<usize> {
    let pages = usize::try_from(device.info()?.device_pages)?;
    // The VM is given little, so that this stays quick.
    ensure!(
        pages <= 32 << 10,
        "Device memory of {pages} pages is not small"
    );
    Ok(pages * PAGE / 2 * 5)
}

fn a_list_larger_than_device_memory_is_walked() -> CaseResult {
    let device = Device::open_moving()?;
    let memory = Mapping::anonymous(too_much(&device)?)?;
    list::lay(&memory, 0);
    let pages = memory.pages();
    for round in 0..2 {
        let done = device.run(list::walk(&memory, pages))?;
        let got = (done.word(0), done.word(1));
        ensure!(got == (list::sum(pages), pages), "Round {round}: {done:?}");
    }
    let there = device.device_pages(&memory)?;
    ensure!(there > 0, "Nothing at all moved");
    for page in 0..memory.len() / PAGE {
        let value = memory.load(page * PAGE + list::VALUE);
        ensure!(value == page as u64 + 1, "Page {page} holds {value}");
    }
    Ok(())
}

fn more_than_device_memory_is_written() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(too_much(&device)?)?;
    for pattern in [0x1111_2222_3333_4444, 0x5555_6666_7777_8888] {
        let done = device.fill(&memory, 0..memory.len(), pattern)?;
        ensure!(done.bytes_done == memory.len() as u64, "{done:?}");
        for offset in (0..memory.len()).step_by(PAGE) {
            let word = memory.load(offset + 8);
            ensure!(word == pattern, "Page {}: {word:#x}", offset / PAGE);
        }
    }
    Ok(())
}

fn prefetch_of_more_than_fits_says_so() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(too_much(&device)?)?;
    list::lay(&memory, 0);
    let migrated = device.prefetch(range_of(&memory))?;
    let counted = migrated.moved + migrated.already + migrated.left;
    ensure!(
        counted == memory.pages(),
        "{migrated:?} of {} pages",
        memory.pages()
    );
    let there = device.device_pages(&memory)?;
    let capacity = device.info()?.device_pages;
    ensure!(
        there > 0 && there <= capacity,
        "{there} pages on a device of {capacity}"
    );
    let done = device.run(list::walk(&memory, memory.pages()))?;
    ensure!(done.word(0) == list::sum(memory.pages()), "{done:?}");
    Ok(())
}

fn processes_share_device_memory() -> CaseResult {
    let mut children = Vec::new();
    for _ in 0..2 {
        children.push(fork(|| {
            let device = Device::open()?;
            let pages = usize::try_from(device.info()?.device_pages)?;
            let memory = Mapping::anonymous(pages * PAGE / 3 * 2 / PAGE * PAGE)?;
            list::lay(&memory, 0);
            for _ in 0..3 {
                let done = device.run(list::walk(&memory, memory.pages()))?;
                ensure!(done.word(0) == list::sum(memory.pages()), "{done:?}");
            }
            Ok(())
        })?);
    }
    children.into_iter().try_for_each(|child| child.succeeds())
}

fn a_user_without_pages_gets_the_fair_share() -> CaseResult {
    for large in [false, true] {
        let device = Device::open()?;
        let capacity = usize::try_from(device.info()?.device_pages)?;
        let ballast = match large {
            false => Mapping::small_pages(capacity * PAGE)?,
            true => Mapping::huge(capacity * PAGE)?,
        };
        list::lay(&ballast, 0);
        device.prefetch(range_of(&ballast))?;
        let free = device.info()?.free_pages;
        ensure!(free < FEW, "{free} pages are free");
        fork(|| {
            setuid(Uid::from_raw(USER)).context("setuid")?;
            another_user(capacity)
        })?
        .succeeds()?;
        // Until that user had as much as this one, and no page more, this one's went home.
        let left = device.device_pages(&ballast)?;
        let share = capacity as u64 / 2;
        ensure!(
            left >= share - FEW && left < share + 2 * FEW,
            "{left} of {capacity} pages are left"
        );
        device.evict(range_of(&ballast))?;
        for page in 0..ballast.len() / PAGE {
            let value = ballast.load(page * PAGE + list::VALUE);
            ensure!(value == page as u64 + 1, "Page {page} holds {value}");
        }
    }
    Ok(())
}

/// Comes to a full device: by request, and by a command's faults.
fn another_user(capacity: usize) -> CaseResult {
    let device = Device::open_moving()?;
    // More than the share.
    let memory = Mapping::small_pages((capacity / 2 + 2 * FEW as usize) * PAGE)?;
    list::lay(&memory, 0);
    let written = Mapping::small_pages(FEW as usize * PAGE)?;
    written.fill(0..written.len(), 1);
    device.fill(&written, 0..written.len(), 0x2222_3333_4444_5555)?;
    let by_faults = device.device_pages(&written)?;
    ensure!(by_faults > 0, "Faults moved nothing");
    device.prefetch(range_of(&memory))?;
    let there = device.device_pages(&memory)? + by_faults;
    let share = capacity as u64 / 2;
    ensure!(
        there >= share - FEW && there <= share + FEW,
        "{there} pages of {capacity} are there"
    );
    // In one go, which is quicker than by faults.
    device.evict(range_of(&memory))?;
    for page in 0..memory.len() / PAGE {
        let value = memory.load(page * PAGE + list::VALUE);
        ensure!(value == page as u64 + 1, "Page {page} holds {value}");
    }
    for page in 0..FEW as usize {
        let word = written.load(page * PAGE + 8);
        ensure!(word == 0x2222_3333_4444_5555, "Page {page}: {word:#x}");
    }
    Ok(())
}

fn device_memory_is_free_again_at_the_end() -> CaseResult {
    let device = Device::open()?;
    crate::guest::wait::until("Device memory being free", || {
        let info = device.info()?;
        Ok(info.free_pages == info.device_pages)
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What debuggers and checkpoints read of memory that the device has.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context as _, Result};
use coax_specification::covers;
use nix::sys::resource::{setrlimit, Resource, RLIM_INFINITY};
use nix::sys::signal::{raise, Signal};

use crate::case;
use crate::case::{CaseResult, Mode, Skip, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::fork;
use crate::guest::{core_file, pagemap};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "checkpoints",
    cases: &[
        case!(
            a_core_file_has_what_is_on_the_device,
            "a program that dies of SIGABRT with pages there"
        ),
        case!(
            what_the_device_writes_is_seen_to_be_written,
            "soft-dirty bits of pages in system memory and on the device"
        ),
    ],
};

const PAGES: usize = 16;
const LEN: usize = PAGES * PAGE;
/// Pages of which the device writes.
const WRITTEN: usize = 6;

fn a_core_file_has_what_is_on_the_device() -> CaseResult {
    let folder = Path::new("/tmp/coax-core");
    fs::create_dir_all(folder).context("The folder")?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(171, LEN);
    fork(|| {
        std::env::set_current_dir(folder)?;
        setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY)?;
        memory.write(0, &content);
        let device = Device::open()?;
        device.take(&memory)?;
        raise(Signal::SIGABRT).context("raise")
    })?
    .dies_of(Signal::SIGABRT)?;
    let files = fs::read_dir(folder)?;
    let core = files
        .into_iter()
        .next()
        .context("There is no core file")??;
    let held = core_file::memory(&core.path(), memory.address(), LEN)?;
    fs::remove_dir_all(folder)?;
    same("the core file", &held, &content)
}

/// Demands that the pages that were written, and only they, say so.
fn only_the_first_are_written(when: &str, memory: &Mapping) -> Result<()> {
    let written = pagemap::written(memory)?;
    let expected: Vec<bool> = (0..PAGES).map(|page| page < WRITTEN).collect();
    ensure!(written == expected, "{when}: {written:?}");
    Ok(())
}

fn what_the_device_writes_is_seen_to_be_written() -> CaseResult {
    covers!("coax.drv.19");
    let device = Device::open()?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 1);
    if !pagemap::written(&memory)?.contains(&true) {
        let reason = "this kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)";
        return Err(Skip(reason.into()).into());
    }
    pagemap::watch_writes()?;
    device.fill(&memory, 0..WRITTEN * PAGE, 2)?;
    only_the_first_are_written("Pages in system memory", &memory)?;

    let private = device.info()?.mode == Mode::Private.parameter();
    for round in 0..3 {
        device.take(&memory)?;
        if private {
            // Linux protects no private page from being written to unseen.
            device.evict(range_of(&memory))?;
        }
        pagemap::watch_writes()?;
        device.digest(&memory)?;
        let read = pagemap::written(&memory)?;
        ensure!(!read.contains(&true), "{round}, only read: {read:?}");
        device.fill(&memory, 0..WRITTEN * PAGE, 3)?;
        only_the_first_are_written("Pages used by the device", &memory)?;
        let mut byte = [0];
        (0..PAGES).for_each(|page| memory.read(page * PAGE, &mut byte));
        only_the_first_are_written("Pages that the CPU has read then", &memory)?;
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A page of device memory keeps nothing of what it was used for before.

use std::fs;

use anyhow::{ensure, Context, Result};
use coax_program::outln;

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE, READ_ONLY};
use crate::guest::pattern::{self, same};
use crate::guest::process::fork;
use crate::guest::smaps;
use crate::guest::wait;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "page_state",
    cases: &[
        case!(
            unevictable_pages_use_what_active_ones_used,
            "a locked page, unmapped by way of another process, over one that was accessed twice"
        )
        .modes(&Mode::MOVING),
        case!(
            lazily_freed_pages_stay_so_where_others_were,
            "MADV_FREE, to the device and back, over pages that were ordinary"
        )
        .modes(&Mode::MOVING),
        case!(
            locked_pages_are_counted_out_when_they_go,
            "mlock, to the device, munlock, munmap: Mlocked in /proc/meminfo is what it was"
        )
        .modes(&Mode::MOVING),
    ],
};

/// More than the kernel counts on a CPU before it counts for all.
const PAGES: usize = 512;
const LEN: usize = PAGES * PAGE;

/// Has device pages be used, as active pages, and given back: the next that are wanted are these.
fn use_and_give_back(device: &Device) -> Result<()> {
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 0x11);
    // The first access marks a page as referenced, the next makes it active.
    for _ in 0..3 {
        memory
            .advise(0..LEN, libc::MADV_POPULATE_READ)
            .context("MADV_POPULATE_READ")?;
    }
    device.take(&memory)?;
    let free = device.info()?.free_pages;
    drop(memory);
    wait::until("Device pages being free", || {
        Ok(device.info()?.free_pages >= free + PAGES as u64)
    })
}

fn unevictable_pages_use_what_active_ones_used() -> CaseResult {
    let device = Device::open()?;
    use_and_give_back(&device)?;
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(131, LEN);
    memory.write(0, &content);
    memory.lock()?;
    // The child is to share the pages, not to get its own.
    memory.protect(0..LEN, READ_ONLY)?;
    fork(|| {
        let device = Device::open()?;
        // The pages are off the kernel's lists when they go from the parent's page table, which holds the lock,
        // and so stay unevictable.
        device.take(&memory)?;
        device.evict(range_of(&memory)).context("Evicting")?;
        same("the child's view", &memory.to_vec(), &content)
    })?
    .succeeds()?;
    same("the parent's view", &memory.to_vec(), &content)
}

fn lazily_freed_pages_stay_so_where_others_were() -> CaseResult {
    let device = Device::open()?;
    use_and_give_back(&device)?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 0x22);
    memory
        .advise(0..LEN, libc::MADV_FREE)
        .context("MADV_FREE")?;
    device.take(&memory)?;
    device.evict(range_of(&memory)).context("Evicting")?;
    // Some were not on the kernel's lists yet, and so not freed.
    let lazy = smaps::lazily_free_pages(&memory)?;
    outln!("{lazy} of {PAGES} pages are lazily free")?;
    ensure!(lazy >= PAGES / 2, "{lazy} of {PAGES} pages are lazily free");
    Ok(())
}

fn locked_pages_are_counted_out_when_they_go() -> CaseResult {
    let device = Device::open()?;
    let before = locked_pages()?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 0x33);
    memory.lock()?;
    device.take(&memory)?;
    let locked = locked_pages()?;
    ensure!(
        locked >= before + PAGES / 2,
        "{PAGES} pages locked, but the kernel counts {locked} after {before}"
    );
    memory.unlock()?;
    drop(memory);
    wait::until("Locked pages being counted out", || {
        Ok(locked_pages()? < before + PAGES / 2)
    })
}

/// Locked pages as the kernel counts them, but for what its CPUs have not told yet.
fn locked_pages() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Mlocked:"));
    let kib = line.context("No Mlocked in /proc/meminfo")?.trim();
    let kib: usize = kib
        .trim_end_matches(" kB")
        .parse()
        .with_context(|| kib.to_owned())?;
    Ok(kib * 1024 / PAGE)
}

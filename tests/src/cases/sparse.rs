// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Much address space and little in it, as garbage collectors and sanitizers reserve it.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::process::{fork, line};
use crate::guest::program::output_of;
use crate::guest::wait::on_this_kernel;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "sparse",
    cases: &[
        case!(
            a_terabyte_of_address_space_takes_no_longer_than_what_is_there,
            "move there and back, and look, with two pages touched"
        ),
        case!(
            coaxctl_passes_over_what_another_process_never_touched,
            "residency, prefetch and evict of a process with a terabyte reserved"
        ),
        case!(
            sigkill_ends_a_look_at_much_memory,
            "64 GiB with a page touched in every 2 MiB"
        )
        .limit(KILL_LIMIT),
        case!(
            sigkill_ends_moving_much_memory,
            "the same, moved to the device and back"
        )
        .limit(KILL_LIMIT),
    ],
};

const TERABYTE: usize = 1 << 40;
/// Touching the memory takes most of the time.
const KILL_LIMIT: Duration = Duration::from_secs(120);
/// Longest time from SIGKILL to a process's end.
const END_LIMIT: Duration = Duration::from_secs(2);

fn a_terabyte_of_address_space_takes_no_longer_than_what_is_there() -> CaseResult {
    // The end of a child is waited for with a limit, and it can be killed before.
    fork(|| {
        let device = Device::open()?;
        let memory = Mapping::reserved(TERABYTE)?;
        memory.store(0, 1);
        memory.store(TERABYTE - PAGE, 2);
        let range = range_of(&memory);
        let there = device.prefetch(range)?;
        ensure!(
            there.moved + there.already + there.left == memory.pages(),
            "{there:?}"
        );
        let pages = device.where_is(&memory)?;
        ensure!(
            pages.device + pages.system == 2 && pages.none == memory.pages() - 2,
            "{pages:?}"
        );
        let back = device.evict(range)?;
        ensure!(back.left == 0, "{back:?}");
        ensure!(
            (memory.load(0), memory.load(TERABYTE - PAGE)) == (1, 2),
            "The pages touched hold something else"
        );
        Ok(())
    })?
    .succeeds()
}

fn coaxctl_passes_over_what_another_process_never_touched() -> CaseResult {
    let (here, there) = line()?;
    let memory = Mapping::reserved(TERABYTE)?;
    let child = fork(|| {
        memory.store(PAGE, 1);
        memory.store(TERABYTE / 2, 2);
        there.announce(1)?;
        there.await_step(2)?;
        let kept = (memory.load(PAGE), memory.load(TERABYTE / 2));
        ensure!(kept == (1, 2), "The pages touched hold {kept:?}");
        Ok(())
    })?;
    here.await_step(1)?;
    let pid = child.pid().to_string();
    let range = range_of(&memory).to_string();
    let began = Instant::now();
    for sub_command in ["prefetch", "residency", "evict"] {
        let text = output_of(&["coaxctl", sub_command, &pid, &range, "--json"])?;
        if sub_command == "residency" {
            let report: serde_json::Value = serde_json::from_str(&text).context("JSON")?;
            let count = |place| report["total"][place].as_u64().unwrap_or(0);
            ensure!(count("system") + count("device") == 2, "{text}");
            ensure!(count("none") == memory.pages() - 2, "{text}");
        }
    }
    let (took, limit) = (began.elapsed(), on_this_kernel(Duration::from_secs(10)));
    ensure!(took < limit, "Three calls took {took:?}");
    here.announce(2)?;
    child.succeeds()
}

/// Kills a process that is all the time in `call` on memory with a page in every 2 MiB, and demands that it
/// ends.
fn dies_in(call: fn(&Device, &Mapping) -> Result<()>) -> CaseResult {
    const BYTES: usize = 64 << 30;
    let (here, there) = line()?;
    let child = fork(|| {
        let device = Device::open()?;
        let memory = Mapping::reserved(BYTES)?;
        memory
            .advise(0..BYTES, nix::libc::MADV_NOHUGEPAGE)
            .context("MADV_NOHUGEPAGE")?;
        for at in (0..BYTES).step_by(HUGE) {
            memory.store(at, 1);
        }
        there.announce(1)?;
        // Most of the first call is still to come when the signal does.
        loop {
            call(&device, &memory)?;
        }
    })?;
    here.await_step(1)?;
    let began = Instant::now();
    child.kill()?;
    let (took, limit) = (began.elapsed(), on_this_kernel(END_LIMIT));
    ensure!(took < limit, "The process ended {took:?} after SIGKILL");
    Ok(())
}

fn sigkill_ends_a_look_at_much_memory() -> CaseResult {
    dies_in(|device, memory| device.where_is(memory).map(drop))
}

fn sigkill_ends_moving_much_memory() -> CaseResult {
    dies_in(|device, memory| {
        let there = device.prefetch(range_of(memory))?;
        let back = device.evict(range_of(memory))?;
        if there.left + back.left > 2 * memory.pages() {
            bail!("{there:?}, {back:?}");
        }
        Ok(())
    })
}

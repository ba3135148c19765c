// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Much address space and little in it, as garbage collectors and sanitizers reserve it.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
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
            sigkill_ends_calls_on_a_terabyte,
            "a process that looks at a terabyte, and moves it there and back, all the time"
        ),
    ],
};

const TERABYTE: usize = 1 << 40;
/// Longest time of three calls of coaxctl: they take a second or two, and minutes if each page is looked at.
const CALLS_LIMIT: Duration = Duration::from_secs(30);
/// Longest time from SIGKILL to a process's end: it takes no second, but on a busy host.
const END_LIMIT: Duration = Duration::from_secs(5);

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
    let (took, limit) = (began.elapsed(), on_this_kernel(CALLS_LIMIT));
    ensure!(took < limit, "Three calls took {took:?}");
    here.announce(2)?;
    child.succeeds()
}

fn sigkill_ends_calls_on_a_terabyte() -> CaseResult {
    let (here, there) = line()?;
    let child = fork(|| {
        let device = Device::open()?;
        let memory = Mapping::reserved(TERABYTE)?;
        memory.store(0, 1);
        memory.store(TERABYTE - PAGE, 2);
        there.announce(1)?;
        loop {
            device.where_is(&memory)?;
            device.prefetch(range_of(&memory))?;
            device.evict(range_of(&memory))?;
        }
    })?;
    here.await_step(1)?;
    let began = Instant::now();
    child.kill()?;
    let (took, limit) = (began.elapsed(), on_this_kernel(END_LIMIT));
    ensure!(took < limit, "The process ended {took:?} after SIGKILL");
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver loaded so that it moves less, or nothing, whatever programs ask for.

use anyhow::{ensure, Context as _, Result};
use coax::{Advice, Policy};

use crate::case;
use crate::case::{CaseResult, Subject, Vm};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::module;
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "no_migration",
    cases: &[
        case!(
            with_policy_never_nothing_moves,
            "the parameter policy=2: faults, requests, policies and advice"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            with_policy_on_request_no_fault_moves,
            "the parameter policy=1"
        )
        .in_vm(Vm::Lifecycle),
        case!(
            an_unknown_policy_gives_no_device,
            "a value of the parameter that means nothing"
        )
        .in_vm(Vm::Lifecycle),
    ],
};

const LEN: usize = 64 * PAGE;

/// Runs `work` under a driver loaded with these parameters, and leaves it loaded as it was.
fn loaded_with(parameters: &str, work: fn() -> Result<()>) -> CaseResult {
    let mode = module::mode()?;
    module::unload().context("Unload")?;
    module::load_with(mode, parameters)?;
    let worked = work();
    module::unload().context("Unload")?;
    module::load(mode)?;
    worked
}

/// The device reads and writes memory; all of it must be as it should, and none on the device.
fn used_in_place(device: &Device) -> Result<()> {
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(321, LEN);
    memory.write(0, &content);
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    let untouched = Mapping::small_pages(LEN)?;
    device.fill(&untouched, 0..LEN, 6)?;
    for mapping in [&memory, &untouched] {
        let there = device.device_pages(mapping)?;
        ensure!(there == 0, "{there} pages moved");
    }
    same("memory", &memory.to_vec(), &content)?;
    let six = 6u64.to_le_bytes().repeat(LEN / 8);
    same("untouched memory", &untouched.to_vec(), &six)
}

fn with_policy_never_nothing_moves() -> CaseResult {
    loaded_with("policy=2", || {
        let device = Device::open()?;
        let before = device.stats()?;
        let first = device.info()?.policy;
        ensure!(
            Policy::from_number(first) == Some(Policy::Never),
            "The driver tells policy {first}"
        );
        used_in_place(&device)?;
        let memory = Mapping::small_pages(LEN)?;
        memory.fill(0..LEN, 1);
        let range = range_of(&memory);
        refused("prefetch", device.prefetch(range), libc::EPERM)?;
        let set = device.set_policy(Policy::OnRequest, None);
        refused("set_policy", set, libc::EPERM)?;
        let advised = device.advise(range, Policy::OnRequest);
        refused("advise", advised, libc::EPERM)?;
        // What allows no more is taken.
        device.advise(range, Policy::Never)?;
        device.advise(range, Advice::default())?;
        device.set_policy(Policy::Never, Some(64))?;
        used_in_place(&device)?;
        let after = device.stats()?;
        let moved = |stats: &coax::Stats| stats.to_device_fault + stats.to_device_request;
        ensure!(
            moved(&after) == moved(&before),
            "The driver counts pages moved"
        );
        Ok(())
    })
}

fn with_policy_on_request_no_fault_moves() -> CaseResult {
    loaded_with("policy=1", || {
        let device = Device::open()?;
        used_in_place(&device)?;
        let memory = Mapping::small_pages(LEN)?;
        memory.fill(0..LEN, 1);
        let set = device.set_policy(Policy::OnFault, None);
        refused("set_policy", set, libc::EPERM)?;
        let advised = device.advise(range_of(&memory), Policy::OnFault);
        refused("advise", advised, libc::EPERM)?;
        device.take(&memory)
    })
}

fn an_unknown_policy_gives_no_device() -> CaseResult {
    let mode = module::mode()?;
    module::unload().context("Unload")?;
    module::insert_with(mode, "policy=3")?;
    let opened = Device::open();
    module::unload().context("Unload")?;
    module::load(mode)?;
    match opened {
        Err(coax::Error::Open { .. }) => Ok(()),
        other => anyhow::bail!("Open without a device: {other:?}"),
    }
}

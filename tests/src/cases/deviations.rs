// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that does not keep to the specification: no command hangs, and no memory is let go that the
//! device may be using.

use anyhow::{ensure, Context as _, Result};
use coax::{Command, Policy};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::deviation::Deviation;
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::{module, wait};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "deviations",
    cases: &[
        case!(
            a_senseless_request_ends_its_command_and_stops_its_context,
            "requests that make no sense are answered with Response Failure"
        )
        .in_vm(Vm::DeviantDevice),
        case!(
            a_request_of_nobody_ends_the_device,
            "requests whose command nobody knows"
        )
        .in_vm(Vm::DeviantDevice),
        case!(
            a_context_that_may_be_open_ends_the_device,
            "openings and closings that are answered with no answer"
        )
        .in_vm(Vm::DeviantDevice),
        case!(
            memory_that_may_be_in_use_is_let_go_after_a_reset,
            "copies and invalidations that are answered with no answer"
        )
        .modes(&Mode::MOVING)
        .in_vm(Vm::DeviantDevice),
    ],
};

const LEN: usize = 16 * PAGE;

/// Memory that stands for a deviation.
fn memory_of(deviation: Deviation) -> Result<Mapping> {
    Mapping::anonymous_at(deviation.address() as usize, LEN)
}

/// A command that has the device ask for it.
fn touch(memory: &Mapping) -> Command {
    Command::fill(memory.address(), 8, 7)
}

/// Has the device do something wrong at the next occasion.
fn arm(device: &Device, deviation: Deviation) -> Result<()> {
    device.run(touch(&memory_of(deviation)?))?;
    Ok(())
}

fn device_errors() -> Result<u64> {
    Ok(Device::open()?.stats()?.device_errors)
}

fn a_senseless_request_ends_its_command_and_stops_its_context() -> CaseResult {
    covers!("coax.drv.13");
    for deviation in [
        Deviation::NoPages,
        Deviation::TooManyPages,
        Deviation::MoreThanAround,
        Deviation::InPage,
        Deviation::UnknownKind,
    ] {
        let errors = device_errors()?;
        let memory = memory_of(deviation)?;
        let device = Device::open()?;
        let ended = device.run(touch(&memory));
        refused(&format!("{deviation:?}"), ended, libc::EIO)?;
        let other = Mapping::anonymous(LEN)?;
        let stopped = device.run(touch(&other));
        refused("another command of the context", stopped, libc::EIO)?;
        ensure!(
            device_errors()? == errors + 1,
            "{deviation:?} is not counted"
        );
        Device::open()?.run(touch(&other))?;
        ensure!(other.load(0) == 7, "{:#x}", other.load(0));
    }
    Ok(())
}

/// Demands that the device has been given up, and takes it back into service.
fn given_up(mode: Mode) -> Result<()> {
    wait::until("The device being given up", || match Device::open() {
        Ok(_) => Ok(false),
        Err(_) => Ok(true),
    })?;
    refused("a new context", Device::open(), libc::EIO)?;
    module::unload().context("Unload")?;
    module::load(mode).context("Load")
}

fn a_request_of_nobody_ends_the_device() -> CaseResult {
    covers!("coax.drv.13");
    let mode = module::mode()?;
    for deviation in [
        Deviation::NotOpen,
        Deviation::OldGeneration,
        Deviation::ShortRequest,
    ] {
        let memory = memory_of(deviation)?;
        let device = Device::open()?;
        let ended = device.run(touch(&memory));
        refused(&format!("{deviation:?}"), ended, libc::EIO)?;
        drop(device);
        given_up(mode)?;
    }
    Ok(())
}

fn a_context_that_may_be_open_ends_the_device() -> CaseResult {
    covers!("coax.drv.9", "coax.drv.10");
    let mode = module::mode()?;
    for deviation in [Deviation::NoGeneration, Deviation::NoAnswerToOpen] {
        let device = Device::open()?;
        arm(&device, deviation)?;
        refused(&format!("{deviation:?}"), Device::open(), libc::EIO)?;
        drop(device);
        given_up(mode)?;
    }
    for deviation in [Deviation::NoAnswerToClose, Deviation::RefusedClose] {
        let device = Device::open()?;
        let other = Device::open()?;
        arm(&device, deviation)?;
        drop(other);
        let silent = device.run(Command::nop());
        refused(&format!("{deviation:?}"), silent, libc::EIO)?;
        drop(device);
        given_up(mode)?;
    }
    Ok(())
}

fn memory_that_may_be_in_use_is_let_go_after_a_reset() -> CaseResult {
    covers!("coax.drv.9", "coax.drv.10");
    let mode = module::mode()?;
    let content = pattern::bytes(31, LEN);
    let first = *content.first_chunk().context("The pattern is too short")?;
    for deviation in [
        Deviation::NoAnswerToCopy,
        Deviation::NoAnswerToInvalidate,
        Deviation::RefusedInvalidate,
    ] {
        let device = Device::open()?;
        let memory = Mapping::anonymous(LEN)?;
        memory.write(0, &content);
        device.take(&memory)?;
        device.set_policy(Policy::Never, None)?;
        // What is there already; the device has translations from then on.
        let filled = device.fill(&memory, 0..8, u64::from_le_bytes(first));
        filled.with_context(|| format!("{deviation:?}: a command before it"))?;
        // Pages that the driver clears ahead may meet it before the command that asks for it has ended.
        let _ = arm(&device, deviation);
        // Whether the call has noticed does not matter: the pages do.
        let _ = device.evict(range_of(&memory));
        same(&format!("{deviation:?}"), &memory.to_vec(), &content)?;
        let silent = device.run(Command::nop());
        refused(&format!("{deviation:?}"), silent, libc::EIO)?;
        drop(device);
        given_up(mode)?;
    }
    Ok(())
}

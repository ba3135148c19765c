// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The back end dies under use: the guest lives on, and nobody waits for ever.
//!
//! The host half of these cases is the answer to [`Request::KillDevice`].

use anyhow::{ensure, Context as _};
use coax::Command;
use coax_program::outln;
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Subject, Vm};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::module;
use crate::guest::pattern::{self, same};
use crate::request::Request;

/// The cases of this file; in one VM, in this order.
pub const SUBJECT: Subject = Subject {
    name: "loss",
    cases: &[
        case!(
            a_dead_device_gives_errors_and_loses_no_page,
            "the back end killed in mid-command"
        )
        .in_vm(Vm::Doomed),
        case!(
            the_driver_of_a_dead_device_unloads,
            "unload with nobody there to answer"
        )
        .in_vm(Vm::Doomed),
    ],
};

const LEN: usize = 64 * PAGE;

fn a_dead_device_gives_errors_and_loses_no_page() -> CaseResult {
    covers!("coax.drv.24", "coax.drv.25");
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let evicted = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(141, LEN);
    for mapping in [&memory, &evicted] {
        mapping.write(0, &content);
        device.take(mapping)?;
    }
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;

    outln!("{}", Request::KillDevice)?;
    refused("the walk under way", device.finish(walk), libc::EIO)?;
    refused("a new command", device.run(Command::nop()), libc::EIO)?;
    refused("a new context", Device::open(), libc::EIO)?;

    // The pages lie in the machine's memory, not in the process that died.
    let back = device.evict(range_of(&evicted)).context("Evict")?;
    ensure!(back.left == 0, "{back:?}");
    same("evicted memory", &evicted.to_vec(), &content)?;
    same("memory", &memory.to_vec(), &content)
}

fn the_driver_of_a_dead_device_unloads() -> CaseResult {
    let dead = Device::open();
    refused("a context of a device killed before", dead, libc::EIO)?;
    module::unload().context("Unload")
}

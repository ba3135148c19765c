// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The back end dies under use: the guest lives on, and nobody waits for ever.
//!
//! The host half of these cases is the answer to [`Request::KillDevice`].

use anyhow::{ensure, Context as _};
use coax::{Command, Error};

use crate::case;
use crate::case::{CaseResult, Subject, Vm};
use crate::guest::device::{range_of, Device};
use crate::guest::list;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::wait;
use crate::request::Request;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "loss",
    cases: &[case!(
        a_dead_device_gives_errors_and_loses_no_page,
        "the back end killed in mid-command"
    )
    .in_vm(Vm::Doomed)],
};

const LEN: usize = 64 * PAGE;

fn a_dead_device_gives_errors_and_loses_no_page() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(141, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    let ring = Mapping::anonymous(LEN)?;
    let walk = list::start_endless(&device, &ring)?;

    println!("{}", Request::KillDevice);
    wait::until("The device being dead", || {
        let probe = device.start(Command::nop());
        let short = std::time::Duration::from_millis(200);
        Ok(probe.and_then(|id| device.wait(id, Some(short))).is_err())
    })?;
    let outcome = device.finish(walk);
    ensure!(
        outcome.is_err(),
        "A walk without end was done by a dead device: {outcome:?}"
    );

    // The pages lie in the machine's memory, not in the process that died.
    if let Err(error) = device.evict(range_of(&memory)) {
        println!("evict after the death: {error}");
        ensure!(matches!(error, Error::Call { .. }), "{error:?}");
    }
    same("memory", &memory.to_vec(), &content).context("After the death")?;
    drop(ring);
    drop(device);
    Ok(())
}

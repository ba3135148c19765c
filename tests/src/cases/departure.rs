// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device goes while somebody still holds on to it.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use coax_abi::uapi;
use coax_program::outln;
use nix::unistd::pipe;

use crate::case;
use crate::case::{CaseResult, Mode, Subject, Vm};
use crate::guest::device::Device;
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::userfault::{Monitor, Watch};
use crate::guest::{module, raw, wait};
use crate::request::Request;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "departure",
    cases: &[case!(
        an_unplugged_device_stays_while_it_is_held,
        "device_del, a call under way, pages on the device that a pipe holds"
    )
    .modes(&[Mode::Coherent])
    .in_vm(Vm::Lifecycle)],
};

const LEN: usize = 64 * PAGE;
/// What the pipe holds.
const PINNED: usize = 4 * PAGE;
/// Longer than a device takes to go that nobody holds.
const STAYS: Duration = Duration::from_secs(4);

/// Demands that the function does not go.
fn stays(function: &Path, while_what: &str) -> Result<()> {
    let end = Instant::now() + wait::on_this_kernel(STAYS);
    while Instant::now() < end {
        ensure!(function.exists(), "The device went while {while_what}");
        std::thread::yield_now();
    }
    Ok(())
}

fn an_unplugged_device_stays_while_it_is_held() -> CaseResult {
    let function = module::function_of(&module::bound_device()?)?;
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(161, LEN);
    memory.write(0, &content);
    device.take(&memory)?;
    let (reader, writer) = pipe()?;
    memory.pin_in_pipe(0..PINNED, writer.as_fd())?;
    // The call ends when the page is given that its answer goes to.
    let answer = Mapping::anonymous(PAGE)?;
    let monitor = Monitor::new(&answer, Watch::Missing)?;
    let mut residency = uapi::Residency {
        addr: memory.address(),
        len: LEN as u64,
        vector: answer.address(),
        ..Default::default()
    };
    std::thread::scope(|scope| -> Result<()> {
        let call = scope.spawn(|| raw::ioctl(device.as_fd(), uapi::IOC_RESIDENCY, &mut residency));
        let held = while_held(&monitor, &function, || {
            let mut seen = vec![0; PINNED];
            File::from(reader).read_exact(&mut seen)?;
            same("what comes out of the pipe", &seen, &content[..PINNED])
        });
        // Whatever came of it, else the call never ends.
        let given = monitor.give(0, &[0xff; PAGE]);
        let ended = call.join();
        held?;
        given?;
        ended
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .context("The call under way")
    })?;
    let on_device = residency.pages[usize::from(uapi::RESIDENT_DEVICE)];
    ensure!(on_device == memory.pages(), "{:?}", residency.pages);
    wait::until("The device being gone", || Ok(!function.exists()))?;
    same("memory without the device", &memory.to_vec(), &content)?;
    drop(device);

    outln!("{}", Request::PlugDevice)?;
    wait::until("The device plugged in", || Ok(module::has_device()))?;
    let digest = Device::open()?.digest(&memory)?;
    ensure!(digest == pattern::sha256(&content), "Wrong digest");
    same("memory", &memory.to_vec(), &content)
}

/// Unplugs the device when the call waits for the monitor, and lets go of the pages by `unpin`: the device has to
/// stay before and after.
fn while_held(
    monitor: &Monitor,
    function: &Path,
    unpin: impl FnOnce() -> Result<()>,
) -> Result<()> {
    monitor.next().context("The call's answer")?;
    outln!("{}", Request::UnplugDevice)?;
    wait::until("The device's file being gone", || Ok(!module::has_device()))?;
    stays(function, "a call is under way and a pipe holds pages")?;
    unpin()?;
    stays(function, "a call is under way")
}

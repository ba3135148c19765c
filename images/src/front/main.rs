// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `qemu-system-x86_64`: QEMU by its own name and options, with the device.
//!
//! For all that starts QEMU by itself: it is given this program, and gets a VM with the accelerator. It starts the
//! back ends, adds the device and what that needs to the options that it was called with, and becomes QEMU. The
//! back ends end with it, since their connections do. What cannot be is refused in one line, before anything
//! starts. QEMU that is asked what it is, and has no guest, is called as it is.
#![forbid(unsafe_code)]

mod caller;
mod fit;
mod wish;

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{anyhow, Context, Result};
use coax_images::front_program::Settings;
use coax_images::launch::{foreign, Place, VmConfig};
use rustix::io::{fcntl_setfd, FdFlags};

use crate::caller::Caller;

/// Before what it has to say on standard error.
const NAME: &str = "qemu-system-x86_64 (coax)";
const KVM: &str = "/dev/kvm";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    coax_program::finish(NAME, run(args).map(|never| match never {}))
}

fn run(args: Vec<OsString>) -> Result<Infallible> {
    let settings = Settings::here()?;
    let caller = Caller::read(&args);
    if !caller.has_guest() || caller.has_device() {
        return become_qemu(&settings, args);
    }
    let said = |said: String| anyhow!("{said}");
    let config = wish::read(|name| std::env::var(name))
        .map_err(said)
        .with_context(|| format!("The environment: variables are {}", wish::HELP))?;
    if config.devices == 0 {
        return become_qemu(&settings, args);
    }
    let fits = fit::machine(&caller, &config)
        .and_then(|words| fit::check_kvm(&caller, Path::new(KVM)).map(|()| words));
    let words = fits
        .map_err(said)
        .context("This VM cannot have the device (COAX_DEVICES=0 leaves it out)")?;
    let connections = (0..config.devices)
        .map(|_| start_back_end(&settings, &config))
        .collect::<Result<Vec<_>>>()?;
    let of = |place: Place| {
        let fd = connections.get(place.number).map_or(-1, AsRawFd::as_raw_fd);
        format!("socket,id={},fd={fd}", place.connection_id())
    };
    let device = foreign::options(&config, settings.form, of);
    let words = words.into_iter().map(OsString::from).chain(device);
    become_qemu(&settings, args.into_iter().chain(words).collect())
}

/// Starts a back end; returns QEMU's end of its connection, which a program that this one becomes inherits.
fn start_back_end(settings: &Settings, config: &VmConfig) -> Result<OwnedFd> {
    let (ours, its) = UnixStream::pair().context("Cannot make a socket pair")?;
    let program = &settings.back_end;
    let mut command = Command::new(program);
    command
        .args([
            "--fd",
            "0",
            "--quiet",
            "--engines",
            &config.engines.to_string(),
        ])
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        // Keys that end QEMU are not for it: it ends in order, with its connection.
        .process_group(0);
    command
        .spawn()
        .with_context(|| format!("Cannot start the back end {}", program.display()))?;
    let ours = OwnedFd::from(ours);
    fcntl_setfd(&ours, FdFlags::empty()).context("Cannot keep a connection for QEMU")?;
    Ok(ours)
}

fn become_qemu(settings: &Settings, args: Vec<OsString>) -> Result<Infallible> {
    let mut command = Command::new(&settings.qemu);
    for folder in &settings.firmware {
        command.arg("-L").arg(folder);
    }
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("Cannot start {}", settings.qemu.display()))
}

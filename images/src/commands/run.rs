// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax run`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::announce_accel;
use crate::cli::Run;
use coax_images::images::Images;
use coax_images::job::Job;
use coax_images::launch::{self, GuestFile, Output, Vm, VmConfig};

/// Runs the command, whose exit status is returned, or a shell.
pub fn run(options: &Run, install: bool) -> Result<ExitCode> {
    let files = options.file.iter().map(read).collect::<Result<Vec<_>>>()?;
    let images = Images::build(options.kernel, install)?;
    announce_accel(options.accel.accel)?;
    let config = VmConfig {
        mode: options.mode.into(),
        load_driver: !options.no_driver,
        cpus: options.cpus,
        memory: options.memory,
        devices: options.devices,
        hmm: options.hmm,
        device_memory: options.device_memory,
        engines: options.engines,
        kernel_args: options.append.iter().cloned().collect(),
        accel: options.accel.accel,
        timeout: options.timeout,
        files,
        output: Output::Interactive,
        ..VmConfig::default()
    };
    let job = if options.argv.is_empty() {
        shell()
    } else {
        Job::new(options.argv.clone())
    };
    let outcome = Vm::start(&images, &config, &job)?.wait()?;
    Ok(outcome.exit.shell_status().into())
}

/// A file of the host with its permissions, for the guest.
fn read((file, path): &(PathBuf, String)) -> Result<GuestFile> {
    let context = || format!("Cannot read {}", file.display());
    let contents = fs::read(file).with_context(context)?;
    let mode = fs::metadata(file)
        .with_context(context)?
        .permissions()
        .mode();
    Ok(GuestFile {
        path: path.clone(),
        contents,
        mode,
    })
}

/// A shell, on a terminal if the user has one.
fn shell() -> Job {
    let job = Job::new(["sh", "-l"]);
    if !launch::is_interactive() {
        return job;
    }
    eprintln!("A shell in the guest: `exit` or Ctrl-D ends the VM, Ctrl-] kills it.");
    eprintln!("The first device is /dev/coax0; try `coaxctl info`.");
    let terminal = std::env::var("TERM").unwrap_or_else(|_| "linux".into());
    Job {
        terminal: Some(launch::current_size()),
        ..job
    }
    .env("TERM", terminal)
}

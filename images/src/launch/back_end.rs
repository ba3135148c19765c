// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processes that are the VM's devices, one for each.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::config::VmConfig;
use super::evidence::{DeviceEvidence, LaunchError};
use super::qemu_args;
use super::vm::{prepare, start};
use crate::images::Images;
use crate::process::Group;

/// The back end of one device; dropping it kills it.
#[derive(Debug)]
pub struct BackEnd {
    group: Group,
    command_line: String,
    log: PathBuf,
}

/// Where the back end of a device listens.
pub fn socket(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("device{number}.sock"))
}

/// Starts the back ends of all devices, with sockets and logs in `folder`.
///
/// # Errors
///
/// [`LaunchError::Prepare`], [`LaunchError::Start`].
pub fn start_all(
    images: &Images,
    config: &VmConfig,
    folder: &Path,
) -> Result<Vec<BackEnd>, LaunchError> {
    (0..config.devices)
        .map(|number| BackEnd::start(images, config, folder, number))
        .collect()
}

impl BackEnd {
    fn start(
        images: &Images,
        config: &VmConfig,
        folder: &Path,
        number: u32,
    ) -> Result<Self, LaunchError> {
        let socket = socket(folder, number);
        let listener = prepare("a device's socket", || UnixListener::bind(socket))?;
        let log = folder.join(format!("device{number}.log"));
        let log_file = prepare("a device's log", || File::create(&log))?;
        let program = &images.device;
        let args = qemu_args::device(config);
        let group = start(
            program,
            Command::new(program)
                .args(&args)
                .stdin(OwnedFd::from(listener))
                .stdout(Stdio::null())
                .stderr(log_file),
        )?;
        Ok(BackEnd {
            group,
            command_line: qemu_args::shell_line(program, &args),
            log,
        })
    }

    /// Its process number.
    pub fn id(&mut self) -> u32 {
        self.group.child().id()
    }

    /// Kills it, as a crash would.
    pub fn kill(&self) {
        self.group.signal(Signal::SIGKILL);
    }

    /// How it ended, if it does within `limit`.
    ///
    /// # Errors
    ///
    /// Those of `waitpid(2)`.
    pub fn wait_at_most(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.group.wait_at_most(limit)
    }

    /// What it was started by and what it wrote.
    pub fn evidence(&self) -> DeviceEvidence {
        let log = fs::read(&self.log).unwrap_or_default();
        DeviceEvidence {
            log: String::from_utf8_lossy(&log).into_owned(),
            command_line: self.command_line.clone(),
        }
    }
}

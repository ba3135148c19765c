// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processes that QEMU talks vhost-user with: one for each device, and one for a root file
//! system that is a tree of the host.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::config::{Tree, VmConfig};
use super::device::Place;
use super::evidence::{tail_of, BackEndEvidence, LaunchError};
use super::qemu_args;
use super::record::PEER_END_LIMIT;
use super::vm::{prepare, start};
use crate::images::Images;
use crate::process::Group;
use crate::temporary::TemporaryFolder;
use crate::virtiofsd;

/// A back end; dropping it kills it.
#[derive(Debug)]
pub struct BackEnd {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    group: Group,
    socket: PathBuf,
    log: PathBuf,
    /// It was killed on purpose, so that its end is no failure.
    killed: bool,
}

impl BackEnd {
    /// Starts the back end of each device, with socket and log in `folder`.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Prepare`], [`LaunchError::Start`].
    pub fn of_devices(
        images: &Images,
        config: &VmConfig,
        folder: &TemporaryFolder,
    ) -> Result<Vec<Self>, LaunchError> {
        (0..config.devices)
            .map(|number| {
                let args = qemu_args::device(config, Place::first(number as usize));
                let name = format!("device {number}");
                Self::start(name, &images.device, &args, folder)
            })
            .collect()
    }

    /// Starts the back end of a tree, with socket and log in `folder`.
    ///
    /// # Errors
    ///
    /// Those of [`BackEnd::of_devices`].
    pub fn of_tree(tree: &Tree, folder: &TemporaryFolder) -> Result<Self, LaunchError> {
        let name = "the root file system".to_owned();
        let sandbox = virtiofsd::sandbox(&tree.folder).map_err(LaunchError::Config)?;
        Self::start(name, &tree.daemon, &qemu_args::tree(tree, sandbox), folder)
    }

    fn start(
        name: String,
        program: &Path,
        args: &[OsString],
        folder: &TemporaryFolder,
    ) -> Result<Self, LaunchError> {
        let file = |extension: &str| format!("{name}.{extension}").replace(' ', "-");
        let socket = PathBuf::from(file("sock"));
        let log = folder.path().join(file("log"));
        Ok(BackEnd {
            name,
            program: program.to_owned(),
            args: args.to_owned(),
            group: Self::listen(program, args, folder, &socket, &log)?,
            socket,
            log,
            killed: false,
        })
    }

    /// Starts `program`, which gets its listening socket as standard input.
    fn listen(
        program: &Path,
        args: &[OsString],
        folder: &TemporaryFolder,
        socket: &Path,
        log: &Path,
    ) -> Result<Group, LaunchError> {
        let listener = prepare("a back end's socket", || folder.listen(socket))?;
        let log = prepare("a back end's log", || {
            let log = File::options().create(true).append(true).open(log);
            log.map_err(|error| folder.explain(error))
        })?;
        start(
            program,
            Command::new(program)
                .args(args)
                .current_dir(folder.path())
                .stdin(OwnedFd::from(listener))
                .stdout(Stdio::null())
                .stderr(log),
        )
    }

    /// Starts it again, once its front end has left it, or it was killed, and it has ended.
    ///
    /// # Errors
    ///
    /// It does not end, or not well, or cannot be started.
    pub fn start_again(&mut self, folder: &TemporaryFolder) -> io::Result<()> {
        match self.wait_at_most(PEER_END_LIMIT)? {
            Some(status) if status.success() || self.killed => {}
            Some(status) => {
                return Err(io::Error::other(format!(
                    "{} ended with {status}",
                    self.name
                )))
            }
            None => return Err(io::Error::other(format!("{} does not end", self.name))),
        }
        fs::remove_file(folder.path().join(&self.socket))?;
        let group = Self::listen(&self.program, &self.args, folder, &self.socket, &self.log);
        self.group = group.map_err(io::Error::other)?;
        self.killed = false;
        Ok(())
    }

    /// What it serves.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, in the VM's folder.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process number.
    pub fn id(&mut self) -> u32 {
        self.group.child().id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.killed = true;
        self.signal(Signal::SIGKILL);
    }

    /// Whether it was killed on purpose and not started again.
    pub fn was_killed(&self) -> bool {
        self.killed
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
    pub fn evidence(&self) -> BackEndEvidence {
        BackEndEvidence {
            name: self.name.clone(),
            log: tail_of(&self.log),
            command_line: qemu_args::shell_line(&self.program, &self.args),
        }
    }
}

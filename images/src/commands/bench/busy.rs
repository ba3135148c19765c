// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A busy host: another VM beside what is measured, all of whose processors work.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use nix::sys::signal::Signal;

use coax_images::process::Group;
use coax_images::progress::Progress;

/// Arguments of `coax`: a VM without a driver, whose guest says when it is at work, and ends with its standard
/// input if this program does not end it before.
const ARGS: [&str; 9] = [
    "run",
    "--no-driver",
    "--cpus",
    "2",
    "--memory",
    "512M",
    "--",
    "sh",
    "-c",
];
/// Its work on both processors.
const WORK: &str = "while :; do :; done & while :; do :; done & echo at work; read never";
/// What it says.
const AT_WORK: &str = "at work";

/// The other VM; dropping it ends it.
pub struct Busy(Group);

impl Busy {
    /// Starts it, and waits until it is at work.
    ///
    /// # Errors
    ///
    /// It could not be started.
    pub fn start() -> Result<Self> {
        let progress = Progress::start("Booting another VM, with both processors at work");
        let program = std::env::current_exe().context("Where this program is")?;
        let mut command = Command::new(program);
        command.args(ARGS).arg(WORK);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut group = Group::start(&mut command, Signal::SIGTERM).context("Starting a VM")?;
        let output = group.child().stdout.take().context("It has no output")?;
        let mut lines = BufReader::new(output).lines();
        match lines.next() {
            Some(Ok(line)) if line.trim() == AT_WORK => {
                progress.finish();
                Ok(Busy(group))
            }
            other => bail!("The other VM is not at work: {other:?}"),
        }
    }

    /// Whether it still is.
    ///
    /// # Errors
    ///
    /// Those of `waitpid(2)`.
    pub fn is_at_work(&mut self) -> Result<bool> {
        let ended = self.0.wait_at_most(std::time::Duration::ZERO);
        Ok(ended.context("Looking for the other VM")?.is_none())
    }
}

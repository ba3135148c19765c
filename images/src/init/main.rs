// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's first process: mounts, loads the driver, runs one job, powers off.
//!
//! It reads its job from [`coax_images::job::JOB_PATH`] and talks to the host by
//! [`coax_images::frames`]. What goes wrong before the port is there goes to the console; the
//! host then misses the verdict and shows that console.
#![forbid(unsafe_code)]

mod devices;
mod driver;
mod leaks;
mod mounts;
mod names;
mod run;
mod tree;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, Result};
use coax_images::frames::Kind;
use coax_images::job::{Exit, JobFile, JOB_PATH};
use coax_program::errln;
use nix::sys::reboot::{reboot, RebootMode};

use run::Port;

/// Longest wait for the host's word that everything has arrived. A host that is not there any
/// more kills the machine anyway.
const DONE_LIMIT: Duration = Duration::from_secs(10);

fn main() {
    if let Err(error) = live() {
        errln!("coax-init: {error:#}");
    }
    nix::unistd::sync();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    // Returning makes the kernel panic, which ends the machine too.
    errln!("coax-init: cannot power off: {errno}");
}

fn live() -> Result<()> {
    // The kernel's first root file system lets anybody write in it.
    fs::set_permissions("/", fs::Permissions::from_mode(0o755)).context("Cannot close the root")?;
    mounts::mount_all()?;
    driver::load_early()?;
    let port = Port::open(&devices::job_port()?)?;
    let (exit, done) = match serve(&port) {
        Ok(ended) => ended,
        Err(error) => (Exit::NotStarted(format!("{error:#}")), None),
    };
    port.send(Kind::Exit, &serde_json::to_vec(&exit)?)?;
    let done = match done {
        Some(done) => done,
        None => port.listen(None)?,
    };
    // Whether it comes or not, there is nothing left to do but to power off.
    let _ = done.recv_timeout(DONE_LIMIT);
    Ok(())
}

/// Everything between the host's connection and the job's end.
fn serve(port: &Port) -> Result<(Exit, Option<Receiver<()>>)> {
    let text = fs::read(JOB_PATH).with_context(|| format!("Cannot read {JOB_PATH}"))?;
    let file: JobFile =
        serde_json::from_slice(&text).with_context(|| format!("Cannot understand {JOB_PATH}"))?;
    if let Some(driver) = &file.driver {
        driver::load(driver)?;
    }
    names::set()?;
    if file.tree {
        tree::enter(file.job.directory.as_deref().map(Path::new))?;
    }
    let result = run::run(&file.job, file.tree, port)?;
    if file.driver.is_some() {
        leaks::report();
        driver::unload();
        leaks::report();
    }
    Ok(result)
}

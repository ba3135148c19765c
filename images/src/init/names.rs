// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest is called, and how programs reach it: themselves, over the loopback.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use coax_program::errln;

/// The guest's name, for prompts and for programs that look it up.
const HOST_NAME: &str = "coax";
/// Where names are looked up without a network.
const HOSTS: &str = "/etc/hosts";
/// The address of a name that has no other, as Debian has it.
const OWN_ADDRESS: &str = "127.0.1.1";

/// Gives the guest its name and takes the loopback up. A kernel without one has programs that do without.
///
/// # Errors
///
/// The name cannot be set.
pub fn set() -> Result<()> {
    nix::unistd::sethostname(HOST_NAME).context("Cannot set the host's name")?;
    if let Err(error) = loopback_up() {
        errln!("coax-init: no loopback: {error:#}");
    }
    Ok(())
}

/// Adds the guest's name to what the root file system knows. One that takes no names has programs that do
/// without.
pub fn add_to_hosts() {
    let file = OpenOptions::new().append(true).create(true).open(HOSTS);
    // A line of its own, whatever the last one ends in.
    let line = format!("\n{OWN_ADDRESS} {HOST_NAME}\n");
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        errln!("coax-init: {HOST_NAME} is not added to {HOSTS}: {error}");
    }
}

fn loopback_up() -> Result<()> {
    let status = Command::new("/bin/busybox")
        .args(["ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .status()
        .context("Cannot start busybox")?;
    ensure!(status.success(), "ip ended with {status}");
    Ok(())
}

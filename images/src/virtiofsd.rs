// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds, or builds, the program that serves a tree of the host to a guest.
//!
//! QEMU only passes the queues on; the file system is the program's own affair, which shuts itself into
//! the tree and serves it for reading alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use crate::archive;
use crate::cache::Lock;
use crate::crate_program::CrateProgram;
use crate::host_packages::{self, Group};

const VIRTIOFSD: CrateProgram = CrateProgram {
    name: "virtiofsd",
    program: "virtiofsd",
    crates: 94,
};

/// How the program, started by this user on this machine, can lock itself into `folder`, as its option
/// `--sandbox` calls it.
///
/// # Errors
///
/// It cannot; says what would let it.
pub fn sandbox(folder: &Path) -> std::result::Result<&'static str, String> {
    let root = Uid::effective().is_root();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--fork"]);
    if !root {
        unshare.arg("--user");
    }
    // A container has root without the right to make namespaces.
    if succeeds(unshare.arg("true")) {
        return Ok("namespace");
    }
    if root && succeeds(Command::new("chroot").args(["/", "true"])) {
        return Ok("chroot");
    }
    if folder == Path::new("/") {
        // There is nothing outside, and nothing in it that the user may not read anyway.
        return Ok("none");
    }
    Err(format!(
        "virtiofsd cannot lock itself into {}: it may make no namespaces here{}. Give it the capability \
         CAP_SYS_ADMIN or CAP_SYS_CHROOT, allow user namespaces, or take --root /",
        folder.display(),
        if root { " and not change its root" } else { "" },
    ))
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The finished program.
///
/// # Errors
///
/// It is not built.
pub fn built() -> Result<PathBuf> {
    if let Some(archive) = archive::here()? {
        return archive.virtiofsd();
    }
    let path = VIRTIOFSD.path()?;
    let there = path.is_file().then_some(path);
    there.context("virtiofsd is not built: run ./coax build virtiofsd")
}

/// Builds the program if it is missing; packages of the host are installed if `install` says so.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(install: bool) -> Result<PathBuf> {
    match built() {
        Err(_) if archive::here()?.is_none() => {}
        built => return built,
    }
    let _lock = Lock::take()?;
    host_packages::ensure(&[Group::Virtiofsd], install)?;
    VIRTIOFSD.build()?;
    built()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_machine_can_always_be_served() {
        let sandbox = sandbox(Path::new("/"));
        assert!(matches!(sandbox, Ok("namespace" | "chroot" | "none")));
    }
}

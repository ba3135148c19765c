// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds, or builds, the program that serves a tree of the host to a guest.
//!
//! QEMU only passes the queues on; the file system is the program's own affair, which shuts itself into
//! the tree and serves it for reading alone.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::Lock;
use crate::crate_program::CrateProgram;
use crate::host_packages::{self, Group};

const VIRTIOFSD: CrateProgram = CrateProgram {
    name: "virtiofsd",
    program: "virtiofsd",
    crates: 94,
};

/// The finished program.
///
/// # Errors
///
/// It is not built.
pub fn built() -> Result<PathBuf> {
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
    if let Ok(path) = built() {
        return Ok(path);
    }
    let _lock = Lock::take()?;
    host_packages::ensure(&[Group::Virtiofsd], install)?;
    VIRTIOFSD.build()?;
    built()
}

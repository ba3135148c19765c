// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian's own QEMU out of its packages, with all that it is linked with, in a folder of ours: on any machine
//! that gets packages from Debian, and without installing one.
//!
//! It is run by the C library's loader that is in these packages, with the libraries in them. Of what it loads
//! later it is told where the firmware is; of this machine it uses nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::{stock, Qemu, PROGRAM};
use crate::cache::{self, Entry, Key};
use crate::debian::apt::Apt;
use crate::progress::{Expected, Progress};
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 1;
/// As options and reports name it.
pub const NAME: &str = "debian";
/// Where it is from, and where the rest of it is from.
const SUITE: &str = "trixie-backports";
const RELEASE: &str = "trixie";
const PACKAGE: &str = "qemu-system-x86";
/// Packages and what is in them.
const NEEDED_MIB: u64 = 500;
/// What is kept of what is in the packages.
const KEPT: &[&str] = &[
    "usr/bin/qemu-system-x86_64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib64",
    "usr/share/qemu",
    "usr/share/seabios",
];
/// What fetching it takes.
pub const EXPECTED: &[Expected] = &[
    Expected {
        title: FETCHING,
        waiting: 12.0,
        processor: 8.0,
        at_once: 1.0,
        after: &[],
    },
    Expected {
        title: UNPACKING,
        waiting: 0.0,
        processor: 6.0,
        at_once: 1.0,
        after: &[FETCHING],
    },
];
const FETCHING: &str = "Fetching Debian's QEMU";
const UNPACKING: &str = "Unpacking Debian's QEMU";
/// The program of ours that starts it. It may be moved with its folder.
const STARTER: &str = r#"#!/bin/sh
# Starts Debian's QEMU with the libraries and the firmware of the packages that lie beside this file.
case $0 in
*/*) here=${0%/*} ;;
*) here=. ;;
esac
export QEMU_MODULE_DIR="$here/usr/lib/x86_64-linux-gnu/qemu"
exec "$here/usr/lib64/ld-linux-x86-64.so.2" --library-path "$here/usr/lib/x86_64-linux-gnu" \
	"$here/usr/bin/qemu-system-x86_64" -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@"
"#;

/// The one that was fetched last.
///
/// # Errors
///
/// There is none.
pub fn built() -> Result<Qemu> {
    entry()?
        .load()?
        .context("Debian's QEMU is not here: run ./coax build qemu --qemu debian")
}

/// Fetches it.
///
/// # Errors
///
/// A mirror cannot be reached, or has none that can do.
pub fn build() -> Result<Qemu> {
    if let Ok(qemu) = built() {
        return Ok(qemu);
    }
    let started = Instant::now();
    let entry = entry()?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "Debian's QEMU")?;
    let progress = Progress::start(FETCHING);
    let packages = entry.path("packages");
    let apt = Apt::on(&[RELEASE, SUITE])?;
    let files = apt.download_whole(PACKAGE, SUITE, &packages)?;
    progress.finish();

    let progress = Progress::start(UNPACKING);
    let unpacked = entry.path("unpacked");
    let log = entry.path("build.log");
    for file in &files {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--extract").arg(file).arg(&unpacked);
        tool::run_logged(&mut dpkg, UNPACKING, &log, |_| {})?;
    }
    for kept in KEPT {
        keep(&unpacked.join(kept), &entry.path(kept))?;
    }
    for folder in [&unpacked, &packages] {
        fs::remove_dir_all(folder)
            .with_context(|| format!("Cannot remove {}", folder.display()))?;
    }
    let program = entry.path(PROGRAM);
    fs::write(&program, STARTER)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("Cannot write {}", program.display()))?;
    let qemu = Qemu {
        seconds: started.elapsed().as_secs_f64(),
        ..stock::open(&program)?
    };
    entry.complete(&qemu)?;
    progress.finish();
    Ok(qemu)
}

/// Moves what is kept; an interrupted run may have begun.
fn keep(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("Cannot move {} to {}", from.display(), to.display());
    if to.is_dir() {
        fs::remove_dir_all(to).with_context(context)?;
    }
    if let Some(folder) = to.parent() {
        cache::make_folder(folder)?;
    }
    fs::rename(from, to).with_context(context)
}

fn entry() -> Result<Entry> {
    let key = Key::new("qemu", RECIPE)
        .add("from", SUITE.as_bytes())
        .add("package", PACKAGE.as_bytes());
    Entry::new("qemu", &key.finish())
}

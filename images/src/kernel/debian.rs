// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian's own binary kernel, as its machines in clouds run it, and what it takes to build modules for it.
//!
//! Debian's headers are enough for modules in C. Those in Rust take the metadata of the kernel's crates too,
//! which no package has: [`workshop`] has the very compilers of the kernel, and [`rebuilt`] builds that part of its
//! source again and compares it with what the kernel exports. The kernel itself is booted as it is.

mod packages;
mod rebuilt;
mod workshop;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::{config, read, Kernel};
use crate::cache::{self, Entry, Key};
use crate::debian::root::Root;
use crate::host_packages::{self, Group};
use crate::progress::Expected;
use packages::Packages;
use workshop::Workshop;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 1;
/// What is still to be done when this is done.
pub const TITLE: &str = rebuilt::TITLE;
/// As options and reports name it.
pub const NAME: &str = "debian";
/// Packages, source, what is rebuilt of it, and a root file system with the compilers.
const NEEDED_MIB: u64 = 5000;
/// What ours have built in and Debian has as modules, each behind those that it depends on: with these a VM starts.
const EARLY_MODULES: &[&str] = &[
    "kernel/fs/overlayfs/overlay.ko",
    "kernel/drivers/block/loop.ko",
    "kernel/drivers/block/virtio_blk.ko",
    "kernel/drivers/char/hw_random/virtio-rng.ko",
    "kernel/lib/lz4/lz4hc_compress.ko",
    "kernel/drivers/block/zram/zram.ko",
    "kernel/mm/hwpoison-inject.ko",
];

/// A kernel that is ready, as its stamp tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    version: String,
    /// Root file system with the compilers; without one, they are this machine's.
    compilers: Option<PathBuf>,
    make_variables: Vec<String>,
    early_modules: Vec<PathBuf>,
    seconds: f64,
}

/// The kernel that was made ready last.
///
/// # Errors
///
/// There is none.
pub fn built() -> Result<Kernel> {
    let entry = entry()?;
    let stamp: Option<Stamp> = entry.load()?;
    let stamp =
        stamp.context("Debian's kernel is not here: run ./coax build kernel --kernel debian")?;
    kernel(&entry, stamp)
}

/// Fetches the kernel, and makes ready what its modules take.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(install: bool) -> Result<Kernel> {
    if let Ok(kernel) = built() {
        return Ok(kernel);
    }
    cache::check_paths()?;
    let started = Instant::now();
    Workshop::check_right(install)?;
    let entry = entry()?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "Debian's kernel")?;
    let log = entry.path("build.log");

    // Packages are installed meanwhile.
    let packages = Packages::fetch(&entry.path("packages"), &log)?;
    host_packages::ensure(self::packages(), install)?;
    let stock = packages.unpack(&entry, &log)?;
    let workshop = Workshop::find_or_make(&stock.config, install, &log)?;
    let variables = workshop.variables(&stock)?;
    rebuilt::prepare(&stock, &workshop, &variables, &log)?;
    let stamp = Stamp {
        version: stock.version,
        compilers: workshop.root().map(|root| root.folder().to_path_buf()),
        make_variables: variables,
        early_modules: stock.early_modules,
        seconds: started.elapsed().as_secs_f64(),
    };
    entry.complete(&stamp)?;
    packages.remove()?;
    kernel(&entry, stamp)
}

/// Packages of the host that making it ready takes.
pub fn packages() -> &'static [Group] {
    if workshop::may_be_here() {
        &[Group::Debian, Group::Kernel]
    } else {
        &[Group::Debian, Group::Root]
    }
}

/// What making it ready takes.
pub fn expected() -> Vec<Expected> {
    let mut parts = vec![
        Expected {
            title: packages::FETCHING,
            waiting: 20.0,
            processor: 6.0,
            at_once: 1.0,
            after: &[],
        },
        Expected {
            title: packages::UNPACKING,
            waiting: 0.0,
            processor: 25.0,
            at_once: 1.3,
            after: &[packages::FETCHING, host_packages::TITLE],
        },
        Expected {
            title: TITLE,
            waiting: 0.0,
            processor: 60.0,
            at_once: 1.5,
            after: &[packages::UNPACKING, workshop::TITLE],
        },
    ];
    if !workshop::may_be_here() {
        parts.push(Expected {
            title: workshop::TITLE,
            waiting: 30.0,
            processor: 60.0,
            at_once: 1.0,
            after: &[packages::UNPACKING, host_packages::TITLE],
        });
    }
    parts
}

fn entry() -> Result<Entry> {
    let key = Key::new("kernel", RECIPE)
        .add("kind", NAME.as_bytes())
        .add("from", packages::SUITE.as_bytes())
        .add("series", packages::SERIES.join(" ").as_bytes());
    Entry::new("kernel", &key.finish())
}

/// Refuses a kernel without what every VM needs; modules of its own are loaded for some of it.
fn refuse_lacks(version: &str, configured: &Config) -> Result<()> {
    let lacks = config::lacks(configured);
    match lacks.iter().find(|lack| lack.needed) {
        None => Ok(()),
        Some(lack) => bail!("Debian's kernel {version} lacks {lack}"),
    }
}

fn kernel(entry: &Entry, stamp: Stamp) -> Result<Kernel> {
    let build_dir = entry.path("build");
    let config = Config::parse(&read(&build_dir.join("include/config/auto.conf"))?);
    refuse_lacks(&stamp.version, &config)?;
    let key = Key::new("kernel", RECIPE).add("version", stamp.version.as_bytes());
    Ok(Kernel {
        name: NAME.into(),
        image: entry.path("vmlinuz"),
        vmlinux: entry.path("vmlinux"),
        source: entry.path("source"),
        driver_dir: entry.path("driver"),
        build_dir,
        key: key.finish(),
        version: stamp.version,
        seconds: stamp.seconds,
        make_variables: stamp.make_variables,
        compilers: stamp.compilers.map(Root::there),
        early_modules: stamp.early_modules,
        packages: &[],
        config,
    })
}

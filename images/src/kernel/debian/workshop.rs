// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The compilers of a kernel of Debian's: those of this machine if it is of the same release, else those in a
//! root file system of that release.
//!
//! Names of a Rust crate's symbols have a hash of the compiler in them, so no other compiler will do, however
//! near its version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::packages::Stock;
use crate::cache::{Entry, Key};
use crate::debian::root::Root;
use crate::debian::{Release, TRIXIE};
use crate::host_packages::{self, Group};
use crate::kernel::config::Config;
use crate::progress::Progress;
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 1;
/// What making a root file system is called.
pub const TITLE: &str = "Getting the compilers of Debian 13";
/// The release whose compilers build the kernels in [`super::packages::SUITE`].
const RELEASE: &Release = &TRIXIE;
/// What builds the kernel's Rust metadata and modules there, besides its C compiler.
const PACKAGES: &[&str] = &[
    "make",
    "flex",
    "bison",
    "bc",
    "libelf-dev",
    "libssl-dev",
    "rustc",
    "rust-src",
    "bindgen",
    "pahole",
    "python3-minimal",
    "kmod",
];
/// Where Debian's packages have them.
const RUST_TOOLS: &[(&str, &str)] = &[
    ("RUSTC", RUSTC),
    ("HOSTRUSTC", RUSTC),
    ("RUSTDOC", "/usr/bin/rustdoc"),
    ("BINDGEN", "/usr/bin/bindgen"),
];
const RUSTC: &str = "/usr/bin/rustc";

/// Where the compilers are.
#[derive(Debug)]
pub struct Workshop(Option<Root>);

/// Whether this machine is of the release whose compilers these are.
pub fn may_be_here() -> bool {
    host_packages::is_debian(RELEASE.number)
}

impl Workshop {
    /// Refuses a user who will have none, before anything is fetched.
    ///
    /// # Errors
    ///
    /// This machine is of another release, and the user cannot enter a root file system.
    pub fn check_right(install: bool) -> Result<()> {
        if host_packages::is_debian(RELEASE.number) {
            return Ok(());
        }
        host_packages::ensure(&[Group::Root], install)?;
        crate::debian::root::check_right()
    }

    /// This machine, or a root file system that is there or is made.
    ///
    /// # Errors
    ///
    /// Neither has the compilers of a kernel with this configuration; names those that differ.
    pub fn find_or_make(config: &Config, install: bool, log: &Path) -> Result<Self> {
        if may_be_here() {
            host_packages::ensure(&[Group::Kernel], install)?;
            let here = Workshop(None);
            if here.check(config).is_ok() {
                return Ok(here);
            }
        }
        let workshop = Workshop(Some(root(config, install, log)?));
        workshop.check(config)?;
        Ok(workshop)
    }

    /// The root file system, if they are in one.
    pub fn root(&self) -> Option<&Root> {
        self.0.as_ref()
    }

    /// A program there, which sees these folders.
    pub fn program(&self, shown: &[PathBuf], program: &str) -> Command {
        match &self.0 {
            None => tool::builder(program),
            Some(root) => root.program(shown, program),
        }
    }

    /// What makes for this kernel have to be told.
    ///
    /// # Errors
    ///
    /// The configuration does not say what compiled the kernel.
    pub fn variables(&self, stock: &Stock) -> Result<Vec<String>> {
        let compiler = c_compiler(&stock.config)?;
        let mut variables = vec![
            format!("CC={compiler}"),
            format!("HOSTCC={compiler}"),
            // The part behind the number comes from Debian's own build.
            format!("KERNELRELEASE={}", stock.version),
        ];
        variables.extend(
            RUST_TOOLS
                .iter()
                .map(|(name, path)| format!("{name}={path}")),
        );
        Ok(variables)
    }

    /// Refuses other compilers than the kernel's.
    fn check(&self, config: &Config) -> Result<()> {
        let compilers = [
            ("CC_VERSION_TEXT", c_compiler(config)?),
            ("RUSTC_VERSION_TEXT", RUSTC),
        ];
        for (option, program) in compilers {
            let wanted = config.get(option).unwrap_or("none at all");
            let mut command = self.program(&[], program);
            let found = tool::output_of(command.arg("--version"))?;
            let found = found.lines().next().unwrap_or_default();
            ensure!(
                found == wanted,
                "The kernel was compiled by {wanted}, and what Debian {} has by now is {found}: modules for it \
                 cannot be built until Debian has a kernel by that one",
                RELEASE.number
            );
        }
        Ok(())
    }
}

/// The program that compiled the kernel, first word of what it says of itself.
fn c_compiler(config: &Config) -> Result<&str> {
    let text = config.get("CC_VERSION_TEXT");
    text.and_then(|text| text.split_whitespace().next())
        .context("The kernel's configuration has no CC_VERSION_TEXT")
}

/// The root file system with the compilers.
fn root(config: &Config, install: bool, log: &Path) -> Result<Root> {
    // As a package: without what it is for.
    let compiler = c_compiler(config)?;
    let compiler = compiler
        .strip_prefix("x86_64-linux-gnu-")
        .unwrap_or(compiler);
    let packages = [PACKAGES, &[compiler]].concat();
    let key = Key::new("root", RECIPE)
        .add("release", RELEASE.codename.as_bytes())
        .add("packages", packages.join(" ").as_bytes())
        .add(
            "compiler",
            config
                .get("RUSTC_VERSION_TEXT")
                .unwrap_or_default()
                .as_bytes(),
        );
    let entry = Entry::new("root", &key.finish())?;
    let folder = entry.path("root");
    if entry.load::<String>()?.is_some() {
        return Ok(Root::there(folder));
    }
    host_packages::ensure(&[Group::Root], install)?;
    entry.create()?;
    let progress = Progress::start(TITLE);
    let root = Root::make(RELEASE, &packages, folder, log)?;
    progress.finish();
    entry.complete(&RELEASE.codename)?;
    Ok(root)
}

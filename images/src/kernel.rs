// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds the guest kernel.
//!
//! `make tinyconfig`, then the lines of `kernel/base.config`, each of which must survive the
//! kernel's own configuration rules. Source and build tree stay: modules are built against them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};

use crate::artifacts::Artifacts;
use crate::cache::{self, Entry, Key};
use crate::fetch::{self, Source};
use crate::host_packages::{self, Group};
use crate::progress::Progress;
use crate::rust_for_kernel::Toolchain;
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 1;
/// Lines that make prints for a whole build, for the estimate.
const EXPECTED_LINES: u64 = 2385;
/// Source, build tree and archive.
const NEEDED_MIB: u64 = 3500;
/// The options.
const BASE_CONFIG: &str = include_str!("../kernel/base.config");

/// Folders of the source that no x86 build reads; without them it unpacks in half the time.
const LEFT_OUT: &[&str] = &["drivers/gpu/drm/amd/include", "arch/*/boot/dts"];

/// A finished kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// What QEMU boots.
    pub image: PathBuf,
    /// The kernel as an ELF file with symbols.
    pub vmlinux: PathBuf,
    /// The build tree, for modules.
    pub build_dir: PathBuf,
    /// As `uname -r` shows it.
    pub version: String,
    /// Name of this build.
    pub key: String,
    /// Seconds that the build took.
    pub seconds: f64,
}

/// The finished kernel of this checkout.
///
/// # Errors
///
/// It is not built.
pub fn built() -> Result<Kernel> {
    let key = key(&Toolchain::find()?)?;
    Entry::new("kernel", &key)?
        .load()?
        .context("The guest kernel is not built: run ./coax build kernel")
}

/// Builds what is missing of the kernel; packages are installed if `install` says so.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(install: bool) -> Result<Kernel> {
    if let Ok(kernel) = built() {
        return Ok(kernel);
    }
    host_packages::ensure(&[Group::Kernel], install)?;
    let started = Instant::now();
    let toolchain = Toolchain::find_or_build()?;
    let key = key(&toolchain)?;
    let entry = Entry::new("kernel", &key)?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "the guest kernel")?;

    let tree = unpacked(&entry)?;
    let build_dir = entry.path("build");
    cache::make_folder(&build_dir)?;
    let make = Make {
        tree: &tree,
        build_dir: &build_dir,
        toolchain: &toolchain,
    };
    let log = entry.path("build.log");
    configure(&make, &log)?;
    compile(&make, &log)?;

    let kernel = Kernel {
        image: build_dir.join("arch/x86/boot/bzImage"),
        vmlinux: build_dir.join("vmlinux"),
        version: read(&build_dir.join("include/config/kernel.release"))?
            .trim()
            .to_owned(),
        build_dir: build_dir.clone(),
        key,
        seconds: started.elapsed().as_secs_f64(),
    };
    entry.complete(&kernel)?;
    Ok(kernel)
}

fn key(toolchain: &Toolchain) -> Result<String> {
    let artifacts = Artifacts::pinned()?;
    let key = artifacts
        .linux
        .iter()
        .fold(Key::new("kernel", RECIPE), |key, source| {
            key.add("source", source.sha256.as_bytes())
        })
        .add("config", BASE_CONFIG.as_bytes())
        .add("tools", toolchain.versions()?.as_bytes());
    Ok(key.finish())
}

/// A pinned source, or the newest of its series.
fn source() -> Result<Source> {
    let artifacts = Artifacts::pinned()?;
    match fetch::first_of(&artifacts.linux) {
        Ok(source) => Ok(source),
        // A wrong file is refused, never replaced behind the user's back.
        Err(error) if error.is::<crate::artifacts::Refusal>() => Err(error),
        Err(pinned) => fetch::newest_of(&artifacts.linux_series)
            .map_err(|series| anyhow::anyhow!("{pinned:#}\n{series:#}")),
    }
}

/// Fetches and unpacks the source once; its folder appears complete or not at all.
fn unpacked(entry: &Entry) -> Result<PathBuf> {
    let tree = entry.path("source");
    if tree.is_dir() {
        return Ok(tree);
    }
    let source = source()?;
    let progress = Progress::start(&format!("Unpacking Linux {}", source.version));
    let part = entry.path("source.part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("Cannot remove {}", part.display()))?;
    }
    cache::make_folder(&part)?;
    let log = entry.path("unpack.log");
    let package = part.join("package");
    tool::run_logged(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&source.path)
            .arg(&package),
        "Unpacking the kernel's package",
        &log,
        |_| {},
    )?;
    let archive = find_archive(&package.join("usr/src"))?;
    let mut tar = Command::new("tar");
    for folder in LEFT_OUT {
        tar.arg(format!("--exclude=*/{folder}"));
    }
    tar.args([
        "--no-same-owner",
        "--strip-components=1",
        "--extract",
        "--file",
    ])
    .arg(&archive);
    tool::run_logged(
        tar.current_dir(&part),
        "Unpacking the kernel's source",
        &log,
        |_| {},
    )?;
    fs::remove_dir_all(&package)
        .and_then(|()| fs::rename(&part, &tree))
        .with_context(|| format!("Cannot write {}", tree.display()))?;
    progress.finish();
    Ok(tree)
}

fn find_archive(folder: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("Cannot read {}", folder.display()))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(".tar"))
        .with_context(|| format!("No source archive in {}", folder.display()))
}

/// The kernel's make, with everything it has to be told.
struct Make<'a> {
    tree: &'a Path,
    build_dir: &'a Path,
    toolchain: &'a Toolchain,
}

impl Make<'_> {
    fn command(&self, targets: &[&str]) -> Command {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(self.tree)
            .arg(format!("O={}", self.build_dir.display()));
        make.arg(format!("-j{}", tool::jobs()))
            .args(self.toolchain.make_variables());
        make.args(targets);
        // Neither the user's make nor their language shall change the result.
        for name in [
            "MAKEFLAGS",
            "MAKELEVEL",
            "ARCH",
            "CROSS_COMPILE",
            "KCFLAGS",
            "LLVM",
        ] {
            make.env_remove(name);
        }
        make.envs([
            ("LC_ALL", "C"),
            ("KBUILD_BUILD_USER", "coax"),
            ("KBUILD_BUILD_HOST", "coax"),
        ]);
        make.env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970");
        make
    }
}

fn configure(make: &Make, log: &Path) -> Result<()> {
    let path = make.build_dir.join(".config");
    // A resumed build keeps its configuration, or make would begin anew.
    if path.is_file() && lost_lines(BASE_CONFIG, &read(&path)?).is_empty() {
        return Ok(());
    }
    let title = "Configuring the kernel";
    tool::run_logged(&mut make.command(&["rustavailable"]), title, log, |_| {})?;
    tool::run_logged(&mut make.command(&["tinyconfig"]), title, log, |_| {})?;
    let config = read(&path)? + "\n" + BASE_CONFIG;
    fs::write(&path, config).with_context(|| format!("Cannot write {}", path.display()))?;
    tool::run_logged(&mut make.command(&["olddefconfig"]), title, log, |_| {})?;
    let lost = lost_lines(BASE_CONFIG, &read(&path)?);
    if !lost.is_empty() {
        fs::remove_file(&path).with_context(|| format!("Cannot remove {}", path.display()))?;
        bail!(
            "The kernel's configuration rules did not keep these lines of \
             images/kernel/base.config:\n  {}",
            lost.join("\n  ")
        );
    }
    Ok(())
}

/// The option lines of `fragment` that `config` does not have.
fn lost_lines<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let kept: Vec<&str> = config.lines().collect();
    fragment
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_"))
        .filter(|line| !kept.contains(line) && !is_absent(line, &kept))
        .collect()
}

/// `=n`, and a comment that an option is not set, also hold when the option is not mentioned.
fn is_absent(line: &str, kept: &[&str]) -> bool {
    let option = line.strip_suffix("=n").or_else(|| {
        line.strip_prefix("# ")
            .and_then(|rest| rest.strip_suffix(" is not set"))
    });
    option.is_some_and(|option| {
        !kept.iter().any(|other| {
            other
                .strip_prefix(option)
                .is_some_and(|r| r.starts_with('='))
        })
    })
}

fn compile(make: &Make, log: &Path) -> Result<()> {
    let mut progress = Progress::start("Building the guest kernel");
    let mut lines = 0;
    let result = tool::run_logged(
        &mut make.command(&["bzImage", "modules"]),
        "Building the guest kernel",
        log,
        |line| {
            // Steps are indented by two spaces, warnings are not.
            lines += u64::from(line.starts_with("  "));
            progress.update(lines, EXPECTED_LINES);
        },
    );
    match result {
        Ok(()) => progress.finish(),
        Err(_) => progress.abandon(),
    }
    result
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_line_that_was_not_kept_is_found() {
        let fragment = "# Reason.\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=\"x\"\n";
        let config = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=\"x\"\n";
        assert_eq!(lost_lines(fragment, config), ["CONFIG_B=m"]);
    }

    #[test]
    fn an_option_that_is_off_may_be_absent_but_not_on() {
        let fragment = "CONFIG_A=n\n# CONFIG_B is not set\n";
        assert!(lost_lines(fragment, "").is_empty());
        assert_eq!(lost_lines(fragment, "CONFIG_A=y\nCONFIG_B=m\n").len(), 2);
    }
}

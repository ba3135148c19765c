// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds what is ours: the driver, the programs in the guest, its root file system, and the
//! back end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::blas;
use crate::cache::{self, Entry, Key};
use crate::hmm_tests;
use crate::host_packages::{self, Group};
use crate::initramfs::{self, Member};
use crate::kernel::{self, Kernel, Variant};
use crate::progress::Progress;
use crate::rust_for_kernel::Toolchain;
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 3;
/// Cargo's build folders and one root file system.
const NEEDED_MIB: u64 = 1500;
/// Builds kept: going back and forth between versions of the sources builds nothing.
const KEPT_BUILDS: usize = 6;
/// Longest use of a build: VMs are started from it as long as a suite runs.
const LONGEST_USE: Duration = Duration::from_secs(12 * 3600);
/// Folders and files of this checkout that the builds depend on.
const INPUTS: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "guest-driver",
    "vmm-device",
    "images",
    "program",
    "tests",
];
/// Programs of the guest, each with the package it is in; all are static.
const PROGRAMS: &[(&str, &str)] = &[
    ("coax-images", "coax-init"),
    ("coaxctl", "coaxctl"),
    ("coax-demo", "coax-demo"),
    ("vm-tests", "coax-guest-tests"),
];
/// Static programs for the guest; the host's build scripts are not affected by its flags.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";
/// Symbols would make up two thirds of the root file system.
const GUEST_STRIP: (&str, &str) = ("CARGO_PROFILE_RELEASE_STRIP", "symbols");
const GUEST_RUSTFLAGS: (&str, &str) = (
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
    "-C target-feature=+crt-static",
);
/// Programs of the host, built with the back end.
const HOST_PROGRAMS: &[&str] = &["vhost-device-coax", "coax-engine-bench"];
/// The BLAS drop-in as cargo leaves it.
const BLAS_LIBRARY: &str = "libcoax_blas.so";
/// Modules of the kernel itself that are put beside the driver.
const KERNEL_MODULES: &[&str] = &["lib/test_hmm.ko"];
/// Crates compiled for host and guest together, for the estimate.
const EXPECTED_CRATES: u64 = 90;

/// A finished guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// Root file system, without a job.
    pub initramfs: PathBuf,
    /// The back end.
    pub device: PathBuf,
    /// The program that measures the engine on host memory.
    pub engine_bench: PathBuf,
    /// Seconds that the build took.
    pub seconds: f64,
}

/// The finished guest of this checkout.
///
/// # Errors
///
/// It, or the kernel it belongs to, is not built.
pub fn built(variant: Variant) -> Result<Guest> {
    Entry::new("guest", &key(&kernel::built(variant)?)?)?
        .load()?
        .with_context(|| {
            format!("The guest is not built: run ./coax build guest --kernel {variant}")
        })
}

/// Builds what is missing of the guest; packages are installed if `install` says so.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(kernel: &Kernel, install: bool) -> Result<Guest> {
    let key = key(kernel)?;
    let entry = Entry::new("guest", &key)?;
    if let Some(guest) = entry.load()? {
        return Ok(guest);
    }
    let packages = [&[Group::Guest], kernel.variant.packages()].concat();
    host_packages::ensure(&packages, install)?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "the guest")?;
    let log = entry.path("build.log");
    let started = Instant::now();

    let target = target_folder();
    let mut progress = Progress::start("Building back end and guest programs");
    let mut compiled = 0;
    let mut watch = |line: &str| {
        compiled += u64::from(line.trim_start().starts_with("Compiling"));
        progress.update(compiled, EXPECTED_CRATES);
    };
    build_host_programs(&target, &log, &mut watch)?;
    build_guest_programs(&target, &log, &mut watch)?;
    build_blas(&target, &log, &mut watch)?;
    progress.finish();
    let driver = build_driver(kernel, &log)?;
    let tests = entry.path("hmm-tests");
    hmm_tests::build(kernel, &tests, &log)?;
    let library = target.join("release").join(BLAS_LIBRARY);
    let blas = blas::stage(&library, &entry.path("blas"), &log)?;

    let copy = |from: PathBuf, name: &str| -> Result<PathBuf> {
        let to = entry.path(name);
        fs::copy(&from, &to).with_context(|| format!("Cannot copy {}", from.display()))?;
        Ok(to)
    };
    let host = |name: &str| copy(target.join("release").join(name), name);
    let (device, engine_bench) = (host("vhost-device-coax")?, host("coax-engine-bench")?);
    let initramfs = entry.path("initramfs.cpio");
    let mut members = members(kernel, &target, &driver);
    members.push(Member {
        guest_path: "/bin/hmm-tests".into(),
        host_path: tests,
        mode: 0o755,
    });
    members.extend(blas.members);
    initramfs::write_base(&initramfs, &members, &blas.links, &applets()?)
        .context("Cannot write the guest's root file system")?;
    let seconds = started.elapsed().as_secs_f64();
    let guest = Guest {
        initramfs,
        device,
        engine_bench,
        seconds,
    };
    entry.complete(&guest)?;
    remove_old_builds()?;
    Ok(guest)
}

fn key(kernel: &Kernel) -> Result<String> {
    let checkout = cache::checkout();
    let mut key = Key::new("guest", RECIPE).add("kernel", kernel.key.as_bytes());
    for input in INPUTS {
        key = key.add_path(&checkout.join(input))?;
    }
    key = key.add("rustc", tool::version_of(Path::new("rustc"))?.as_bytes());
    Ok(key.finish())
}

/// Where cargo builds: what the user says, else its own place in the checkout.
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => cache::checkout().join(folder),
        None => cache::checkout().join("target"),
    }
}

/// Cargo in this checkout, unimpressed by the cargo that may have started this program.
fn cargo(target: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--locked"])
        .current_dir(cache::checkout());
    cargo.env("CARGO_TARGET_DIR", target);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    cargo
}

fn build_host_programs(target: &Path, log: &Path, watch: impl FnMut(&str)) -> Result<()> {
    let mut cargo = cargo(target);
    cargo.args(["--package", "vhost-device-coax"]);
    for program in HOST_PROGRAMS {
        cargo.args(["--bin", program]);
    }
    tool::run_logged(&mut cargo, "Building the back end", log, watch)
}

fn build_guest_programs(target: &Path, log: &Path, watch: impl FnMut(&str)) -> Result<()> {
    let mut cargo = cargo(target);
    cargo.args(["--target", GUEST_TARGET, "--no-default-features"]);
    for (package, program) in PROGRAMS {
        cargo.args(["--package", package, "--bin", program]);
    }
    cargo.envs([GUEST_RUSTFLAGS, GUEST_STRIP]);
    tool::run_logged(&mut cargo, "Building the guest programs", log, watch)
}

/// The BLAS drop-in, for the host's C library: programs that load it are the host's too.
fn build_blas(target: &Path, log: &Path, watch: impl FnMut(&str)) -> Result<()> {
    let mut cargo = cargo(target);
    cargo.args(["--package", "coax-blas", "--lib"]);
    tool::run_logged(&mut cargo, "Building the BLAS drop-in", log, watch)
}

/// The driver's own Makefile, told about this kernel.
fn build_driver(kernel: &Kernel, log: &Path) -> Result<PathBuf> {
    let progress = Progress::start("Building the driver");
    let output = driver_folder(kernel);
    let mut make = driver_make(kernel)?;
    make.arg("modules");
    tool::run_logged(&mut make, "Building the driver", log, |_| {})?;
    progress.finish();
    Ok(output.join("coax.ko"))
}

fn driver_folder(kernel: &Kernel) -> PathBuf {
    kernel.build_dir.with_file_name("driver")
}

/// `make -C guest-driver` with the variables that building against `kernel` takes.
///
/// # Errors
///
/// The kernel's Rust tools are gone.
pub fn driver_make(kernel: &Kernel) -> Result<Command> {
    let output = driver_folder(kernel);
    cache::make_folder(&output)?;
    let mut make = Command::new("make");
    make.arg("-C").arg(cache::checkout().join("guest-driver"));
    make.arg(format!("-j{}", tool::jobs()));
    make.arg(format!("KDIR={}", kernel.build_dir.display()));
    make.arg(format!("MO={}", output.display()));
    make.args(Toolchain::find()?.make_variables())
        .args(kernel.variant.make_variables());
    make.env("LC_ALL", "C")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("LLVM");
    Ok(make)
}

/// Everything in the root file system but links.
fn members(kernel: &Kernel, target: &Path, driver: &Path) -> Vec<Member> {
    let member = |guest_path: String, host_path: PathBuf, mode| Member {
        guest_path,
        host_path,
        mode,
    };
    let programs = target.join(GUEST_TARGET).join("release");
    let mut members: Vec<Member> = PROGRAMS
        .iter()
        .map(|(_, program)| member(format!("/bin/{program}"), programs.join(program), 0o755))
        .collect();
    members.push(member("/init".into(), programs.join("coax-init"), 0o755));
    members.push(member("/bin/busybox".into(), "/bin/busybox".into(), 0o755));
    members.push(member(
        "/lib/modules/coax.ko".into(),
        driver.to_path_buf(),
        0o644,
    ));
    for module in KERNEL_MODULES {
        let name = module.rsplit('/').next().unwrap_or(module);
        members.push(member(
            format!("/lib/modules/{name}"),
            kernel.build_dir.join(module),
            0o644,
        ));
    }
    // The demonstration's input: a real file of more than 20 MB.
    members.push(member("/vmlinux".into(), kernel.vmlinux.clone(), 0o644));
    members
}

/// Names under which busybox is called, all but its own.
fn applets() -> Result<Vec<String>> {
    let text = tool::output_of(Command::new("/bin/busybox").arg("--list"))
        .context("Cannot ask busybox for its applets")?;
    Ok(text
        .lines()
        .filter(|name| *name != "busybox")
        .map(str::to_owned)
        .collect())
}

/// Keeps the newest [`KEPT_BUILDS`], and all that somebody may still be running.
fn remove_old_builds() -> Result<()> {
    let folder = cache::root()?.join("guest");
    let context = || format!("Cannot tidy {}", folder.display());
    let mut builds: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        builds.push((entry.metadata()?.modified()?, entry.path()));
    }
    builds.sort();
    let surplus = builds.len().saturating_sub(KEPT_BUILDS);
    let is_old = |time: &SystemTime| time.elapsed().is_ok_and(|age| age > LONGEST_USE);
    let old = builds.into_iter().take(surplus);
    for (_, build) in old.filter(|(time, _)| is_old(time)) {
        fs::remove_dir_all(&build).with_context(|| format!("Cannot remove {}", build.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_exist_in_the_checkout() {
        for input in INPUTS {
            assert!(cache::checkout().join(input).exists(), "{input}");
        }
    }

    #[test]
    fn every_crate_of_the_workspace_is_an_input() {
        let text = fs::read_to_string(cache::checkout().join("Cargo.toml")).expect("readable");
        let workspace: toml::Table = text.parse().expect("cargo reads it");
        let members = workspace["workspace"]["members"]
            .as_array()
            .expect("a list");
        for member in members {
            let member = Path::new(member.as_str().expect("a path"));
            let is_input = INPUTS.iter().any(|input| member.starts_with(input));
            assert!(is_input, "{} is in no input", member.display());
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds what is ours: the driver, the programs in the guest, its root file system, and the
//! back end.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::blas;
use crate::cache::{self, Entry, Key};
use crate::cargo::{self, Built};
use crate::hmm_tests;
use crate::host_packages::{self, Group};
use crate::initramfs::{self, Member};
use crate::job::EARLY_MODULES;
use crate::kernel::{self, Kernel};
use crate::progress::{Expected, Progress};
use crate::test_hmm;
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 6;
/// Cargo's build folders and one root file system.
const NEEDED_MIB: u64 = 1500;
/// Most of the kernel that is put into the guest, as the demonstration's input.
const VMLINUX_BYTES: u64 = 24 << 20;
/// Builds kept: going back and forth between versions of the sources builds nothing.
const KEPT_BUILDS: usize = 6;
/// Folders and files of this checkout that the builds depend on.
const INPUTS: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "guest-driver",
    "vmm-device",
    "images",
    "program",
    "results",
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
/// Packages of what is built for the host, this one among them: crates that they share are compiled with the
/// features that all of them want, as for the `coax` command, and so once.
const HOST_PACKAGES: &[&str] = &["coax-images", "vhost-device-coax", "coax-blas"];
/// The BLAS drop-in as cargo leaves it, for the host's C library: programs that load it are the host's too.
const BLAS_LIBRARY: &str = "libcoax_blas.so";
/// Crates compiled for host and guest together, for the estimate.
const EXPECTED_CRATES: u64 = 65;
const PROGRAMS_TITLE: &str = "Building back end and guest programs";
const DRIVER_TITLE: &str = "Building the driver";
const ROOT_TITLE: &str = "Making the guest's root file system";
/// What building a guest takes, but for its kernel.
pub const EXPECTED: &[Expected] = &[
    Expected {
        title: PROGRAMS_TITLE,
        waiting: 5.0,
        processor: 165.0,
        at_once: 1.8,
        after: &[],
    },
    Expected {
        title: DRIVER_TITLE,
        waiting: 0.0,
        processor: 40.0,
        at_once: 1.3,
        after: &[
            PROGRAMS_TITLE,
            host_packages::TITLE,
            kernel::own::TITLE,
            kernel::debian::TITLE,
        ],
    },
    Expected {
        title: ROOT_TITLE,
        waiting: 0.0,
        processor: 10.0,
        at_once: 1.0,
        after: &[DRIVER_TITLE],
    },
];

/// What cargo has built for host and guest.
#[derive(Debug)]
pub struct Programs {
    host: Built,
    guest: Built,
}

/// A finished guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// Root file system, without a job.
    pub initramfs: PathBuf,
    /// The back end.
    pub device: PathBuf,
    /// The kernel's own tests, as they are in the root file system.
    pub hmm_tests: PathBuf,
    /// The program that measures the engine on host memory.
    pub engine_bench: PathBuf,
    /// Seconds that the build took.
    pub seconds: f64,
}

/// The finished guest of this checkout for `kernel`.
///
/// # Errors
///
/// It is not built.
pub fn built(kernel: &Kernel) -> Result<Guest> {
    let guest = Entry::new("guest", &key(kernel)?)?.load()?;
    guest.context("The guest is not built: run ./coax build guest")
}

/// Builds the programs of host and guest, which do not depend on the kernel.
///
/// # Errors
///
/// Those of cargo, with the log's place.
pub fn programs() -> Result<Programs> {
    cache::check_paths()?;
    let root = cache::root()?;
    cache::make_folder(&root)?;
    cache::check_space(&root, NEEDED_MIB, "the guest")?;
    let log = root.join("programs.log");
    fs::write(&log, "").with_context(|| format!("Cannot write {}", log.display()))?;
    let mut progress = Progress::start(PROGRAMS_TITLE);
    let mut compiled = 0;
    let mut watch = |line: &str| {
        compiled += u64::from(line.trim_start().starts_with("Compiling"));
        progress.update(compiled, EXPECTED_CRATES);
    };
    let programs = Programs {
        host: build_host_programs(&log, &mut watch)?,
        guest: build_guest_programs(&log, &mut watch)?,
    };
    progress.finish();
    Ok(programs)
}

/// Builds what is missing of the guest, with these programs; packages are installed if `install` says so.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(kernel: &Kernel, programs: &Programs, install: bool) -> Result<Guest> {
    let key = key(kernel)?;
    let entry = Entry::new("guest", &key)?;
    if let Some(guest) = entry.load()? {
        return Ok(guest);
    }
    cache::check_paths()?;
    let packages = [&[Group::Guest], kernel.packages].concat();
    host_packages::ensure(&packages, install)?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "the guest")?;
    let log = entry.path("build.log");
    let started = Instant::now();

    let modules = [build_driver(kernel, &log)?, test_hmm::build(kernel, &log)?];
    let progress = Progress::start(ROOT_TITLE);
    let hmm_tests = entry.path("hmm-tests");
    hmm_tests::build(kernel, &hmm_tests, &log)?;
    let vmlinux = entry.path("vmlinux");
    strip(&kernel.vmlinux, &vmlinux, &log)?;
    let blas = blas::stage(programs.host.file(BLAS_LIBRARY)?, &entry.path("blas"), &log)?;

    let host = |name: &str| -> Result<PathBuf> {
        let (from, to) = (programs.host.file(name)?, entry.path(name));
        fs::copy(from, &to).with_context(|| format!("Cannot copy {}", from.display()))?;
        Ok(to)
    };
    let (device, engine_bench) = (host("vhost-device-coax")?, host("coax-engine-bench")?);
    let initramfs = entry.path("initramfs.cpio");
    let mut members = members(&programs.guest, &modules, &vmlinux)?;
    for (number, module) in kernel.early_modules.iter().enumerate() {
        members.push(Member {
            guest_path: format!("{EARLY_MODULES}/{number}.ko"),
            host_path: module.clone(),
            mode: 0o644,
        });
    }
    members.push(Member {
        guest_path: "/bin/hmm-tests".into(),
        host_path: hmm_tests.clone(),
        mode: 0o755,
    });
    members.extend(blas.members);
    initramfs::write_base(&initramfs, &members, &blas.links, &applets()?)
        .context("Cannot write the guest's root file system")?;
    let seconds = started.elapsed().as_secs_f64();
    let guest = Guest {
        initramfs,
        device,
        hmm_tests,
        engine_bench,
        seconds,
    };
    entry.complete(&guest)?;
    progress.finish();
    cache::remove_old("guest", KEPT_BUILDS)?;
    kernel::tree::tidy()?;
    Ok(guest)
}

fn key(kernel: &Kernel) -> Result<String> {
    let checkout = cache::checkout();
    let mut key = Key::new("guest", RECIPE).add("kernel", kernel.key.as_bytes());
    for input in INPUTS {
        key = key.add_path(&checkout.join(input))?;
    }
    for input in hmm_tests::INPUTS.iter().chain(test_hmm::INPUTS) {
        let path = kernel.source.join(input);
        if path.is_file() {
            key = key.add_path(&path)?;
        }
    }
    key = key.add("rustc", tool::version_of(Path::new("rustc"))?.as_bytes());
    Ok(key.finish())
}

/// Cargo building for release in this checkout. What else a first VM takes is a longer way, and goes first.
fn cargo_build() -> Command {
    cargo::command_that_yields(&["build", "--release", "--locked"])
}

fn build_host_programs(log: &Path, watch: impl FnMut(&str)) -> Result<Built> {
    let mut cargo = cargo_build();
    for package in HOST_PACKAGES {
        cargo.args(["--package", package]);
    }
    for program in HOST_PROGRAMS {
        cargo.args(["--bin", program]);
    }
    cargo.arg("--lib");
    cargo::build(cargo, "Building the back end", log, watch)
}

fn build_guest_programs(log: &Path, watch: impl FnMut(&str)) -> Result<Built> {
    let mut cargo = cargo_build();
    cargo.args(["--target", GUEST_TARGET, "--no-default-features"]);
    for (package, program) in PROGRAMS {
        cargo.args(["--package", package, "--bin", program]);
    }
    cargo.envs([GUEST_RUSTFLAGS, GUEST_STRIP]);
    cargo::build(cargo, "Building the guest programs", log, watch)
}

/// The driver's own Makefile, told about this kernel.
fn build_driver(kernel: &Kernel, log: &Path) -> Result<PathBuf> {
    let progress = Progress::start(DRIVER_TITLE);
    let mut make = driver_make(kernel)?;
    make.arg("modules");
    tool::run_logged(&mut make, DRIVER_TITLE, log, |_| {})?;
    progress.finish();
    Ok(kernel.driver_dir.join("coax.ko"))
}

/// `make -C guest-driver` with the variables that building against `kernel` takes.
///
/// # Errors
///
/// The driver's folder cannot be made.
pub fn driver_make(kernel: &Kernel) -> Result<Command> {
    let output = &kernel.driver_dir;
    cache::make_folder(output)?;
    let mut make = kernel.make()?;
    make.arg("-C").arg(cache::checkout().join("guest-driver"));
    make.arg(format!("KDIR={}", kernel.build_dir.display()));
    make.arg(format!("MO={}", output.display()));
    Ok(make)
}

/// Everything in the root file system but links.
fn members(programs: &Built, modules: &[PathBuf], vmlinux: &Path) -> Result<Vec<Member>> {
    let member = |guest_path: String, host_path: PathBuf, mode| Member {
        guest_path,
        host_path,
        mode,
    };
    let mut members = Vec::new();
    for (_, program) in PROGRAMS {
        let file = programs.file(program)?.to_path_buf();
        members.push(member(format!("/bin/{program}"), file, 0o755));
    }
    let init = programs.file("coax-init")?.to_path_buf();
    members.push(member("/init".into(), init, 0o755));
    members.push(member("/bin/busybox".into(), "/bin/busybox".into(), 0o755));
    for module in modules {
        let name = module.file_name().context("Every module has a name")?;
        let path = format!("/lib/modules/{}", name.to_string_lossy());
        members.push(member(path, module.clone(), 0o644));
    }
    // The demonstration's input: a real file of more than 20 MB, but for a small kernel of somebody's own.
    members.push(member("/vmlinux".into(), vmlinux.to_path_buf(), 0o644));
    Ok(members)
}

/// The beginning of the kernel without what a debugger needs: what distributions build takes several times as long
/// to load and to hash.
fn strip(vmlinux: &Path, copy: &Path, log: &Path) -> Result<()> {
    let mut strip = tool::builder("strip");
    strip.args(["--strip-debug", "-o"]).arg(copy).arg(vmlinux);
    tool::run_logged(&mut strip, "Copying the kernel", log, |_| {})?;
    let shorten = || -> io::Result<()> {
        let file = File::options().write(true).open(copy)?;
        let length = file.metadata()?.len();
        file.set_len(length.min(VMLINUX_BYTES))
    };
    shorten().with_context(|| format!("Cannot shorten {}", copy.display()))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn inputs_exist_in_the_checkout() {
        for input in INPUTS {
            assert!(cache::checkout().join(input).exists(), "{input}");
        }
    }

    /// Crates, but for those of this checkout, with their features, as cargo has them for packages.
    fn features(packages: &[&str]) -> BTreeSet<String> {
        let mut cargo = cargo::command(&["tree", "--locked", "--prefix=none"]);
        cargo.args(["--edges=normal,build", "--format={p} {f}"]);
        for package in packages {
            cargo.args(["--package", package]);
        }
        let text =
            tool::output_of(&mut cargo).expect("cargo has the crates that it was built from");
        let lines = text.lines().filter(|line| !line.contains('/'));
        lines
            .map(|line| line.trim_end_matches(" (*)").to_owned())
            .collect()
    }

    #[test]
    fn crates_of_the_command_are_compiled_once() {
        let both: BTreeSet<String> = features(HOST_PACKAGES);
        let all = features(&[]);
        let other: Vec<_> = both.difference(&all).collect();
        assert!(
            other.is_empty(),
            "other features than for the command: {other:?}"
        );
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

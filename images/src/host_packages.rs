// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packages of the host that builds need: names those that are missing, and installs them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{bail, Context, Result};

use crate::cache;
use crate::progress::{self, Expected, Progress};
use crate::tool;

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Building the guest kernel and its modules.
    Kernel,
    /// Building a guest kernel by clang.
    Llvm,
    /// Building QEMU.
    Qemu,
    /// Building the guest's root file system.
    Guest,
    /// Programs that are measured with the device and without.
    Programs,
    /// Building what serves a tree of the host to the guest.
    Virtiofsd,
    /// What the suite `soak` runs.
    Soak,
    /// What the suite `stress` runs.
    Stress,
    /// What the suite `fresh` clones by.
    Fresh,
    /// Taking Debian's own kernel apart.
    Debian,
    /// Root file systems of other releases of Debian.
    Root,
}

impl Group {
    /// Those that every use needs.
    pub const ALL: [Group; 3] = [Group::Kernel, Group::Qemu, Group::Guest];
}

/// A package with its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name on Debian.
    pub name: &'static str,
    /// What for.
    pub purpose: &'static str,
    group: Group,
}

const fn package(group: Group, name: &'static str, purpose: &'static str) -> Package {
    Package {
        name,
        purpose,
        group,
    }
}

/// What installing is called.
pub const TITLE: &str = "Installing packages";
/// Held while apt installs.
static INSTALLING: Mutex<()> = Mutex::new(());

/// What installing those that are missing takes.
pub fn expected(groups: &[Group]) -> Vec<Expected> {
    let missing = missing(groups).unwrap_or_default().len() as f64;
    let part = Expected {
        title: TITLE,
        waiting: 5.0 + missing,
        processor: 5.0 + 2.0 * missing,
        at_once: 1.0,
        after: &[],
    };
    if missing > 0.0 {
        vec![part]
    } else {
        Vec::new()
    }
}

/// Needed on every Debian.
const COMMON: &[Package] = &[
    package(Group::Kernel, "build-essential", "C compiler and make"),
    package(Group::Kernel, "bc", "constants of the kernel's timers"),
    package(
        Group::Kernel,
        "bison",
        "parsers of the kernel's configuration",
    ),
    package(
        Group::Kernel,
        "flex",
        "scanners of the kernel's configuration",
    ),
    package(Group::Kernel, "libelf-dev", "the kernel's object checker"),
    package(
        Group::Kernel,
        "libssl-dev",
        "the kernel's certificate tools",
    ),
    package(Group::Kernel, "kmod", "the kernel's module tools"),
    package(Group::Kernel, "xz-utils", "unpacking sources"),
    package(
        Group::Root,
        "mmdebstrap",
        "root file systems of other releases",
    ),
    package(Group::Root, "uidmap", "making them without being root"),
    package(Group::Debian, "xz-utils", "unpacking sources"),
    package(Group::Debian, "zstd", "taking the kernel out of its image"),
    package(
        Group::Debian,
        "build-essential",
        "C compiler and object tools",
    ),
    package(Group::Fresh, "git", "a clone of this checkout"),
    package(Group::Qemu, "build-essential", "C compiler and make"),
    package(Group::Qemu, "bison", "QEMU's parsers"),
    package(Group::Qemu, "flex", "QEMU's scanners"),
    package(Group::Qemu, "ninja-build", "QEMU's build"),
    package(Group::Qemu, "pkg-config", "QEMU's look for libraries"),
    package(
        Group::Qemu,
        "python3-venv",
        "QEMU's build system, in a folder of its own",
    ),
    package(Group::Qemu, "libglib2.0-dev", "QEMU's main loop"),
    package(Group::Qemu, "libpixman-1-dev", "QEMU's pixels"),
    package(Group::Qemu, "libfdt-dev", "QEMU's device trees"),
    package(Group::Qemu, "seabios", "the virtual machine's BIOS"),
    package(
        Group::Qemu,
        "qemu-system-data",
        "the option ROM that loads the kernel",
    ),
    package(Group::Qemu, "xz-utils", "unpacking sources"),
    package(
        Group::Guest,
        "busybox-static",
        "the guest's shell and tools",
    ),
    package(
        Group::Virtiofsd,
        "libcap-ng-dev",
        "capabilities that virtiofsd gives up",
    ),
    package(
        Group::Virtiofsd,
        "libseccomp-dev",
        "system calls that virtiofsd gives up",
    ),
    package(
        Group::Programs,
        "python3-numpy",
        "a program that multiplies matrices",
    ),
    package(
        Group::Programs,
        "libopenblas0-pthread",
        "the BLAS that the device is compared with",
    ),
    package(
        Group::Programs,
        "liblapack3",
        "the LAPACK that calls the BLAS by name",
    ),
    package(
        Group::Guest,
        "libblas3",
        "the CPU's BLAS, behind the drop-in",
    ),
    package(Group::Soak, "build-essential", "C compiler and make"),
    package(Group::Soak, "xz-utils", "unpacking sources"),
    package(Group::Soak, "tcl-dev", "the language of SQLite's tests"),
    package(Group::Soak, "zlib1g-dev", "SQLite's compressed archives"),
    package(Group::Stress, "stress-ng", "programs that try a kernel"),
];

/// Names with a version in them, as Debian 12 has them. Its own Rust and LLVM are too old for the
/// kernel; its `-web` packages and LLVM 19 are not.
const DEBIAN_12: &[Package] = &[
    package(Group::Kernel, "rustc-web", "compiler of the kernel's Rust"),
    package(
        Group::Kernel,
        "rust-web-src",
        "Rust's core library, which the kernel builds",
    ),
    package(
        Group::Kernel,
        "libclang-19-dev",
        "bindings between C and Rust in the kernel",
    ),
    package(Group::Llvm, "clang-19", "C compiler of the KASAN kernel"),
    package(Group::Llvm, "lld-19", "linker of the KASAN kernel"),
    package(Group::Llvm, "llvm-19", "object tools of the KASAN kernel"),
    package(Group::Soak, "libpython3.11-testsuite", "Python's own tests"),
];

/// The same as later releases have them.
const LATER: &[Package] = &[
    package(Group::Kernel, "rustc", "compiler of the kernel's Rust"),
    package(
        Group::Kernel,
        "rust-src",
        "Rust's core library, which the kernel builds",
    ),
    package(
        Group::Kernel,
        "bindgen",
        "bindings between C and Rust in the kernel",
    ),
    package(
        Group::Kernel,
        "libclang-dev",
        "the C parser behind those bindings",
    ),
    package(
        Group::Debian,
        "pahole",
        "Debian's kernel has options that ask for it",
    ),
    package(
        Group::Debian,
        "python3-minimal",
        "scripts of the kernel's own tools",
    ),
    package(Group::Llvm, "clang", "C compiler of the KASAN kernel"),
    package(Group::Llvm, "lld", "linker of the KASAN kernel"),
    package(Group::Llvm, "llvm", "object tools of the KASAN kernel"),
    package(Group::Soak, "libpython3.13-testsuite", "Python's own tests"),
];

/// Whether this is the release of Debian with this number.
pub fn is_debian(number: &str) -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| release.lines().any(|other| other == line);
    has("ID=debian") && has(&format!("VERSION_ID=\"{number}\""))
}

/// Whether this is Debian 12, whose Rust needs other packages.
pub fn is_debian_12() -> bool {
    is_debian("12")
}

/// What the names of LLVM's programs end in.
pub fn llvm_suffix() -> &'static str {
    if is_debian_12() {
        "-19"
    } else {
        ""
    }
}

/// The packages that a group needs on this machine.
pub fn needed(groups: &[Group]) -> Vec<Package> {
    let by_release = if is_debian_12() { DEBIAN_12 } else { LATER };
    let mut packages: Vec<Package> = Vec::new();
    for package in COMMON
        .iter()
        .chain(by_release)
        .filter(|package| groups.contains(&package.group))
    {
        if !packages.iter().any(|other| other.name == package.name) {
            packages.push(*package);
        }
    }
    packages
}

/// Those of `needed` that are not installed.
///
/// # Errors
///
/// This is no Debian: there is no dpkg to ask.
pub fn missing(groups: &[Group]) -> Result<Vec<Package>> {
    let needed = needed(groups);
    if tool::find("dpkg-query").is_none() {
        bail!(
            "This is no Debian: install what the packages {} hold by other means",
            names(&needed).join(" ")
        );
    }
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package}\n"])
        .args(names(&needed))
        .stdin(Stdio::null())
        .output()
        .context("Cannot start dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    Ok(needed
        .into_iter()
        .filter(|package| !installed.contains(&package.name))
        .collect())
}

fn names(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().map(|package| package.name).collect()
}

/// A list for people: a package and its purpose a line.
pub fn describe(packages: &[Package]) -> String {
    let width = packages
        .iter()
        .map(|package| package.name.len())
        .max()
        .unwrap_or(0);
    packages
        .iter()
        .map(|package| format!("  {:width$}  {}", package.name, package.purpose))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Sees to it that the packages of `groups` are there.
///
/// # Errors
///
/// Some are missing and must not (`install` is false) or cannot be installed.
pub fn ensure(groups: &[Group], install: bool) -> Result<()> {
    // apt runs once at a time, and what one has installed no other need.
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let missing = missing(groups)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = describe(&missing);
    let by_hand = format!(
        "apt-get install --no-install-recommends {}",
        names(&missing).join(" ")
    );
    if !install {
        bail!("These packages are missing:\n{list}\nTo install them: {by_hand}");
    }
    if as_root("true").is_none() {
        bail!(
            "These packages are missing, and neither are you root nor does sudo work without a \
             password:\n{list}\nTo install them: {by_hand}"
        );
    }
    progress::say(&format!("Installing packages that are missing:\n{list}"));
    let mut words = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    words.extend(names(&missing));
    // Without apt's lists there is no plan yet, and the packages are not found below either.
    let plan = tool::output_of(Command::new("apt-get").arg("--simulate").args(&words));
    for change in changes(&plan.unwrap_or_default()) {
        progress::say(&format!("This {change}"));
    }
    let progress = Progress::start(TITLE);
    let log = cache::root()?.join("packages.log");
    if !apt_get(&words, &log)? {
        progress::say("Once more, with apt's lists brought up to date");
        if !(apt_get(&["update", "--quiet"], &log)? && apt_get(&words, &log)?) {
            progress.abandon();
            bail!(
                "apt-get failed, and {} says why. To install the packages by hand: {by_hand}",
                log.display()
            );
        }
    }
    progress.finish();
    Ok(())
}

/// What apt's plan does to packages that are installed already.
fn changes(plan: &str) -> Vec<String> {
    let change = |line: &str| {
        let mut words = line.split(' ');
        match (words.next()?, words.next()?) {
            ("Inst", name) => {
                // `Inst NAME [OLD] (NEW SOURCE…)`; a package that is new has no old version.
                let old = words.next()?.strip_prefix('[')?.strip_suffix(']')?;
                let new = words.next()?.strip_prefix('(')?;
                Some(format!("changes {name} from {old} to {new}"))
            }
            ("Remv", name) => Some(format!("removes {name}")),
            _ => None,
        }
    };
    plan.lines().filter_map(change).collect()
}

/// Runs apt-get as root, which adds what it says to `log`; whether it succeeded.
fn apt_get(words: &[&str], log: &Path) -> Result<bool> {
    let context = || format!("Cannot write {}", log.display());
    if let Some(folder) = log.parent() {
        cache::make_folder(folder)?;
    }
    let file = fs::File::options().create(true).append(true).open(log);
    let file = file.with_context(context)?;
    let mut root = as_root("env").context("There is no way to become root any more")?;
    let status = root
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(words)
        .stdin(Stdio::null())
        .stdout(file.try_clone().with_context(context)?)
        .stderr(file)
        .status()
        .context("Cannot start apt-get")?;
    Ok(status.success())
}

/// A command that runs `program` as root, if that is possible without asking.
fn as_root(program: &str) -> Option<Command> {
    if nix::unistd::geteuid().is_root() {
        return Some(Command::new(program));
    }
    let works = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    works.then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_several_groups_are_named_once() {
        let all = needed(&Group::ALL);
        let essential = all
            .iter()
            .filter(|package| package.name == "build-essential")
            .count();
        assert_eq!(essential, 1);
        assert!(all.iter().any(|package| package.name == "busybox-static"));
    }

    #[test]
    fn a_plan_tells_what_becomes_of_packages_that_are_there() {
        let plan = "Reading package lists...\n\
            Inst rustc-web [1.85.0+dfsg3-1] (1.96.0+dfsg1-1 Debian:12 [amd64])\n\
            Inst cargo-web (1.96.0+dfsg1-1 Debian:12 [amd64])\n\
            Remv rust-web-old [1.0]\n\
            Conf cargo-web (1.96.0+dfsg1-1 Debian:12 [amd64])\n";
        assert_eq!(
            changes(plan),
            [
                "changes rustc-web from 1.85.0+dfsg3-1 to 1.96.0+dfsg1-1",
                "removes rust-web-old"
            ]
        );
    }

    #[test]
    fn one_group_brings_only_its_own_packages() {
        let guest = ["busybox-static", "libblas3"];
        assert_eq!(names(&needed(&[Group::Guest])), guest);
    }

    #[test]
    fn every_package_is_listed_with_its_purpose() {
        let list = describe(COMMON);
        assert!(list
            .lines()
            .all(|line| line.split_whitespace().count() >= 2));
        assert_eq!(list.lines().count(), COMMON.len());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel of ours: what it is built from, and how.
//!
//! `make tinyconfig`, then the lines of `kernel/base.config` and of the fragments of its version and variant,
//! each of which must survive the kernel's own configuration rules. Source and build tree stay: modules
//! are built against them. All kernels of a version are built from one source tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};

use super::config::{self, lost_lines, options, Config};
use super::kind::{Kind, Version};
use super::{read, source, Kernel, Variant};
use crate::artifacts::{Artifacts, Linux};
use crate::cache::{self, Entry, Key};
use crate::fetch::{self, Source};
use crate::host_packages;
use crate::progress::{Expected, Progress};
use crate::rust_for_kernel::Toolchain;
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 1;
/// Source, build tree and archive.
const NEEDED_MIB: u64 = 3500;
/// What is still to be done when this is done.
pub const TITLE: &str = "Building the guest kernel";
/// Folders of the source that no x86 build reads; without them it unpacks in half the time.
const LEFT_OUT: &[&str] = &["drivers/gpu/drm/amd/include", "arch/*/boot/dts"];

/// A finished build, as its stamp tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    image: PathBuf,
    vmlinux: PathBuf,
    build_dir: PathBuf,
    version: String,
    key: String,
    seconds: f64,
    #[serde(default)]
    variant: Variant,
    #[serde(default)]
    series: Version,
}

impl Stamp {
    /// The kernel that `toolchain` built.
    fn kernel(self, toolchain: &Toolchain) -> Kernel {
        let Stamp {
            variant, series, ..
        } = self;
        let kind = Kind {
            version: series,
            variant,
        };
        let config = Config::parse(&kind.fragment());
        let variables = toolchain.make_variables();
        Kernel {
            name: kind.name().into(),
            image: self.image,
            vmlinux: self.vmlinux,
            // The kernel's build leaves this link.
            source: self.build_dir.join("source"),
            driver_dir: self.build_dir.with_file_name("driver"),
            build_dir: self.build_dir,
            version: self.version,
            key: self.key,
            seconds: self.seconds,
            compilers: None,
            early_modules: Vec::new(),
            make_variables: [variables, variant.make_variables()].concat(),
            packages: variant.packages(),
            config,
        }
    }
}

/// The finished kernel of this checkout.
///
/// # Errors
///
/// It is not built.
pub fn built(kind: Kind) -> Result<Kernel> {
    let toolchain = Toolchain::find()?;
    let key = key(kind, &toolchain)?;
    let stamp: Option<Stamp> = Entry::new("kernel", &key)?.load()?;
    let stamp = stamp.with_context(|| {
        format!("The guest kernel is not built: run ./coax build kernel --kernel {kind}")
    })?;
    Ok(stamp.kernel(&toolchain))
}

/// Builds what is missing of the kernel; packages are installed if `install` says so.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(kind: Kind, install: bool) -> Result<Kernel> {
    if let Ok(kernel) = built(kind) {
        return Ok(kernel);
    }
    cache::check_paths()?;
    let started = Instant::now();
    // Packages are installed meanwhile.
    let source = source_of(kind.version)?;
    host_packages::ensure(kind.variant.packages(), install)?;
    let toolchain = Toolchain::find_or_build()?;
    let key = key(kind, &toolchain)?;
    let entry = Entry::new("kernel", &key)?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "the guest kernel")?;

    let tree = unpacked(source, &entry.path("unpack.log"))?;
    let build_dir = entry.path("build");
    cache::make_folder(&build_dir)?;
    let make = Make {
        tree: &tree,
        build_dir: &build_dir,
        toolchain: &toolchain,
        kind,
    };
    let log = entry.path("build.log");
    configure(&make, &log)?;
    compile(&make, &log)?;

    let stamp = Stamp {
        image: build_dir.join("arch/x86/boot/bzImage"),
        vmlinux: build_dir.join("vmlinux"),
        version: read(&build_dir.join("include/config/kernel.release"))?
            .trim()
            .to_owned(),
        build_dir,
        key,
        seconds: started.elapsed().as_secs_f64(),
        variant: kind.variant,
        series: kind.version,
    };
    entry.complete(&stamp)?;
    Ok(stamp.kernel(&toolchain))
}

fn key(kind: Kind, toolchain: &Toolchain) -> Result<String> {
    let Kind { version, variant } = kind;
    let mut key = linux(version)?
        .sources
        .iter()
        .fold(Key::new("kernel", RECIPE), |key, source| {
            key.add("source", source.sha256.as_bytes())
        })
        .add("config", options(config::BASE).as_bytes())
        .add("tools", toolchain.versions()?.as_bytes());
    if version != Version::default() {
        key = key.add("version", options(version.fragment()).as_bytes());
    }
    if variant != Variant::default() {
        key = key
            .add("variant", options(variant.fragment()).as_bytes())
            .add("variant's tools", variant.versions()?.as_bytes());
    }
    Ok(key.finish())
}

/// What is pinned of a version.
fn linux(version: Version) -> Result<Linux> {
    let mut pinned = Artifacts::pinned()?.linux;
    let name = version.name();
    pinned
        .remove(name)
        .with_context(|| format!("artifacts.toml pins no Linux {name}"))
}

/// A pinned source, or the newest of its series.
fn package(linux: &Linux) -> Result<Source> {
    match fetch::first_of(&linux.sources) {
        Ok(source) => Ok(source),
        // A wrong file is refused, never replaced behind the user's back.
        Err(error) if error.is::<crate::artifacts::Refusal>() => Err(error),
        Err(pinned) => fetch::newest_of(&linux.series)
            .map_err(|series| anyhow::anyhow!("{pinned:#}\n{series:#}")),
    }
}

/// The source of a version: a tree that is unpacked, or an archive and the tree that it is to become.
enum Tree {
    There(PathBuf),
    In(Source, PathBuf),
}

/// Fetches the source of a version, which is the same for all its kernels.
fn source_of(version: Version) -> Result<Tree> {
    let folder = cache::root()?.join("source");
    // Archives differ by name if they differ at all.
    let tree_of = |archive: &Path| Some(folder.join(archive.file_stem()?));
    let linux = linux(version)?;
    let mut trees = linux
        .sources
        .iter()
        .filter_map(|archive| tree_of(Path::new(archive.file_name())));
    if let Some(tree) = trees.find(|tree| tree.is_dir()) {
        return Ok(Tree::There(tree));
    }
    let package = package(&linux)?;
    let tree = tree_of(&package.path).context("The archive has no name")?;
    Ok(if tree.is_dir() {
        Tree::There(tree)
    } else {
        Tree::In(package, tree)
    })
}

/// What building a kernel of ours takes: that of Linux 7.2, of `base` and `debug` as it was measured.
pub fn expected(kind: Kind) -> Vec<Expected> {
    let processor = match kind.variant {
        Variant::Base => 900.0,
        Variant::Debug => 1900.0,
        // No whole build was measured: a little more than that of `debug`.
        Variant::Kasan => 2000.0,
    };
    vec![
        Expected {
            title: "Fetching linux-source",
            waiting: 15.0,
            processor: 2.0,
            at_once: 1.0,
            after: &[],
        },
        Expected {
            title: "Unpacking Linux",
            waiting: 0.0,
            processor: 25.0,
            at_once: 1.0,
            after: &["Fetching linux-source", host_packages::TITLE],
        },
        Expected {
            title: TITLE,
            waiting: 0.0,
            processor,
            at_once: 64.0,
            after: &["Unpacking Linux"],
        },
    ]
}

/// Unpacks the source; its folder appears complete or not at all.
fn unpacked(source: Tree, log: &Path) -> Result<PathBuf> {
    let (package, tree) = match source {
        Tree::There(tree) => return Ok(tree),
        Tree::In(package, tree) => (package, tree),
    };
    let progress = Progress::start(&format!("Unpacking Linux {}", package.version));
    source::unpack(&package.path, &tree, LEFT_OUT, log)?;
    progress.finish();
    Ok(tree)
}

/// The kernel's make, with everything it has to be told.
struct Make<'a> {
    tree: &'a Path,
    build_dir: &'a Path,
    toolchain: &'a Toolchain,
    kind: Kind,
}

impl Make<'_> {
    fn command(&self, targets: &[&str]) -> Command {
        let mut make = tool::builder("make");
        make.arg("-C")
            .arg(self.tree)
            .arg(format!("O={}", self.build_dir.display()));
        make.arg(format!("-j{}", tool::jobs()))
            .args(self.toolchain.make_variables())
            .args(self.kind.variant.make_variables());
        make.args(targets);
        make.envs([("KBUILD_BUILD_USER", "coax"), ("KBUILD_BUILD_HOST", "coax")]);
        make.env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970");
        make
    }
}

fn configure(make: &Make, log: &Path) -> Result<()> {
    let path = make.build_dir.join(".config");
    let fragment = make.kind.fragment();
    // A resumed build keeps its configuration, or make would begin anew.
    if path.is_file() && lost_lines(&fragment, &read(&path)?).is_empty() {
        return Ok(());
    }
    let title = "Configuring the kernel";
    tool::run_logged(&mut make.command(&["rustavailable"]), title, log, |_| {})?;
    tool::run_logged(&mut make.command(&["tinyconfig"]), title, log, |_| {})?;
    let config = read(&path)? + "\n" + &fragment;
    fs::write(&path, config).with_context(|| format!("Cannot write {}", path.display()))?;
    tool::run_logged(&mut make.command(&["olddefconfig"]), title, log, |_| {})?;
    let config = read(&path)?;
    let lost = lost_lines(&fragment, &config);
    if !lost.is_empty() {
        fs::remove_file(&path).with_context(|| format!("Cannot remove {}", path.display()))?;
        bail!(
            "The kernel's configuration rules did not keep these lines in images/kernel of the \
             {} kernel:\n  {}",
            make.kind,
            lost.join("\n  ")
        );
    }
    Ok(())
}

fn compile(make: &Make, log: &Path) -> Result<()> {
    let mut progress = Progress::start(TITLE);
    let mut lines = 0;
    let result = tool::run_logged(
        &mut make.command(&["bzImage", "modules"]),
        TITLE,
        log,
        |line| {
            // Steps are indented by two spaces, warnings are not.
            lines += u64::from(line.starts_with("  "));
            progress.update(lines, make.kind.variant.expected_lines());
        },
    );
    match result {
        Ok(()) => progress.finish(),
        Err(_) => progress.abandon(),
    }
    result
}

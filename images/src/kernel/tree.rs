// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel tree of the user's: whether it can be used, what was built in it, and by what.
//!
//! The tree is only read, but for [`make`], which is asked for: everything that is built against it lies in
//! the cache. Whatever its build left is taken as it is; what a build that was not finished, or that another
//! configuration asks for, lacks is said by name.

mod image;
mod place;
mod tools;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, ensure, Context, Error, Result};

use super::config::{self, Config, Lack};
use super::{read, Kernel};
use crate::cache::{self, Entry, Key};
use crate::progress::Progress;
pub use tools::Tools;

/// Version of the key below, raised when what goes into it changes.
const RECIPE: u32 = 1;
/// What a whole build leaves: to boot, and for modules. Contents of the first ones make the key.
const CONTENTS: &[&str] = &[
    "include/config/auto.conf",
    "include/config/kernel.release",
    "include/generated/utsrelease.h",
    "include/generated/utsversion.h",
    "Module.symvers",
];
/// Of these, which are large, the key has length and time: a build that changes nothing leaves both.
const LARGE: &[&str] = &["vmlinux", IMAGE, "rust/libkernel.rmeta"];
const IMAGE: &str = "arch/x86/boot/bzImage";
/// What else the kernel's build leaves, with all of its symbols.
const MAP: &str = "System.map";
/// Drivers for trees that are kept.
const KEPT_TREES: usize = 6;

/// A folder as users name it.
///
/// # Errors
///
/// It is no folder, or has a name that makefiles cannot use.
pub fn parse(word: &OsStr) -> Result<PathBuf, String> {
    let folder = fs::canonicalize(word).map_err(|error| error.to_string())?;
    if !folder.is_dir() {
        return Err("is no folder".into());
    }
    if !cache::makes_can_use(&folder) {
        return Err(format!(
            "{}, and the kernel's makefiles cannot use it: give it another name",
            cache::UNUSABLE
        ));
    }
    Ok(folder)
}

/// The kernel that was built in `folder`.
///
/// # Errors
///
/// One line for what the folder is not or lacks, with what to do.
pub fn open(folder: &Path) -> Result<Kernel> {
    let configured = configuration(folder)?;
    refuse_lacks(folder, &config::lacks(&configured))?;
    let shown = folder.display();
    for file in CONTENTS.iter().chain(LARGE).chain([&MAP]) {
        ensure!(
            folder.join(file).is_file(),
            "{shown} is not built, or not whole: there is no {file}. Run make -C {shown} bzImage modules, or add \
             --build"
        );
    }
    let config = Config::parse(&read(&folder.join("include/config/auto.conf"))?);
    let lacks = config::lacks(&config);
    if let Some(lack) = lacks.iter().find(|lack| lack.needed) {
        bail!(
            "{shown} was last built without {lack}, which its .config has now: run make -C {shown} bzImage modules, \
             or add --build"
        );
    }
    let version = read(&folder.join("include/config/kernel.release"))?;
    let version = version.trim().to_owned();
    place::refuse_old(folder, &version)?;
    image::check(folder, &version)?;
    let tools = Tools::of(folder, &config)?;
    tools.check(folder, &config)?;
    let key = key(folder)?;
    let entry = Entry::new("tree", &key)?;
    Ok(Kernel {
        name: folder.display().to_string(),
        image: folder.join(IMAGE),
        vmlinux: folder.join("vmlinux"),
        build_dir: folder.to_path_buf(),
        source: place::source(folder)?,
        driver_dir: entry.path("driver"),
        version,
        key,
        seconds: 0.0,
        make_variables: tools.make_variables(),
        compilers: None,
        early_modules: Vec::new(),
        packages: &[],
        config,
    })
}

/// That `folder` was removed or moved away while it was in use.
pub(super) fn gone(folder: &Path) -> Error {
    anyhow!("{} is not there any more", folder.display())
}

/// Builds the kernel in `folder`, by what built it before, after the options that its source has and its
/// configuration does not mention are set to their defaults.
///
/// # Errors
///
/// It does not build, with the log's place; or its configuration lacks something.
pub fn make(folder: &Path, install: bool) -> Result<()> {
    let configured = configuration(folder)?;
    let tools = Tools::of_any(folder, &configured, install)?;
    let log = log()?;
    let title = format!("Building {}", folder.display());
    tools.make(
        folder,
        &["olddefconfig"],
        "Configuring the kernel",
        &log,
        |_| {},
    )?;
    refuse_lacks(folder, &config::lacks(&configuration(folder)?))?;
    let progress = Progress::start(&title);
    let made = tools.make(folder, &["bzImage", "modules"], &title, &log, |_| {});
    match made {
        Ok(()) => progress.finish(),
        Err(_) => progress.abandon(),
    }
    made
}

/// An empty log for what make does in a tree.
pub(super) fn log() -> Result<PathBuf> {
    let folder = cache::root()?;
    cache::make_folder(&folder)?;
    let log = folder.join("tree.log");
    fs::write(&log, "").with_context(|| format!("Cannot write {}", log.display()))?;
    Ok(log)
}

/// What `folder` is configured for.
///
/// # Errors
///
/// It is no kernel tree that can be used, is not configured, or is for another architecture.
pub(super) fn configuration(folder: &Path) -> Result<Config> {
    let shown = folder.display();
    place::source(folder)?;
    let path = folder.join(".config");
    ensure!(
        path.is_file(),
        "{shown} is not configured: run make -C {shown} defconfig and ./coax config {shown}, or give the folder \
         that make got as O="
    );
    let text = read(&path)?;
    let config = Config::parse(&text);
    ensure!(
        config.is_on("X86_64"),
        "{shown} is configured for {}, and the device's machine is x86-64",
        architecture(&text)
    );
    Ok(config)
}

/// The architecture as the first lines of a configuration tell it: `# Linux/arm64 7.2.0 …`.
fn architecture(text: &str) -> &str {
    let mut lines = text.lines();
    let named = lines.find_map(|line| line.strip_prefix("# Linux/")?.split_whitespace().next());
    match named {
        None => "another architecture",
        Some("x86") => "32-bit x86",
        Some(name) => name,
    }
}

/// Refuses a tree without what every VM needs.
fn refuse_lacks(folder: &Path, lacks: &[Lack]) -> Result<()> {
    let needed: Vec<&Lack> = lacks.iter().filter(|lack| lack.needed).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let mut list = String::new();
    for lack in needed {
        write!(list, "\n  {lack}")?;
    }
    let shown = folder.display();
    bail!("{shown} is configured without{list}\nRun ./coax config {shown}, which adds exactly these, and build it")
}

/// What was built in `folder`, so that a build of it has another name than the one before.
fn key(folder: &Path) -> Result<String> {
    let mut key = Key::new("tree", RECIPE).add("folder", folder.as_os_str().as_encoded_bytes());
    for file in CONTENTS {
        key = key.add(file, read(&folder.join(file))?.as_bytes());
    }
    for file in LARGE {
        let path = folder.join(file);
        let data =
            fs::metadata(&path).with_context(|| format!("Cannot read {}", path.display()))?;
        let stamp = format!("{} {}.{}", data.len(), data.mtime(), data.mtime_nsec());
        key = key.add(file, stamp.as_bytes());
    }
    Ok(key.finish())
}

/// Removes the drivers for builds of trees that are long gone.
///
/// # Errors
///
/// Names the folder that could not be removed.
pub fn tidy() -> Result<()> {
    cache::remove_old("tree", KEPT_TREES)
}

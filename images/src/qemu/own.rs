// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds QEMU with the patches of `qemu-patches`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{bail, Context, Result};

use super::{Form, Qemu, PROGRAM};
use crate::artifacts::Artifacts;
use crate::cache::{self, Entry, Key};
use crate::fetch;
use crate::host_packages::{self, Group};
use crate::progress::Progress;
use crate::tool;

/// Version of the steps below: part of the key, raised when they change.
const RECIPE: u32 = 1;
/// Source and build tree, while it is built.
const NEEDED_MIB: u64 = 3000;
/// QEMU's build system and what its scripts import.
const PYTHON_PACKAGES: &[&str] = &[
    "meson==1.11.1",
    "tomli==2.5.0",
    "setuptools==80.9.0",
    "wheel==0.48.0",
    "pycotap==1.3.1",
    "qemu.qmp==0.0.6",
];
/// One machine, both accelerators, vhost-user, and nothing that is not used.
const CONFIGURE: &[&str] = &[
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-system",
    "--enable-kvm",
    "--enable-tcg",
    "--enable-vhost-user",
    "--enable-vhost-kernel",
    "--enable-pixman",
    "--enable-fdt=system",
    "--disable-install-blobs",
    "--disable-docs",
    "--disable-werror",
];
/// What QEMU loads, with the folders in which distributions keep it.
const FIRMWARE: &[&str] = &["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];
const FIRMWARE_FOLDERS: &[&str] = &["/usr/share/seabios", "/usr/share/qemu", "/usr/lib/qemu"];

/// The finished QEMU of this checkout.
///
/// # Errors
///
/// It is not built.
pub fn built() -> Result<Qemu> {
    Entry::new("qemu", &key()?)?
        .load()?
        .context("QEMU is not built: run ./coax build qemu")
}

/// Builds what is missing of QEMU; packages are installed if `install` says so.
///
/// # Errors
///
/// Says which step failed and where its log is.
pub fn build(install: bool) -> Result<Qemu> {
    if let Ok(qemu) = built() {
        return Ok(qemu);
    }
    host_packages::ensure(&[Group::Qemu], install)?;
    let started = Instant::now();
    let entry = Entry::new("qemu", &key()?)?;
    entry.create()?;
    cache::check_space(&entry.path(""), NEEDED_MIB, "QEMU")?;
    let log = entry.path("build.log");

    let tree = patched_source(&entry, &log)?;
    let build_dir = entry.path("build");
    if !build_dir.join("build.ninja").is_file() {
        configure(&tree, &build_dir, &entry, &log)?;
    }
    compile(&build_dir, &log)?;

    let version = fs::read_to_string(tree.join("VERSION")).context("Cannot read QEMU's version")?;
    let version = version.trim().to_owned();
    let program = entry.path(PROGRAM);
    fs::copy(build_dir.join(PROGRAM), &program)
        .with_context(|| format!("Cannot write {}", program.display()))?;
    let firmware = entry.path("firmware");
    copy_firmware(&firmware)?;
    let seconds = started.elapsed().as_secs_f64();
    let qemu = Qemu {
        name: String::new(),
        program,
        version,
        firmware: vec![firmware],
        form: Form::OneFunction,
        seconds,
    };
    entry.complete(&qemu)?;
    // Only needed to resume a build that has not been completed.
    for folder in [build_dir, tree, entry.path("python")] {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("Cannot remove {}", folder.display()))?;
    }
    Ok(qemu)
}

fn patches() -> PathBuf {
    cache::checkout().join("qemu-patches")
}

fn key() -> Result<String> {
    let artifacts = Artifacts::pinned()?;
    let mut key = Key::new("qemu", RECIPE);
    for source in &artifacts.qemu {
        key = key.add("source", source.sha256.as_bytes());
    }
    for word in PYTHON_PACKAGES.iter().chain(CONFIGURE) {
        key = key.add("word", word.as_bytes());
    }
    for patch in series()? {
        key = key.add_path(&patch)?;
    }
    Ok(key.finish())
}

/// The patches in their order.
fn series() -> Result<Vec<PathBuf>> {
    let path = patches().join("series");
    let text =
        fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))?;
    Ok(parse_series(&text)
        .map(|name| patches().join(name))
        .collect())
}

fn parse_series(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Fetches, unpacks and patches once; the folder appears complete or not at all.
fn patched_source(entry: &Entry, log: &Path) -> Result<PathBuf> {
    let tree = entry.path("source");
    if tree.is_dir() {
        return Ok(tree);
    }
    let source = fetch::first_of(&Artifacts::pinned()?.qemu)?;
    let progress = Progress::start("Unpacking and patching QEMU");
    tool::unpack_source(&source.path, &tree, &[], "Unpacking QEMU", log, |part| {
        for patch in series()? {
            tool::run_logged(
                tool::builder("patch")
                    .args(["-p1", "--fuzz=0", "--silent", "--input"])
                    .arg(&patch)
                    .current_dir(part),
                &format!("Applying {}", patch.display()),
                log,
                |_| {},
            )?;
        }
        Ok(())
    })?;
    progress.finish();
    Ok(tree)
}

fn configure(tree: &Path, build_dir: &Path, entry: &Entry, log: &Path) -> Result<()> {
    let progress = Progress::start("Configuring QEMU");
    let python = entry.path("python");
    let title = "Making QEMU's Python folder";
    let mut venv = tool::builder("/usr/bin/python3");
    venv.args(["-m", "venv", "--clear"]).arg(&python);
    tool::run_logged(&mut venv, title, log, |_| {})?;
    let mut pip = tool::builder(python.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PYTHON_PACKAGES);
    tool::run_logged(&mut pip, title, log, |_| {})?;

    cache::make_folder(build_dir)?;
    let mut configure = tool::builder(tree.join("configure"));
    configure
        .arg(format!("--python={}", python.join("bin/python3").display()))
        .args(CONFIGURE)
        .current_dir(build_dir);
    tool::run_logged(&mut configure, "Configuring QEMU", log, |_| {})?;
    progress.finish();
    Ok(())
}

fn compile(build_dir: &Path, log: &Path) -> Result<()> {
    let mut progress = Progress::start("Building QEMU");
    let result = tool::run_logged(
        tool::builder("ninja").arg(PROGRAM).current_dir(build_dir),
        "Building QEMU",
        log,
        |line| {
            if let Some((done, total)) = parse_ninja(line) {
                progress.update(done, total);
            }
        },
    );
    match result {
        Ok(()) => progress.finish(),
        Err(_) => progress.abandon(),
    }
    result
}

/// `[12/1764] Compiling …` → (12, 1764).
fn parse_ninja(line: &str) -> Option<(u64, u64)> {
    let (counts, _) = line.strip_prefix('[')?.split_once(']')?;
    let (done, total) = counts.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

/// Copies what QEMU loads into the cache, so that later runs do not depend on the packages.
fn copy_firmware(folder: &Path) -> Result<()> {
    cache::make_folder(folder)?;
    for name in FIRMWARE {
        let found = FIRMWARE_FOLDERS
            .iter()
            .map(|other| Path::new(other).join(name));
        let Some(file) = found.into_iter().find(|file| file.is_file()) else {
            bail!("{name} is in none of {}", FIRMWARE_FOLDERS.join(", "));
        };
        fs::copy(&file, folder.join(name))
            .with_context(|| format!("Cannot copy {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_is_read_in_order_without_comments() {
        let text = "# base: v1\n0001-a.patch\n\n  0002-b.patch  \n# end\n";
        assert_eq!(
            parse_series(text).collect::<Vec<_>>(),
            ["0001-a.patch", "0002-b.patch"]
        );
    }

    #[test]
    fn ninja_counts_are_read() {
        assert_eq!(
            parse_ninja("[12/1764] Compiling C object"),
            Some((12, 1764))
        );
        assert_eq!(parse_ninja("warning: [x]"), None);
        assert_eq!(parse_ninja("[x/y] z"), None);
    }

    #[test]
    fn patches_of_the_series_exist() {
        for patch in series().expect("part of the checkout") {
            assert!(patch.is_file(), "{}", patch.display());
        }
    }
}

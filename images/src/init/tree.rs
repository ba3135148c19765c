// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a tree of the host the root file system.
//!
//! The tree comes over virtio-fs, read-only on both sides; over it lies a layer in memory that takes
//! what is written. What is the kernel's own or only of the moment (`/proc`, `/sys`, `/dev`,
//! `/run`, `/tmp`) is the guest's, and the small root file system that this program was started
//! from stays in reach as [`OWN_ROOT`].

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use coax_images::job::{OWN_ROOT, TREE_TAG};
use nix::mount::{mount, MsFlags};

use crate::mounts::{make_and_mount, mount_all};

/// The tree as the host has it.
const LOWER: &str = "/coax/tree";
/// What is written, and where the overlay prepares it.
const SCRATCH: &str = "/coax/scratch";
const UPPER: &str = "/coax/scratch/upper";
const WORK: &str = "/coax/scratch/work";
/// Both together, before they become the root.
const MERGED: &str = "/coax/root";
/// Programs that come with the guest, before the tree is the root.
const OWN_PROGRAMS: &str = "/bin";
/// The guest's name, for prompts.
const HOST_NAME: &str = "coax";

/// Makes the tree the root of this process and of those that it starts. A `directory` that the
/// guest's own file systems would hide, such as one in `/tmp`, stays in sight.
///
/// # Errors
///
/// Names what could not be mounted.
pub fn enter(directory: Option<&str>) -> Result<()> {
    // Programs talk to themselves over it.
    start_loopback();
    nix::unistd::sethostname(HOST_NAME).context("Cannot set the host's name")?;
    merge()?;
    mount_all(MERGED)?;
    if let Some(directory) = directory {
        uncover(directory)?;
    }
    // Without what is mounted in it: the mounts above are where programs look for them.
    bind("/", &format!("{MERGED}{OWN_ROOT}"))?;
    link_own_programs()?;
    std::env::set_current_dir(MERGED).with_context(|| format!("Cannot enter {MERGED}"))?;
    let nothing: Option<&str> = None;
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing)
        .context("Cannot move the tree to the root")?;
    nix::unistd::chroot(".").context("Cannot make the tree the root")?;
    std::env::set_current_dir("/").context("Cannot enter the tree")
}

/// The tree with the layer over it, at [`MERGED`].
fn merge() -> Result<()> {
    fs::create_dir_all(LOWER).with_context(|| format!("Cannot make {LOWER}"))?;
    let nothing: Option<&str> = None;
    mount(
        Some(TREE_TAG),
        LOWER,
        Some("virtiofs"),
        MsFlags::MS_RDONLY,
        nothing,
    )
    .with_context(|| format!("Cannot mount the host's tree {TREE_TAG}"))?;
    make_and_mount("tmpfs", SCRATCH, MsFlags::empty(), "mode=755")?;
    for folder in [UPPER, WORK] {
        fs::create_dir(folder).with_context(|| format!("Cannot make {folder}"))?;
    }
    // The top folder's permissions are those of the upper layer.
    let mode = fs::metadata(LOWER)
        .context("Cannot look at the tree")?
        .permissions()
        .mode();
    fs::set_permissions(UPPER, fs::Permissions::from_mode(mode))
        .with_context(|| format!("Cannot set the permissions of {UPPER}"))?;
    let layers = format!("lowerdir={LOWER},upperdir={UPPER},workdir={WORK}");
    make_and_mount("overlay", MERGED, MsFlags::empty(), &layers)
}

/// Mounts the tree's `directory` over the file system of the guest that hides it, if one does.
fn uncover(directory: &str) -> Result<()> {
    // A second look at the tree, in which nothing is mounted.
    let bare = "/coax/bare";
    bind(MERGED, bare)?;
    let (wanted, seen) = (format!("{bare}{directory}"), format!("{MERGED}{directory}"));
    if Path::new(&wanted).is_dir() && !Path::new(&seen).is_dir() {
        bind(&wanted, &seen)?;
    }
    Ok(())
}

/// Links to the programs that come with the guest where login shells look, which set `PATH` anew. A
/// program that the tree has by the same name stays.
fn link_own_programs() -> Result<()> {
    let folder = format!("{MERGED}/usr/local/bin");
    if !Path::new(&folder).is_dir() {
        return Ok(());
    }
    for entry in
        fs::read_dir(OWN_PROGRAMS).with_context(|| format!("Cannot read {OWN_PROGRAMS}"))?
    {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let own = format!("{OWN_PROGRAMS}/{name}");
        // What busybox stands in for, the tree has itself.
        let of_busybox = fs::canonicalize(&own).is_ok_and(|file| file.ends_with("busybox"));
        let link = format!("{folder}/{name}");
        if of_busybox || fs::symlink_metadata(&link).is_ok() {
            continue;
        }
        symlink(format!("{OWN_ROOT}{own}"), &link)
            .with_context(|| format!("Cannot make the link {link}"))?;
    }
    Ok(())
}

fn bind(from: &str, to: &str) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("Cannot make {to}"))?;
    let nothing: Option<&str> = None;
    mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing)
        .with_context(|| format!("Cannot show {from} at {to}"))
}

/// Takes the loopback interface up. A kernel without one has programs that do without.
fn start_loopback() {
    if let Err(error) = loopback_up() {
        eprintln!("coax-init: no loopback: {error:#}");
    }
}

fn loopback_up() -> Result<()> {
    let status = Command::new("/bin/busybox")
        .args(["ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .status()
        .context("Cannot start busybox")?;
    ensure!(status.success(), "ip ended with {status}");
    Ok(())
}

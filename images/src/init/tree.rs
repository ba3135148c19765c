// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a tree of the host the root file system.
//!
//! The tree comes over virtio-fs, read-only on both sides; over it lies a layer in memory that takes
//! what is written. What is the kernel's own or only of the moment (`/proc`, `/sys`, `/dev`,
//! `/run`, `/tmp`) is the guest's, and the small root file system that this program was started
//! from stays in reach as [`OWN_ROOT`].
//!
//! Any of these places may be a link in the tree, to where it is on the host. So the tree becomes the root
//! first, and all else is mounted by names as programs see them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use coax_images::job::{OWN_ROOT, TREE_TAG};
use nix::mount::{mount, MsFlags};
use rustix::fs::CWD;
use rustix::mount::{move_mount, open_tree, MoveMountFlags, OpenTreeFlags};

use crate::mounts::{make_and_mount, make_place, mount_all};
use crate::names;

/// The tree as the host has it.
const LOWER: &str = "/coax/tree";
/// What is written, and where the overlay prepares it.
const SCRATCH: &str = "/coax/scratch";
const UPPER: &str = "/coax/scratch/upper";
const WORK: &str = "/coax/scratch/work";
/// Both together, before they become the root.
const MERGED: &str = "/coax/root";
/// Programs that come with the guest.
const OWN_PROGRAMS: &str = "/bin";
/// The BLAS drop-in, where it comes with the guest and where it is on any machine.
const DROP_IN: &str = "/usr/lib/coax";

/// Makes the tree the root of this process and of those that it starts. A `directory` that the
/// guest's own file systems would hide, such as one in `/tmp`, stays in sight.
///
/// # Errors
///
/// Names what could not be mounted.
pub fn enter(directory: Option<&Path>) -> Result<()> {
    merge()?;
    // Without what is mounted in it: the mounts of the tree are where programs look for them.
    let own_root = look_at(Path::new("/"))?;
    become_root(MERGED)?;
    let hidden = directory.filter(|directory| directory.is_dir());
    let hidden = hidden.map(|directory| anyhow::Ok((directory, look_at(directory)?)));
    let hidden = hidden.transpose()?;
    mount_all()?;
    show(&own_root, Path::new(OWN_ROOT))?;
    if let Some((directory, folder)) = hidden {
        if !directory.is_dir() {
            show(&folder, directory)?;
        }
    }
    link_own_programs()?;
    offer_drop_in()?;
    names::add_to_hosts();
    Ok(())
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
    make_and_mount("tmpfs", SCRATCH, "mode=755")?;
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
    make_and_mount("overlay", MERGED, &layers)
}

/// Makes what is mounted at `place` the root.
fn become_root(place: &str) -> Result<()> {
    std::env::set_current_dir(place).with_context(|| format!("Cannot enter {place}"))?;
    let nothing: Option<&str> = None;
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing)
        .context("Cannot move the tree to the root")?;
    nix::unistd::chroot(".").context("Cannot make the tree the root")?;
    std::env::set_current_dir("/").context("Cannot enter the tree")
}

/// A second look at a folder, in which nothing is mounted, to be shown somewhere else.
fn look_at(folder: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, folder, flags).with_context(|| format!("Cannot take {} along", folder.display()))
}

fn show(folder: &OwnedFd, at: &Path) -> Result<()> {
    make_place(at)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(folder.as_fd(), "", CWD, at, flags)
        .with_context(|| format!("Cannot show a folder at {}", at.display()))
}

/// Links to the programs that come with the guest where login shells look, which set `PATH` anew. A
/// program that the tree has by the same name stays.
fn link_own_programs() -> Result<()> {
    let folder = Path::new("/usr/local/bin");
    if !folder.is_dir() {
        return Ok(());
    }
    let own = format!("{OWN_ROOT}{OWN_PROGRAMS}");
    for entry in fs::read_dir(&own).with_context(|| format!("Cannot read {own}"))? {
        let entry = entry.with_context(|| format!("Cannot read {own}"))?;
        // What busybox stands in for, the tree has itself.
        let of_busybox = fs::canonicalize(entry.path()).is_ok_and(|file| file.ends_with("busybox"));
        let link = folder.join(entry.file_name());
        if of_busybox || fs::symlink_metadata(&link).is_ok() {
            continue;
        }
        symlink(entry.path(), &link)
            .with_context(|| format!("Cannot make the link {}", link.display()))?;
    }
    Ok(())
}

/// Has the BLAS drop-in where it is on any machine, unless the tree has one there, or no libraries at all.
fn offer_drop_in() -> Result<()> {
    let place = Path::new(DROP_IN);
    let libraries = place.parent().is_some_and(Path::is_dir);
    if !libraries || fs::symlink_metadata(place).is_ok() {
        return Ok(());
    }
    // Not a link: what a program finds there is to have the place's own name.
    let folder = look_at(Path::new(&format!("{OWN_ROOT}{DROP_IN}")))?;
    show(&folder, place)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mounts the kernel's file systems, and makes what programs expect in them.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{mount, MsFlags};

/// A file system of the kernel.
struct Mount {
    kind: &'static str,
    target: &'static str,
    data: &'static str,
    /// Kernels of users may lack it.
    optional: bool,
}

const fn required(kind: &'static str, target: &'static str, data: &'static str) -> Mount {
    Mount {
        kind,
        target,
        data,
        optional: false,
    }
}

const fn optional(kind: &'static str, target: &'static str) -> Mount {
    Mount {
        kind,
        target,
        data: "",
        optional: true,
    }
}

/// In order: later ones lie in earlier ones.
const MOUNTS: &[Mount] = &[
    required("proc", "/proc", ""),
    required("sysfs", "/sys", ""),
    required("devtmpfs", "/dev", ""),
    required("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    required("tmpfs", "/dev/shm", "mode=1777"),
    required("tmpfs", "/tmp", "mode=1777"),
    required("tmpfs", "/run", "mode=755"),
    optional("debugfs", "/sys/kernel/debug"),
    optional("tracefs", "/sys/kernel/tracing"),
    optional("cgroup2", "/sys/fs/cgroup"),
    optional("hugetlbfs", "/dev/hugepages"),
];

/// Links in `/dev` that udev, which is not here, makes: shells and scripts go by them.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts everything, and makes links and folders in it.
///
/// # Errors
///
/// Names the file system that a guest cannot do without and that could not be mounted, or what could not
/// be made.
pub fn mount_all() -> Result<()> {
    for entry in MOUNTS {
        let mounted = make_and_mount(entry.kind, entry.target, entry.data);
        if !entry.optional {
            mounted?;
        }
    }
    for (target, link) in LINKS {
        // The file system is the same in a root that comes later.
        if fs::symlink_metadata(link).is_err() {
            symlink(target, link).with_context(|| format!("Cannot make the link {link}"))?;
        }
    }
    // Where any program may put its lock files.
    let locks = "/run/lock";
    make_place(Path::new(locks))?;
    fs::set_permissions(locks, fs::Permissions::from_mode(0o1777))
        .with_context(|| format!("Cannot set the permissions of {locks}"))
}

/// Mounts a file system, whose source is called like its kind, on `target`, which is made if it is not
/// there.
///
/// # Errors
///
/// Names the file system and the place.
pub fn make_and_mount(kind: &str, target: &str, data: &str) -> Result<()> {
    // Folders of sysfs are there or cannot be made; mounting tells which.
    let _ = make_place(Path::new(target));
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(data))
        .with_context(|| format!("Cannot mount {kind} on {target}"))
}

/// Makes a folder to mount on, where a link may lead to one. A link that leads nowhere, or a file, gives way.
///
/// # Errors
///
/// Names the folder that could not be made.
pub fn make_place(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_place(parent)?;
    }
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).with_context(|| format!("Cannot replace {}", path.display()))?;
    }
    fs::create_dir(path).with_context(|| format!("Cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_made_where_links_lead_and_instead_of_those_that_lead_nowhere() {
        let top = std::env::temp_dir().join(format!("coax-places-{}", std::process::id()));
        fs::create_dir_all(top.join("real")).expect("writable");
        symlink("real", top.join("link")).expect("writable");
        symlink("nowhere/at/all", top.join("dangling")).expect("writable");
        fs::write(top.join("file"), "").expect("writable");
        for name in ["link/tmp", "dangling", "dangling/run", "file/a/b", "new"] {
            make_place(&top.join(name)).expect(name);
            assert!(top.join(name).is_dir(), "{name}");
        }
        assert!(top.join("real/tmp").is_dir());
        fs::remove_dir_all(&top).expect("its owner");
    }
}

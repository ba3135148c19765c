// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mounts the kernel's file systems.

use std::fs;

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

/// Mounts everything below `root`.
///
/// # Errors
///
/// Names the file system that a guest cannot do without and that could not be mounted.
pub fn mount_all(root: &str) -> Result<()> {
    for entry in MOUNTS {
        let target = format!("{root}{}", entry.target);
        let mounted = make_and_mount(entry.kind, &target, MsFlags::empty(), entry.data);
        if !entry.optional {
            mounted?;
        }
    }
    Ok(())
}

/// Mounts a file system, whose source is called like its kind, on `target`, which is made if it is not
/// there.
///
/// # Errors
///
/// Names the file system and the place.
pub fn make_and_mount(kind: &str, target: &str, flags: MsFlags, data: &str) -> Result<()> {
    // Folders of sysfs are there or cannot be made; mounting tells which.
    let _ = fs::create_dir_all(target);
    mount(Some(kind), target, Some(kind), flags, Some(data))
        .with_context(|| format!("Cannot mount {kind} on {target}"))
}

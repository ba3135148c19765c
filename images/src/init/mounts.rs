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

/// Mounts everything.
///
/// # Errors
///
/// Names the file system that a guest cannot do without and that could not be mounted.
pub fn mount_all() -> Result<()> {
    for entry in MOUNTS {
        let mounted = make_and_mount(entry);
        if !entry.optional {
            mounted.with_context(|| format!("Cannot mount {} on {}", entry.kind, entry.target))?;
        }
    }
    Ok(())
}

fn make_and_mount(entry: &Mount) -> Result<()> {
    // Folders of sysfs are there or cannot be made; mounting tells which.
    let _ = fs::create_dir_all(entry.target);
    let flags = MsFlags::empty();
    mount(
        Some(entry.kind),
        entry.target,
        Some(entry.kind),
        flags,
        Some(entry.data),
    )?;
    Ok(())
}

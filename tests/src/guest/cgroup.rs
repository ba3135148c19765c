// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Control groups of a case's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::process::fork;
use super::wait::until;
use crate::case::CaseResult;

/// The root of all groups.
const ROOT: &str = "/sys/fs/cgroup";

/// Whether the kernel has this controller.
pub fn has(controller: &str) -> Result<bool> {
    let path = Path::new(ROOT).join("cgroup.controllers");
    let text = fs::read_to_string(&path).context(path.display().to_string())?;
    Ok(text.split_whitespace().any(|word| word == controller))
}

/// Runs `body` in a child in a group of its own below the root, with this controller, and demands that it
/// succeeds; `name` may be of several folders, and `body` is told the last one. Nothing is left of them.
pub fn in_a_group(
    controller: &str,
    name: &str,
    body: impl FnOnce(&Path) -> CaseResult,
) -> CaseResult {
    let mut groups = vec![PathBuf::from(ROOT)];
    for part in name.split('/') {
        let above = groups.last().context("The root is there")?;
        let group = above.join(part);
        set(above, "cgroup.subtree_control", &format!("+{controller}"))?;
        fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
        groups.push(group);
    }
    let group = groups.last().context("The root is there")?;
    let ended = fork(|| {
        set(group, "cgroup.procs", "0")?;
        body(group)
    })?
    .succeeds();
    // The driver may still end what the child had.
    until("The group has no task", || {
        Ok(get(group, "cgroup.events")?.contains("populated 0"))
    })?;
    while groups.len() > 1 {
        let group = groups.pop().context("There are two")?;
        fs::remove_dir(&group).with_context(|| group.display().to_string())?;
        let above = groups.last().context("The root is there")?;
        set(above, "cgroup.subtree_control", &format!("-{controller}"))?;
    }
    ended
}

/// Writes a file of the group.
pub fn set(group: &Path, file: &str, text: &str) -> Result<()> {
    let path = group.join(file);
    fs::write(&path, text).with_context(|| format!("{text:?} to {}", path.display()))
}

/// A file of the group.
pub fn get(group: &Path, file: &str) -> Result<String> {
    let path = group.join(file);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a folder is a kernel tree, where its source is, and of which version.
//!
//! A folder that make got as `O=` has a makefile of three lines, which name the source and the folder itself:
//! make in it builds there, wherever it lies now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

/// The oldest kernel that the driver builds against.
const OLDEST: (u32, u32) = (7, 2);

/// Where the source is that `folder` is built from: the folder itself, or another.
///
/// # Errors
///
/// It is no kernel tree, was moved, or its source is gone or too old.
pub fn source(folder: &Path) -> Result<PathBuf> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(super::gone(folder));
    }
    let makefile = makefile(folder)?;
    if let Some(version) = version_in(&makefile) {
        refuse_old(folder, &version)?;
        return Ok(folder.to_path_buf());
    }
    let source = line(&makefile, "include ").and_then(|file| file.strip_suffix("/Makefile"));
    let source = source.with_context(|| {
        format!("{shown} is no kernel tree: give the folder of the source, or that which its make got as O=")
    })?;
    let version = version_in(&self::makefile(Path::new(source))?).with_context(|| {
        format!(
            "{shown} is built from {source}, where there is no source of a kernel any more: put it back, or give \
             another folder"
        )
    })?;
    if let Some(built_in) = line(&makefile, "export KBUILD_OUTPUT = ") {
        ensure!(
            fs::canonicalize(built_in).is_ok_and(|built_in| built_in == folder),
            "{shown} is a copy of {built_in}, or was that once, and make in it still builds there: run make -C \
             {source} O={shown} bzImage modules"
        );
    }
    refuse_old(folder, &version)?;
    Ok(PathBuf::from(source))
}

/// Refuses a `release` of Linux that the driver does not build against.
///
/// # Errors
///
/// Names it, and the oldest that will do.
pub fn refuse_old(folder: &Path, release: &str) -> Result<()> {
    let (major, minor) = OLDEST;
    ensure!(
        numbers(release) >= Some(OLDEST),
        "{} is Linux {release}, and the driver needs {major}.{minor} or later",
        folder.display()
    );
    Ok(())
}

/// Major and minor number of a release.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    number().zip(number())
}

/// The makefile of a folder, if it has one.
fn makefile(folder: &Path) -> Result<String> {
    let path = folder.join("Makefile");
    match fs::read(&path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("Cannot read {}", path.display())),
    }
}

/// The version that the makefile of a kernel's source begins with.
fn version_in(makefile: &str) -> Option<String> {
    let (major, minor) = line(makefile, "VERSION = ").zip(line(makefile, "PATCHLEVEL = "))?;
    Some(format!("{major}.{minor}"))
}

/// What follows `beginning` in the first line that begins so.
fn line<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| Some(line.strip_prefix(beginning)?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_makefiles() {
        let makefile = "# SPDX\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 0\n";
        assert_eq!(version_in(makefile).as_deref(), Some("7.3"));
        assert_eq!(version_in("VERSION = 7\n"), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let is_new_enough = |release| refuse_old(Path::new("/"), release).is_ok();
        for release in ["7.2", "7.2.13-mine+", "7.10.0", "10.0.0-rc1"] {
            assert!(is_new_enough(release), "{release}");
        }
        for release in ["7.1.99", "6.19.2", "next", ""] {
            assert!(!is_new_enough(release), "{release}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a kernel's tree is as it was, file by file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use coax_images::kernel::Kernel;

/// Length, and times of the last change of contents and of anything.
type Stamp = (u64, [i64; 4]);

/// All files and folders of a tree, as they were.
#[derive(Debug, PartialEq, Eq)]
pub struct Untouched(BTreeMap<PathBuf, Stamp>);

impl Untouched {
    /// The source and the build of `kernel` as they are now.
    ///
    /// # Errors
    ///
    /// Names what cannot be read.
    pub fn now(kernel: &Kernel) -> Result<Self> {
        let mut stamps = BTreeMap::new();
        for folder in [&kernel.build_dir, &kernel.source] {
            let real = fs::canonicalize(folder);
            let real = real.with_context(|| format!("Cannot find {}", folder.display()))?;
            add(&real, &mut stamps).with_context(|| format!("Cannot read {}", real.display()))?;
        }
        Ok(Untouched(stamps))
    }

    /// Refuses any change of `kernel` since.
    ///
    /// # Errors
    ///
    /// Names what appeared, changed or went.
    pub fn check(&self, kernel: &Kernel) -> Result<()> {
        let now = Self::now(kernel)?;
        let mut paths = self.0.keys().chain(now.0.keys());
        match paths.find(|path| self.0.get(*path) != now.0.get(*path)) {
            None => Ok(()),
            Some(path) => bail!("{} is not as it was", path.display()),
        }
    }
}

fn add(folder: &Path, stamps: &mut BTreeMap<PathBuf, Stamp>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        let times = [
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
        ];
        stamps.insert(entry.path(), (data.len(), times));
        if data.is_dir() {
            add(&entry.path(), stamps)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_happens_to_a_file_is_seen() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let now = || {
            let mut stamps = BTreeMap::new();
            add(top.path(), &mut stamps).expect("readable");
            stamps
        };
        fs::create_dir(top.path().join("sub")).expect("writable");
        let file = top.path().join("sub/file");
        fs::write(&file, "1").expect("writable");
        let before = now();
        assert_eq!(now(), before);
        fs::write(&file, "22").expect("writable");
        assert_ne!(now(), before);
        let before = now();
        fs::write(top.path().join("sub/new"), "").expect("writable");
        assert_ne!(now(), before);
    }
}

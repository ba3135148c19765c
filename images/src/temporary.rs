// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Folders that go with their owner, even when a signal ends this program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// Folders that are there, for [`remove_all`].
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A folder that is removed when dropped.
#[derive(Debug)]
pub struct TemporaryFolder(TempDir);

impl TemporaryFolder {
    /// Makes an empty folder with a short path: names of sockets have 107 bytes at most.
    ///
    /// # Errors
    ///
    /// Those of making a folder.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("coax-").tempdir()?;
        folders().push(folder.path().to_path_buf());
        Ok(TemporaryFolder(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        folders().retain(|folder| folder != self.0.path());
    }
}

/// Removes all folders, for a program that ends without dropping anything.
pub fn remove_all() {
    for folder in folders().drain(..) {
        // There is nobody left to tell.
        let _ = fs::remove_dir_all(folder);
    }
}

fn folders() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_owner() {
        let folder = TemporaryFolder::new().expect("a temporary folder");
        let path = folder.path().to_path_buf();
        assert!(path.is_dir());
        assert!(folders().contains(&path));
        drop(folder);
        assert!(!path.exists());
        assert!(!folders().contains(&path));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes the folder of [`crate::witness`], and looks whether anything has changed in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use coax_images::temporary::TemporaryFolder;

use crate::witness::{GONE, GUARDED, MOVED, TEXT};

/// What is known of a file or folder: contents, permissions, owner, and when it was changed.
type State = (Option<Vec<u8>>, u32, u32, SystemTime);

/// The folder, as it was when it was made.
pub struct Witness {
    folder: TemporaryFolder,
    before: BTreeMap<PathBuf, State>,
}

impl Witness {
    /// Makes the folder.
    pub fn new() -> Result<Self> {
        let folder = TemporaryFolder::new().context("A folder for the guest to write in")?;
        let (text, contents) = TEXT;
        let files = [
            (text, contents),
            (GONE, ""),
            (MOVED, "moved"),
            (GUARDED, ""),
        ];
        for (name, contents) in files {
            let path = folder.path().join(name);
            path.parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(&path, contents))
                .with_context(|| format!("Writing {}", path.display()))?;
        }
        let before = picture(folder.path())?;
        Ok(Witness { folder, before })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What is not as it was.
    pub fn changes(&self) -> Result<Vec<String>> {
        let after = picture(self.path())?;
        let mut names: Vec<_> = self.before.keys().chain(after.keys()).collect();
        names.sort();
        names.dedup();
        Ok(names
            .into_iter()
            .filter(|name| self.before.get(*name) != after.get(*name))
            .map(|name| format!("the guest has changed {} on the host", name.display()))
            .collect())
    }
}

fn picture(top: &Path) -> Result<BTreeMap<PathBuf, State>> {
    let mut states = BTreeMap::new();
    let mut left = vec![top.to_path_buf()];
    while let Some(path) = left.pop() {
        let state =
            look(&path, &mut left).with_context(|| format!("Looking at {}", path.display()))?;
        states.insert(path, state);
    }
    Ok(states)
}

fn look(path: &Path, folders: &mut Vec<PathBuf>) -> io::Result<State> {
    let metadata = fs::symlink_metadata(path)?;
    let contents = if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            folders.push(entry?.path());
        }
        None
    } else {
        Some(fs::read(path)?)
    };
    Ok((
        contents,
        metadata.mode(),
        metadata.uid(),
        metadata.modified()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_seen() {
        let witness = Witness::new().expect("a temporary folder");
        assert!(witness.changes().expect("readable").is_empty());
        let at = |name| witness.path().join(name);
        fs::write(at("new"), "").expect("writable");
        fs::remove_file(at(GONE)).expect("it is there");
        fs::write(at(TEXT.0), "other").expect("writable");
        let changes = witness.changes().expect("readable").join("\n");
        for name in ["new", GONE, TEXT.0] {
            assert!(changes.contains(&format!("/{name} ")), "{name}: {changes}");
        }
        assert!(!changes.contains(MOVED), "{changes}");
    }
}

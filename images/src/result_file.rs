// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files for results, made before the work that leads to them: a path that cannot be written should not cost
//! a run.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// A file that waits for its result.
#[derive(Debug)]
pub struct ResultFile {
    path: PathBuf,
    file: File,
}

impl ResultFile {
    /// Makes the file that an option names, if it names one.
    ///
    /// # Errors
    ///
    /// Says which path cannot be written.
    pub fn create(path: Option<&Path>) -> Result<Option<Self>> {
        let create = |path: &Path| {
            let file = File::create(path);
            file.with_context(|| cannot_write(path))
                .map(|file| ResultFile {
                    path: path.to_owned(),
                    file,
                })
        };
        path.map(create).transpose()
    }

    /// Has the result written.
    ///
    /// # Errors
    ///
    /// Says which path cannot be written.
    pub fn write(self, write: impl FnOnce(File) -> io::Result<()>) -> Result<()> {
        write(self.file).with_context(|| cannot_write(&self.path))
    }

    /// Writes the result as JSON for people.
    ///
    /// # Errors
    ///
    /// Says which path cannot be written.
    pub fn json(self, result: &impl Serialize) -> Result<()> {
        self.write(|mut file| {
            let text = serde_json::to_string_pretty(result)?;
            writeln!(file, "{text}")
        })
    }
}

fn cannot_write(path: &Path) -> String {
    format!("Cannot write {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_json_and_a_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("result");
        let file = ResultFile::create(Some(&path)).expect("it can be made");
        let file = file.expect("one was asked for");
        file.json(&[1]).expect("it can be written");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text, "[\n  1\n]\n");
        assert!(ResultFile::create(None).is_ok_and(|none| none.is_none()));
    }

    #[test]
    fn errors_name_the_path() {
        let nowhere = Path::new("/nonexistent/result");
        let error = ResultFile::create(Some(nowhere)).expect_err("no folder");
        assert_eq!(error.to_string(), "Cannot write /nonexistent/result");
        let full = ResultFile::create(Some(Path::new("/dev/full")));
        let full = full.expect("every Linux has it").expect("it was asked for");
        let error = full.json(&1).expect_err("it is full");
        assert_eq!(error.to_string(), "Cannot write /dev/full");
    }
}

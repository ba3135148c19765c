// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! JSON lines, to standard output or a file, each one out at once.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use coax_program::output::OutputError;
use coax_program::stream::Waiting;
use serde::Serialize;

/// Where the lines go.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file, with its path.
    File(File, PathBuf),
}

impl Output {
    /// A file that is written anew, or standard output for `-`.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Output::Stdout);
        }
        let file = File::create(path);
        let file = file.with_context(|| format!("Cannot write {}", path.display()))?;
        Ok(Output::File(file, path.to_owned()))
    }

    /// Writes one line, which a reader may wait for.
    pub fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(value).context("Cannot make JSON")?;
        line.push('\n');
        self.raw(line.as_bytes())
    }

    /// Passes lines on that are made already.
    pub fn raw(&mut self, lines: &[u8]) -> Result<()> {
        match self {
            Output::Stdout => {
                let written = Waiting(io::stdout()).write_all(lines);
                Ok(written.map_err(OutputError::stdout)?)
            }
            Output::File(file, path) => file
                .write_all(lines)
                .with_context(|| format!("Cannot write {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_path() {
        let mut full = Output::open(Path::new("/dev/full")).expect("every Linux has it");
        let error = full.line(&1).expect_err("it is full");
        assert_eq!(error.to_string(), "Cannot write /dev/full");
    }
}

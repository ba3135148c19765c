// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! JSON lines, to standard output or a file, each one out at once.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Where the lines go.
pub struct Output(Box<dyn Write>);

impl Output {
    /// A file that is written anew, or standard output for `-`.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self(Box::new(io::stdout())));
        }
        let file =
            File::create(path).with_context(|| format!("Cannot create {}", path.display()))?;
        Ok(Self(Box::new(file)))
    }

    /// Writes one line, which a reader may wait for.
    pub fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(value).context("Cannot make JSON")?;
        line.push('\n');
        self.raw(line.as_bytes())
    }

    /// Passes lines on that are made already.
    pub fn raw(&mut self, lines: &[u8]) -> Result<()> {
        self.0.write_all(lines).context("Cannot write JSON")?;
        self.0.flush().context("Cannot write JSON")
    }
}

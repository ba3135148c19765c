// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the BLAS drop-in reports of the processes that it was loaded into.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use coax_program::outln;

/// What the library reported, a line for each process.
pub struct Reports(pub Vec<String>);

impl Reports {
    /// Reads the library's report, removes it, and shows it.
    pub fn take(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).context("The library reported nothing")?;
        fs::remove_file(file).context("The report cannot be removed")?;
        for line in text.lines() {
            outln!("# {line}")?;
        }
        Ok(Reports(text.lines().map(str::to_owned).collect()))
    }

    /// Sum of a number over all processes; 0 where it is not named.
    pub fn sum(&self, name: &str) -> u64 {
        let key = format!("\"{name}\":");
        let number = |report: &String| -> u64 {
            let Some((_, rest)) = report.split_once(&key) else {
                return 0;
            };
            let digits = rest.find(|c: char| !c.is_ascii_digit());
            rest[..digits.unwrap_or(rest.len())].parse().unwrap_or(0)
        };
        self.0.iter().map(number).sum()
    }
}

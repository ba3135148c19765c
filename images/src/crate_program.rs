// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs that cargo builds from the registry of crates, for distributions that lack them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::artifacts::Artifacts;
use crate::cache;
use crate::progress::Progress;
use crate::tool;

/// A program pinned in `artifacts.toml`.
#[derive(Clone, Copy, Debug)]
pub struct CrateProgram {
    /// The crate's name.
    pub name: &'static str,
    /// The program's name.
    pub program: &'static str,
    /// Crates that it is made of, for the estimate.
    pub crates: u64,
}

impl CrateProgram {
    /// Where the program is once it is built.
    ///
    /// # Errors
    ///
    /// It is not pinned, or there is no cache folder.
    pub fn path(&self) -> Result<PathBuf> {
        Ok(self.root()?.join("bin").join(self.program))
    }

    fn root(&self) -> Result<PathBuf> {
        let pinned = Artifacts::pinned()?;
        let version = &pinned.crate_named(self.name)?.version;
        let folder = format!("{}-{version}", self.name);
        Ok(cache::root()?.join("tools").join(folder))
    }

    /// Builds the program.
    ///
    /// # Errors
    ///
    /// Says where the build's log is.
    pub fn build(&self) -> Result<()> {
        let pinned = Artifacts::pinned()?;
        let version = &pinned.crate_named(self.name)?.version;
        let root = self.root()?;
        cache::make_folder(&root)?;
        let title = format!("Building {}", self.program);
        let mut progress = Progress::start(&title);
        let mut compiled = 0;
        tool::run_logged(
            tool::builder("cargo")
                .args(["install", "--locked", self.name, "--version", version])
                .arg("--root")
                .arg(&root)
                .arg("--target-dir")
                .arg(root.join("build"))
                .current_dir(&root),
            &title,
            &root.join("build.log"),
            |line| {
                compiled += u64::from(line.trim_start().starts_with("Compiling"));
                progress.update(compiled, self.crates);
            },
        )?;
        progress.finish();
        // Only the program is needed.
        let build = root.join("build");
        fs::remove_dir_all(&build).with_context(|| format!("Cannot remove {}", build.display()))
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Adds to the configuration of a tree of the user's what it lacks, and nothing else.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::config::{in_later_versions, lacks, on_top_of, Lack};
use super::read;
use super::tree::{self, Tools};
use crate::cache;

/// The copy of the configuration as it was.
const COPY: &str = ".config.before-coax";

/// What came of it.
#[derive(Debug)]
pub struct Merged {
    /// What was lacking and was added.
    pub added: Vec<Lack>,
    /// What the tree's own rules did not take.
    pub refused: Vec<Lack>,
    /// The configuration as it was, if anything was lacking.
    pub copy: Option<PathBuf>,
}

/// What the tree's configuration lacks for every VM, or with `all` for some tests and programs too.
///
/// # Errors
///
/// The folder is no configured tree for x86-64.
pub fn lacking(folder: &Path, all: bool) -> Result<Vec<Lack>> {
    let mut lacking = lacks(&tree::configuration(folder)?);
    lacking.retain(|lack| all || lack.needed);
    Ok(lacking)
}

/// Adds the options that every VM needs, or with `all` those too that only some tests and programs use, and
/// lets the tree's make settle what depends on them. Packages are installed if `install` says so.
///
/// # Errors
///
/// The folder is no configured tree for x86-64, cannot be written, or its make fails.
pub fn merge(folder: &Path, all: bool, install: bool) -> Result<Merged> {
    let lacking = lacking(folder, all)?;
    if lacking.is_empty() {
        return Ok(Merged {
            added: lacking,
            refused: Vec::new(),
            copy: None,
        });
    }
    let tools = Tools::of_any(folder, &tree::configuration(folder)?, install)?;
    let (path, copy) = (folder.join(".config"), folder.join(COPY));
    let before = read(&path)?;
    cache::write_atomically(&copy, before.as_bytes())?;
    // Make drops the names that this version does not have.
    let lines = lacking.iter().flat_map(|lack| {
        let later = in_later_versions(lack.line);
        [Some(lack.line.to_owned()), later].into_iter().flatten()
    });
    let fragment = lines.fold(String::new(), |text, line| text + &line + "\n");
    cache::write_atomically(&path, on_top_of(&before, &fragment).as_bytes())?;
    let log = tree::log()?;
    tools.make(
        folder,
        &["olddefconfig"],
        "Configuring the kernel",
        &log,
        |_| {},
    )?;
    let still = lacks(&tree::configuration(folder)?);
    let (refused, added) = lacking.into_iter().partition(|lack| still.contains(lack));
    Ok(Merged {
        added,
        refused,
        copy: Some(copy),
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax config`.

use std::process::ExitCode;

use anyhow::Result;

use super::exit_code;
use crate::cli::Configure;
use coax_images::kernel::merge;
use coax_program::outln;

/// Adds what the tree lacks, and prints that, and what its rules refused.
pub fn run(options: &Configure, install: bool) -> Result<ExitCode> {
    let shown = options.tree.display();
    if options.list {
        for lack in merge::lacking(&options.tree, options.all)? {
            outln!("{lack}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let merged = merge::merge(&options.tree, options.all, install)?;
    for lack in &merged.added {
        outln!("added    {lack}")?;
    }
    for lack in &merged.refused {
        outln!("refused  {lack}")?;
    }
    match &merged.copy {
        None => outln!("{shown} has all of it")?,
        Some(copy) => outln!("The configuration as it was is {}", copy.display())?,
    }
    if !merged.refused.is_empty() {
        outln!(
            "What was refused depends on something else: / in make -C {shown} menuconfig tells on what"
        )?;
    } else if merged.copy.is_some() {
        outln!("Build it: make -C {shown} bzImage modules, or add --build")?;
    }
    Ok(exit_code(merged.refused.is_empty()))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax clean`.

use std::fs;
use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::{Clean, Leftover};
use coax_images::cache::{self, Lock};
use coax_program::outln;

/// Removes the part asked for, and prints its folder.
pub fn run(options: &Clean) -> Result<ExitCode> {
    let root = cache::root()?;
    let folders = match options.what {
        Leftover::Kernel => vec!["kernel", "source"],
        Leftover::Qemu => vec!["qemu"],
        Leftover::Guest => vec!["guest", "tree"],
        Leftover::Downloads => vec!["downloads"],
        Leftover::All => {
            vec![
                "kernel",
                "source",
                "qemu",
                "guest",
                "tree",
                "sqlite",
                "downloads",
                "tools",
                "apt",
                "test",
            ]
        }
    };
    let _lock = Lock::take()?;
    for folder in folders {
        let folder = root.join(folder);
        match fs::remove_dir_all(&folder) {
            Ok(()) => outln!("removed {}", folder.display())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("Cannot remove {}", folder.display()))
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

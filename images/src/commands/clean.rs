// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax clean`.

use std::fs;
use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::{Clean, Leftover};
use coax_images::cache::{self, Lock};
use coax_images::debian::root::Root;
use coax_program::outln;

/// Root file systems of other releases, in which files can belong to users that only namespaces have.
const ROOTS: &str = "root";

/// Removes the part asked for, and prints its folder.
pub fn run(options: &Clean) -> Result<ExitCode> {
    let root = cache::root()?;
    let folders = match options.what {
        Leftover::Kernel => vec!["kernel", "source", ROOTS],
        Leftover::Qemu => vec!["qemu"],
        Leftover::Guest => vec!["guest", "tree"],
        Leftover::Downloads => vec!["downloads"],
        Leftover::All => {
            vec![
                "kernel",
                "source",
                ROOTS,
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
    for name in folders {
        let folder = root.join(name);
        if name == ROOTS && folder.is_dir() {
            Root::there(folder.clone()).remove()?;
            outln!("removed {}", folder.display())?;
            continue;
        }
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

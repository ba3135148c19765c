// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds `test_hmm`, the kernel's own driver for its tests, from the guest kernel's source.
//!
//! It is built like any module of ours and not taken from the kernel's build: a kernel need not be
//! configured for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache;
use crate::kernel::Kernel;
use crate::tool;

/// What of the source it is made of, apart from headers of the kernel.
pub const INPUTS: &[&str] = &["lib/test_hmm.c", "lib/test_hmm_uapi.h"];
const KBUILD: &str = "obj-m := test_hmm.o\n";

/// Builds the module against `kernel`.
///
/// # Errors
///
/// Those of the build, with the log's place.
pub fn build(kernel: &Kernel, log: &Path) -> Result<PathBuf> {
    let folder = kernel.driver_dir.join("test_hmm");
    cache::make_folder(&folder)?;
    for input in INPUTS {
        let path = kernel.source.join(input);
        let contents =
            fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?;
        let name = path.file_name().context("Every input has a name")?;
        write_if_new(&folder.join(name), &contents)?;
    }
    write_if_new(&folder.join("Kbuild"), KBUILD.as_bytes())?;
    let mut make = kernel.make()?;
    make.arg("-C").arg(&kernel.build_dir);
    make.arg(format!("M={}", folder.display()));
    make.arg("modules");
    tool::run_logged(&mut make, "Building test_hmm", log, |_| {})?;
    Ok(folder.join("test_hmm.ko"))
}

/// Leaves a file with these contents, and its time, alone: make goes by it.
fn write_if_new(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == contents) {
        return Ok(());
    }
    fs::write(path, contents).with_context(|| format!("Cannot write {}", path.display()))
}

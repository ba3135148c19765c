// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax run` on a kernel tree of the user's.

use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

use crate::commands::test::untouched::Untouched;
use coax_images::images::Which;

/// Takes the folder that this kernel was built in for a tree of the user's.
pub fn is_booted(which: &Which) -> Result<()> {
    let kernel = which.kernel.built()?;
    let before = Untouched::now(&kernel)?;
    let program = std::env::current_exe().context("Where this program is")?;
    let output = Command::new(program)
        .args(["run", "--timeout", "300", "--kernel-tree"])
        .arg(&kernel.build_dir)
        .args(which.qemu.words())
        .args(["--", "sh", "-c", "uname -r; exec coaxctl info >/dev/null"])
        .stdin(Stdio::null())
        .output()
        .context("Running coax")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "coax ended with {}\n{error}",
        output.status
    );
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(
        told.trim_end() == kernel.version,
        "Linux {told} ran, and {} was built",
        kernel.version
    );
    before.check(&kernel)
}

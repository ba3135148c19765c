// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All scenarios, each in a process of its own.
//!
//! A new process has memory that the device never saw, so that what one scenario leaves on the
//! device cannot pass for what the next one moved.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use coax_program::errln;

use crate::args::Input;
use crate::hash::sha256sum;
use crate::output::Output;

/// The scenarios, in the order in which they are shown.
const SCENARIOS: [&str; 4] = ["hash", "structures", "gemm", "file"];

/// Runs all; says whether all passed.
pub fn run(device: &Path, input: &Input, output: &mut Output) -> Result<bool> {
    let program = std::env::current_exe().context("Cannot find this program")?;
    let sha256 = match &input.sha256 {
        Some(known) => known.clone(),
        None => sha256sum(&input.file)?,
    };
    let mut passed = true;
    for name in SCENARIOS {
        let child = Command::new(&program)
            .arg(name)
            .arg("--device")
            .arg(device)
            .arg("--file")
            .arg(&input.file)
            .args(["--sha256", &sha256])
            .args(["--size", &input.size.to_string()])
            .args(["--nodes", &input.nodes.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("Cannot start scenario {name}"))?;
        output.raw(&child.stdout)?;
        // A scenario that fails has said why.
        if !matches!(child.status.code(), Some(0 | 1)) {
            errln!("{name}: {}", child.status);
        }
        passed &= child.status.success();
    }
    Ok(passed)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One file for each sub-command.

pub mod bench;
pub mod build;
pub mod clean;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod run;
pub mod test;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use coax_images::accel::{self, Choice};
use coax_program::errln;

/// 0 for a pass, 1 for a failure.
fn exit_code(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Opens a file for a result before the work that leads to it: a path that cannot be written
/// should not cost a run.
fn create(path: &Option<PathBuf>) -> Result<Option<File>> {
    let open = |path: &Path| {
        File::create(path).with_context(|| format!("Cannot write {}", path.display()))
    };
    path.as_deref().map(open).transpose()
}

/// Decides, and says why in one line.
fn announce_accel(choice: Choice) -> Result<&'static str> {
    let decision = accel::decide(choice)
        .map_err(|reason| anyhow::anyhow!("KVM does not work here: {reason}"))?;
    errln!(
        "Acceleration: {} ({})",
        decision.accel.name(),
        decision.reason
    );
    Ok(decision.accel.name())
}

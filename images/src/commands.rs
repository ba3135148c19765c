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

use std::path::PathBuf;

use anyhow::Result;

use coax_images::accel::{self, Choice};
use coax_images::result_file::ResultFile;
use coax_program::errln;
use coax_program::status::exit_code;

/// Opens a file for a result before the work that leads to it: a path that cannot be written
/// should not cost a run.
fn create(path: &Option<PathBuf>) -> Result<Option<ResultFile>> {
    ResultFile::create(path.as_deref())
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

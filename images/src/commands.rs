// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One file for each sub-command.

pub mod bench;
pub mod build;
pub mod clean;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod qemu_args;
pub mod report;
pub mod run;
pub mod test;

use std::path::PathBuf;

use anyhow::Result;

use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::machine::Machine;
use coax_images::result_file::ResultFile;
use coax_program::outln;
use coax_program::output::OutputError;
use coax_program::status::exit_code;

/// Opens a file for a result before the work that leads to it: a path that cannot be written
/// should not cost a run.
fn create(path: &Option<PathBuf>) -> Result<Option<ResultFile>> {
    ResultFile::create(path.as_deref())
}

/// Says in one line what VMs of these images in these modes are.
fn announce(images: &Images, modes: &[Mode]) -> Result<Machine, OutputError> {
    let machine = images.machine(modes);
    outln!("{machine}")?;
    Ok(machine)
}

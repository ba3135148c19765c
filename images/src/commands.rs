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
use std::process::ExitCode;

use anyhow::Result;

use coax_images::images::Images;
use coax_images::job::Mode;
use coax_images::machine::{Machine, Translation};
use coax_images::result_file::ResultFile;
use coax_program::output::OutputError;
use coax_program::status::{self, exit_code};
use coax_program::{errln, outln};

/// Opens a file for a result before the work that leads to it: a path that cannot be written
/// should not cost a run.
fn create(path: &Option<PathBuf>) -> Result<Option<ResultFile>> {
    ResultFile::create(path.as_deref())
}

/// Refuses a way to translate that one of the modes cannot have; the status of wrong usage, told.
fn refuse(translation: Translation, modes: &[Mode]) -> Option<ExitCode> {
    let problem = modes
        .iter()
        .find_map(|mode| translation.can_be_in(*mode).err())?;
    errln!("coax: {problem}");
    Some(status::USAGE.into())
}

/// Says in one line what VMs of these images in these modes are.
fn announce(images: &Images, modes: &[Mode]) -> Result<Machine, OutputError> {
    let machine = images.machine(modes);
    outln!("{machine}")?;
    Ok(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_translate_in_a_mode_is_refused_as_wrong_usage() {
        let status = |translation, modes: &[Mode]| refuse(translation, modes).is_some();
        assert!(status(Translation::Pcie, &[Mode::Coherent, Mode::Private]));
        assert!(!status(Translation::Pcie, &[Mode::Coherent, Mode::Numa]));
        assert!(!status(Translation::Virtqueue, &Mode::ALL));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host half: groups cases by VM and mode, runs each group in a VM, reports.

pub mod deviant;
mod plan;
mod report;
mod vm;
mod witness;

pub use plan::{groups, Group, Selection};
pub use report::Report;
pub use vm::{action, run_group};

use anyhow::Result;
use coax_images::images::Images;
use coax_images::job;
use coax_images::machine::Translation;
use coax_program::outln;

use crate::case::Mode;

impl From<Mode> for job::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Private => job::Mode::Private,
            Mode::Coherent => job::Mode::Coherent,
            Mode::Numa => job::Mode::Numa,
        }
    }
}

/// Runs everything selected, showing each result as it comes.
///
/// # Errors
///
/// When a VM cannot be started at all, or results cannot be shown; what goes wrong in a VM is a result.
pub fn run(images: &Images, selection: &Selection) -> Result<Report> {
    let mut groups = plan::groups(selection);
    let can = |mode: Mode| images.translation.can_be_in(mode.into()).is_ok();
    groups.retain(|group| {
        can(group.mode) && !group.vm.has_two_functions_a_device()
            || images.translation == Translation::Virtqueue
    });
    let mut report = Report::new(groups.len())?;
    let mut modes: Vec<job::Mode> = Vec::new();
    for group in &groups {
        if !modes.contains(&group.mode.into()) {
            modes.push(group.mode.into());
        }
    }
    report.ran_on(&images.machine(&modes));
    for (index, group) in groups.iter().enumerate() {
        outln!(
            "# VM {} of {}: {group}, {} cases",
            index + 1,
            groups.len(),
            group.entries.len()
        )?;
        run_group(images, group, &mut report)?;
    }
    Ok(report)
}

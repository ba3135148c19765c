// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coaxctl`: look at and steer the coax accelerator from inside the guest.

mod args;
mod contexts;
mod maps;
mod pagemap;
mod procmap;
mod range;
mod report;
mod sha256;
mod storm;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{bail, ensure, Context as _, Result};
use coax::abi::uapi::MAX_RANGE_BYTES;
use coax::{Context, Direction, Error, Migrated, PageRange};
use coax_program::outln;

use crate::args::{Action, Cli, Form, Migration};
use crate::maps::Mapping;
use crate::pagemap::{DeviceFrames, Pagemap};
use crate::range::Selector;
use crate::report::{MappingResidency, Report};

/// Before what it has to say on standard error.
const NAME: &str = "coaxctl";

fn main() -> ExitCode {
    let cli: Cli = match coax_program::parse(NAME) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    if let Action::Storm(options) = &cli.action {
        return storm::run(&cli.device, options);
    }
    coax_program::finish(NAME, answer(&cli))
}

fn print(report: &Report, form: Form) -> Result<()> {
    if form.json {
        outln!("{}", report.json)?;
    } else {
        outln!("{}", report.text)?;
    }
    Ok(())
}

/// Does what is asked and prints what came of it; the status says whether all of it could be done.
fn answer(cli: &Cli) -> Result<ExitCode> {
    let context = Context::open_path(&cli.device)?;
    let (report, form) = match &cli.action {
        Action::Info(form) => {
            let device = cli.device.to_string_lossy();
            (report::info(&device, &context.info()?), form)
        }
        Action::Stats(form) => (report::stats(&context.stats()?), form),
        Action::Residency { pid, ranges, form } => {
            (residency(&context, &cli.device, *pid, ranges)?, form)
        }
        Action::Prefetch(migration) => (
            migrate(&context, migration, Direction::ToDevice)?,
            &migration.form,
        ),
        Action::Evict(migration) => (
            migrate(&context, migration, Direction::ToSystem)?,
            &migration.form,
        ),
        Action::Sha256 { files } => return sha256::run(&context, files),
        // `main` has run it.
        Action::Storm(_) => return Ok(ExitCode::SUCCESS),
    };
    print(&report, *form)?;
    Ok(ExitCode::SUCCESS)
}

/// Counts the pages of a process by where they are, and tells what it wants of them.
fn residency(context: &Context, path: &Path, pid: u32, ranges: &[Selector]) -> Result<Report> {
    let device = DeviceFrames::new(&context.info()?).context(
        "The driver shows page frames to root only; device pages cannot be told without them",
    )?;
    let mappings = maps::read(pid)?;
    let pagemap = Pagemap::open(pid)?;
    let contexts = contexts::of(pid, path)?;
    let everything = [Selector::All];
    let ranges = if ranges.is_empty() {
        &everything
    } else {
        ranges
    };
    let mut lines = Vec::new();
    for range in ranges {
        for (mapping, part) in selected(range, &mappings, pid)? {
            let residency = pagemap.residency(part, &device)?;
            let advice = contexts.iter().flat_map(|context| context.advice(part));
            let advice = advice.collect();
            lines.push(MappingResidency::new(mapping, part, residency, advice));
        }
    }
    Ok(report::residency(pid, &lines, &contexts))
}

/// The mappings that a range means; none is an error.
fn selected<'a>(
    range: &Selector,
    mappings: &'a [Mapping],
    pid: u32,
) -> Result<Vec<(&'a Mapping, PageRange)>> {
    let parts = range.select(mappings);
    if parts.is_empty() {
        match range {
            Selector::All => bail!("Process {pid} has no memory"),
            Selector::Name(name) => {
                bail!(
                    "Process {pid} has no mapping named {}",
                    name.to_string_lossy()
                )
            }
            Selector::Pages(pages) => bail!("Process {pid} has nothing mapped in {pages}"),
        }
    }
    Ok(parts)
}

/// Moves pages of a process.
fn migrate(context: &Context, migration: &Migration, direction: Direction) -> Result<Report> {
    let Migration { pid, range, .. } = migration;
    let mappings = maps::read(*pid)?;
    let mut sum = Migrated::default();
    let mut vanished = 0;
    for (_, part) in selected(range, &mappings, *pid)? {
        for piece in pieces(part) {
            match context.migrate_process(*pid, piece, direction) {
                Ok(migrated) => {
                    sum.moved += migrated.moved;
                    sum.already += migrated.already;
                    sum.left += migrated.left;
                }
                // The process goes on and may unmap what was mapped a moment ago.
                Err(Error::Call { source, .. }) if source.raw_os_error() == Some(libc::EFAULT) => {
                    vanished += 1;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("Cannot move pages of {piece}"));
                }
            }
        }
    }
    ensure!(
        vanished == 0 || sum != Migrated::default(),
        "Process {pid} unmapped the range meanwhile"
    );
    Ok(report::migration(*pid, &sum, vanished))
}

/// Cuts a range into pieces that one call takes.
fn pieces(range: PageRange) -> impl Iterator<Item = PageRange> {
    (0..range.len)
        .step_by(MAX_RANGE_BYTES as usize)
        .map(move |offset| {
            PageRange::new(
                range.addr + offset,
                (range.len - offset).min(MAX_RANGE_BYTES),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ranges_are_cut_at_the_limit_of_a_call() {
        let range = PageRange::new(0x1000, MAX_RANGE_BYTES + 0x2000);
        let parts: Vec<_> = pieces(range).collect();
        assert_eq!(
            parts,
            [
                PageRange::new(0x1000, MAX_RANGE_BYTES),
                PageRange::new(0x1000 + MAX_RANGE_BYTES, 0x2000)
            ]
        );
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the VM tests.
//!
//! It prints its results as a KTAP document, nested by VM, while they come, and the sums after it. Exit status: 0 if
//! something ran and nothing failed, 1 if something failed, 2 for a usage error.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use coax_images::images::{Images, Which};
use coax_images::launch::end_children_on_signals;
use coax_images::result_file::ResultFile;
use coax_program::{errln, outln, signals, status};
use coax_results::file::Format;
use vm_tests::case::Mode;
use vm_tests::host::{self, deviant, Group, Selection};

/// The program's name.
const NAME: &str = "coax-vm-tests";

/// Run the VM tests.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Args {
    /// Run only cases whose name contains one of these; `--list` shows the names.
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// Run in this mode only: private, coherent or numa.
    #[arg(long)]
    mode: Option<Mode>,
    /// Print the cases, with their modes and what they show, and run nothing.
    #[arg(long)]
    list: bool,
    /// Print the results that a run has, each behind the VM that it comes of, and run nothing.
    #[arg(long, conflicts_with = "list")]
    plan: bool,
    /// Run exactly the cases of these results, such as private.fork.NAME; `--plan` shows the names. May be repeated.
    #[arg(long, value_name = "RESULT")]
    exact: Vec<String>,
    /// Also write the results as KTAP.
    #[arg(long, value_name = "FILE")]
    ktap: Option<PathBuf>,
    /// Also write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also write the results as JSON.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

fn main() -> ExitCode {
    if let Some(ended) = deviant::run_if_meant() {
        return ended;
    }
    match coax_program::parse(NAME) {
        Ok(args) => coax_program::finish(NAME, run(&args)),
        Err(status) => status,
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let selection = Selection {
        filters: args.cases.clone(),
        mode: args.mode,
        exact: (!args.exact.is_empty()).then(|| args.exact.iter().cloned().collect()),
    };
    let groups = host::groups(&selection);
    let names: BTreeSet<String> = groups.iter().flat_map(Group::results).collect();
    if let Some(unknown) = args.exact.iter().find(|name| !names.contains(*name)) {
        errln!("{NAME}: there is no result {unknown}; --plan shows all");
        return Ok(ExitCode::from(status::USAGE));
    }
    if args.plan {
        for group in &groups {
            for result in group.results() {
                outln!("{} {result}", group.name())?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let selected: Vec<_> = vm_tests::cases::all()
        .filter(|entry| entry.selected_by(&selection.filters))
        .filter(|entry| {
            args.mode
                .is_none_or(|mode| entry.case.modes.contains(&mode))
        })
        .collect();
    if selected.is_empty() {
        errln!("{NAME}: no case fits; --list shows all");
        return Ok(ExitCode::from(status::USAGE));
    }
    if args.list {
        for entry in selected {
            let modes: Vec<&str> = entry.case.modes.iter().map(|mode| mode.name()).collect();
            outln!(
                "{} [{}]: {}",
                entry.full_name(),
                modes.join(", "),
                entry.case.shows
            )?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let files = [
        (Format::Ktap, ResultFile::create(args.ktap.as_deref())?),
        (Format::Junit, ResultFile::create(args.junit.as_deref())?),
        (Format::Json, ResultFile::create(args.results.as_deref())?),
    ];
    signals::allow_waiting().context("Cannot wait for programs")?;
    end_children_on_signals().context("Signal handlers")?;
    let images = Images::built(&args.which)?;
    let report = host::run(&images, &selection)?;
    let run = report.run();
    for (format, file) in files {
        if let Some(file) = file {
            file.write(|file| format.write(run, file))?;
        }
    }
    outln!("{run}")?;
    Ok(status::exit_code(run.passed()))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the VM tests.
//!
//! Exit status: 0 if something ran and nothing failed, 1 if something failed, 2 for a usage
//! error.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use coax_images::images::{Images, Which};
use coax_images::launch::end_children_on_signals;
use coax_images::result_file::ResultFile;
use coax_program::{errln, outln, signals, status};
use vm_tests::case::Mode;
use vm_tests::host::{self, Selection};

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
    /// Also write the results as KTAP.
    #[arg(long, value_name = "FILE")]
    ktap: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

fn main() -> ExitCode {
    match coax_program::parse(NAME) {
        Ok(args) => coax_program::finish(NAME, run(&args)),
        Err(status) => status,
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let selection = Selection {
        filters: args.cases.clone(),
        mode: args.mode,
    };
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
    let ktap = ResultFile::create(args.ktap.as_deref())?;
    signals::allow_waiting().context("Cannot wait for programs")?;
    end_children_on_signals().context("Signal handlers")?;
    let images = Images::built(&args.which)?;
    let report = host::run(&images, &selection)?;
    if let Some(file) = ktap {
        file.write(|file| host::write_ktap(file, report.results()))?;
    }
    outln!("{report}")?;
    Ok(status::exit_code(report.passed()))
}

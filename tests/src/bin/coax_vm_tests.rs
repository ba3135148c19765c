// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the VM tests.
//!
//! Exit status: 0 if something ran and nothing failed, 1 if something failed, 2 for a usage
//! error.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use coax_images::accel::Choice;
use coax_images::images::Images;
use coax_images::kernel::Which;
use coax_images::launch::end_children_on_signals;
use vm_tests::case::Mode;
use vm_tests::host::{self, Selection};

/// Run the VM tests.
#[derive(Debug, Parser)]
#[command(name = "coax-vm-tests", version)]
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
    /// How the VMs are accelerated.
    #[arg(long, value_enum, default_value_t)]
    accel: Choice,
    #[command(flatten)]
    kernel: Which,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coax-vm-tests: {error:#}");
            ExitCode::FAILURE
        }
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
        eprintln!("coax-vm-tests: no case fits; --list shows all");
        return Ok(ExitCode::from(2));
    }
    if args.list {
        for entry in selected {
            let modes: Vec<&str> = entry.case.modes.iter().map(|mode| mode.name()).collect();
            println!(
                "{} [{}]: {}",
                entry.full_name(),
                modes.join(", "),
                entry.case.shows
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Before the run: a path that cannot be written should not cost one.
    let ktap = match &args.ktap {
        Some(path) => {
            Some(File::create(path).with_context(|| format!("Creating {}", path.display()))?)
        }
        None => None,
    };
    end_children_on_signals().context("Signal handlers")?;
    let images = Images::built(&args.kernel)?;
    let report = host::run(&images, &selection, args.accel)?;
    if let Some(file) = ktap {
        host::write_ktap(file, report.results()).context("Writing the KTAP file")?;
    }
    println!("{report}");
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs stress-ng in a storm of moving pages, and compares how each stressor ends.
//!
//! Exit status: 0 if nothing failed, 1 if something did, 2 for a usage error.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use coax_images::images::{Images, Which};
use coax_images::job;
use coax_images::launch::end_children_on_signals;
use coax_images::result_file::ResultFile;
use coax_program::{out, signals, status};
use vm_tests::case::Mode;
use vm_tests::stress::host::{self, Report, Settings};

/// The program's name.
const NAME: &str = "coax-stress";

/// Run each stressor of stress-ng's classes vm, memory and scheduler while its memory moves to the device and
/// back, and compare how it ends.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Args {
    /// Only stressors whose names contain one of these
    #[arg(value_name = "STRESSOR")]
    filters: Vec<String>,
    /// In this mode only: private, coherent or numa
    #[arg(long)]
    mode: Option<Mode>,
    /// How long each stressor runs, without a storm and in it
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The first step; a run says where to go on
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    from: usize,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
    let json = ResultFile::create(args.json.as_deref())?;
    signals::allow_waiting().context("Cannot wait for programs")?;
    end_children_on_signals().context("Signal handlers")?;
    let settings = Settings {
        images: Images::built(&args.which)?,
        seconds: args.seconds,
        from: args.from,
        filters: args.filters.clone(),
    };
    let mut known = BTreeMap::new();
    let all = Mode::ALL.into_iter();
    let wanted = all.filter(|mode| args.mode.is_none_or(|only| only == *mode));
    let mut modes = Vec::new();
    for mode in wanted.clone() {
        modes.push(host::run(&settings, mode, &mut known)?);
    }
    let report = Report::new(args.seconds, modes);
    out!("{report}{}", report.ktap())?;
    if let Some(file) = json {
        let modes: Vec<_> = wanted.map(job::Mode::from).collect();
        file.json(&settings.images.machine(&modes).report(&report))?;
    }
    Ok(status::exit_code(report.passed()))
}

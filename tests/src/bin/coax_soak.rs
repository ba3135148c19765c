// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs stock programs in a storm of moving pages, for a long time.
//!
//! Exit status: 0 if nothing failed, 1 if something did, 2 for a usage error.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use coax_images::images::{Images, Which};
use coax_images::job;
use coax_images::launch::end_children_on_signals;
use coax_images::result_file::ResultFile;
use coax_images::sqlite;
use coax_program::{out, signals, status};
use vm_tests::case::Mode;
use vm_tests::soak::host::{self, Report, Settings};
use vm_tests::soak::pass::pass;

/// The program's name.
const NAME: &str = "coax-soak";

/// Run stock programs while their memory moves to the device and back, and compare.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Args {
    /// In this mode only: private, coherent or numa.
    #[arg(long)]
    mode: Option<Mode>,
    /// Least minutes of storm in each mode; what is running then is finished.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Begin with this step of a pass, which has each part of each workload once; a run says where to go on.
    #[arg(long, value_name = "STEP", default_value_t = 0, value_parser = step)]
    from: usize,
    /// Also write the report as JSON.
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
        sqlite: sqlite::built()?,
        time: Duration::from_secs(args.minutes * 60),
        from: args.from,
    };
    let mut known = BTreeMap::new();
    let all = Mode::ALL.into_iter();
    let wanted = all.filter(|mode| args.mode.is_none_or(|only| only == *mode));
    let mut modes = Vec::new();
    for mode in wanted.clone() {
        modes.push(host::soak(&settings, mode, &mut known)?);
    }
    let report = Report::new(args.minutes, args.from, modes);
    out!("{report}{}", report.ktap())?;
    if let Some(file) = json {
        let modes: Vec<_> = wanted.map(job::Mode::from).collect();
        file.json(&settings.images.machine(&modes).report(&report))?;
    }
    Ok(status::exit_code(report.passed()))
}

/// Reads a step of a pass.
fn step(text: &str) -> Result<usize, String> {
    let steps = pass().len();
    let step = text.parse().map_err(|error| format!("{error}"))?;
    if step < steps {
        Ok(step)
    } else {
        Err(format!("a pass has steps 0 to {}", steps - 1))
    }
}

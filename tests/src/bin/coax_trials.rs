// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Has something bad happen to the device at many points, and looks whether anybody loses anything.
//!
//! Exit status: 0 if nothing failed, 1 if something did, 2 for a usage error.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use coax_images::images::{Images, Which};
use coax_images::job;
use coax_images::launch::end_children_on_signals;
use coax_images::result_file::ResultFile;
use coax_program::{out, signals, status};
use vm_tests::case::Mode;
use vm_tests::trial::host::{self, Report, Settings};
use vm_tests::trial::plan::{Plan, Trial};

/// The program's name.
const NAME: &str = "coax-trials";

/// Have something bad happen to the device at many points, and look whether anybody loses anything.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

/// The trials.
#[derive(Debug, Subcommand)]
enum What {
    /// Stop the back end alone and have it go on, at seeded points under a storm of everything: of twenty
    /// stops sixteen last 1 to 3 s, two up to 12 s and two up to 30 s
    Stall(Options),
    /// Kill the back end, unbind the driver, unplug the device (5 : 1 : 1) at seeded points under a storm of
    /// everything, and bring a new one
    Kill(Options),
}

#[derive(Args, Debug)]
struct Options {
    /// In this mode only: private, coherent or numa
    #[arg(long)]
    mode: Option<Mode>,
    /// Points in each mode [default: 200 stops; 469 ends, which are 335 kills]
    #[arg(long, value_name = "N")]
    points: Option<usize>,
    /// The first point; a run says where to go on, with the same seed
    #[arg(long, value_name = "POINT", default_value_t = 0)]
    from: usize,
    /// What all points follow from [default: the clock; it is printed]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

fn main() -> ExitCode {
    let cli: Cli = match coax_program::parse(NAME) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let ran = match &cli.what {
        What::Stall(options) => run(Trial::Stall, options),
        What::Kill(options) => run(Trial::Kill, options),
    };
    coax_program::finish(NAME, ran)
}

fn run(trial: Trial, options: &Options) -> Result<ExitCode> {
    let json = ResultFile::create(options.json.as_deref())?;
    signals::allow_waiting().context("Cannot wait for programs")?;
    end_children_on_signals().context("Signal handlers")?;
    let points = options.points.unwrap_or(trial.points());
    let settings = Settings {
        images: Images::built(&options.which)?,
        plan: Plan {
            trial,
            seed: options.seed.map_or_else(clock, Ok)?,
            from: options.from,
            to: options.from + points,
        },
    };
    let all = Mode::ALL.into_iter();
    let wanted = all.filter(|mode| options.mode.is_none_or(|only| only == *mode));
    let mut modes = Vec::new();
    for mode in wanted.clone() {
        modes.push(host::run(&settings, mode)?);
    }
    let report = Report::new(modes);
    out!("{report}{}", report.ktap())?;
    if let Some(file) = json {
        let modes: Vec<_> = wanted.map(job::Mode::from).collect();
        file.json(&settings.images.machine(&modes).report(&report))?;
    }
    Ok(status::exit_code(report.passed()))
}

/// A seed that is another one every second, and short enough to be typed.
fn clock() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(now.context("The clock")?.as_secs() % 1_000_000)
}

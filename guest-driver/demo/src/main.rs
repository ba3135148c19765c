// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax-demo`: the guest half of the demonstration and of the benchmarks.
#![deny(unsafe_code)]

mod args;
mod bench;
mod file;
mod freivalds;
mod gemm;
mod hash;
mod map;
mod nodes;
mod output;
mod rng;
mod scenario;
mod structures;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::args::{Action, Cli, Input};
use crate::output::Output;
use crate::scenario::Outcome;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("coax-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether everything passed.
fn run(cli: &Cli) -> Result<bool> {
    let mut output = Output::open(&cli.json)?;
    let (input, names): (&Input, &[&'static str]) = match &cli.action {
        Action::All(input) => (input, &["hash", "structures", "gemm", "file"]),
        Action::Hash(input) => (input, &["hash"]),
        Action::Structures(input) => (input, &["structures"]),
        Action::Gemm(input) => (input, &["gemm"]),
        Action::File(input) => (input, &["file"]),
        Action::Bench(options) => {
            bench::run(&cli.device, options, &mut output)?;
            return Ok(true);
        }
    };
    let mut passed = true;
    for name in names {
        let outcome = scenario(name, &cli.device, input)?;
        passed &= outcome.passed();
        output.line(&outcome)?;
    }
    Ok(passed)
}

fn scenario(name: &'static str, device: &Path, input: &Input) -> Result<Outcome> {
    scenario::run(name, device, |context, progress| match name {
        "hash" => hash::run(context, progress, &input.file),
        "structures" => structures::run(context, progress, input.nodes as usize),
        "gemm" => gemm::run(context, progress, input.size as usize),
        _ => file::run(context, progress, &input.file),
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax-demo`: the guest half of the demonstration and of the benchmarks.
#![deny(unsafe_code)]

mod all;
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

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::args::{Action, Cli};
use crate::output::Output;

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
    let outcome = match &cli.action {
        Action::All(input) => return all::run(&cli.device, input, &mut output),
        Action::Bench(options) => {
            bench::run(&cli.device, options, &mut output)?;
            return Ok(true);
        }
        Action::Hash(input) => scenario::run("hash", &cli.device, |context, progress| {
            hash::run(context, progress, input)
        }),
        Action::Structures(input) => {
            scenario::run("structures", &cli.device, |context, progress| {
                structures::run(context, progress, input.nodes as usize)
            })
        }
        Action::Gemm(input) => scenario::run("gemm", &cli.device, |context, progress| {
            gemm::run(context, progress, input.size as usize)
        }),
        Action::File(input) => scenario::run("file", &cli.device, |context, progress| {
            file::run(context, progress, input)
        }),
    }?;
    output.line(&outcome)?;
    Ok(outcome.passed())
}

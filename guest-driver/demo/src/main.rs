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

use anyhow::{Context as _, Result};
use coax_program::{signals, status};

use crate::args::{Action, Cli};
use crate::output::Output;

/// Before what it has to say on standard error.
const NAME: &str = "coax-demo";

fn main() -> ExitCode {
    match coax_program::parse(NAME) {
        Ok(cli) => coax_program::finish(NAME, run(&cli)),
        Err(status) => status,
    }
}

/// The status says whether everything passed.
fn run(cli: &Cli) -> Result<ExitCode> {
    signals::allow_waiting().context("Cannot wait for programs")?;
    let mut output = Output::open(&cli.json)?;
    let outcome = match &cli.action {
        Action::All(input) => {
            let passed = all::run(&cli.device, input, &mut output)?;
            return Ok(status::exit_code(passed));
        }
        Action::Bench(options) => {
            bench::run(&cli.device, options, &mut output)?;
            return Ok(ExitCode::SUCCESS);
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
    Ok(status::exit_code(outcome.passed()))
}

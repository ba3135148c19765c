// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax`: builds, runs, tests and measures the virtual accelerator.
#![forbid(unsafe_code)]

mod cli;
mod commands;

use std::process::ExitCode;

use anyhow::{Context, Result};

use cli::{Cli, Command, Untestable};
use coax_images::process::end_children_on_signals;
use coax_program::{errln, signals};

/// What `git bisect run` takes for a commit that can be called neither good nor bad.
const UNTESTABLE: u8 = 125;

fn main() -> ExitCode {
    match coax_program::parse("coax") {
        Ok(cli) => coax_program::finish("coax", run(&cli)),
        Err(status) => status,
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match run_command(cli) {
        Err(error) if error.is::<Untestable>() => {
            errln!("coax: {error:#}");
            Ok(ExitCode::from(UNTESTABLE))
        }
        ran => ran,
    }
}

fn run_command(cli: &Cli) -> Result<ExitCode> {
    signals::allow_waiting().context("Cannot wait for programs")?;
    end_children_on_signals().context("Cannot handle signals")?;
    let install = !cli.no_install;
    match &cli.command {
        Command::Demo(options) => commands::demo::run(options, install),
        Command::Test(options) => commands::test::run(options, install),
        Command::Run(options) => commands::run::run(&options.vm, &options.argv, install),
        Command::Shell(options) => commands::run::shell(&options.vm, install),
        Command::Bench(options) => commands::bench::run(options, install),
        Command::Report(options) => commands::report::run(options),
        Command::Doctor(options) => commands::doctor::run(options),
        Command::Build(options) => commands::build::run(options, install),
        Command::QemuArgs(options) => commands::qemu_args::run(options),
        Command::Config(options) => commands::config::run(options, install),
        Command::Clean(options) => commands::clean::run(options),
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax-specification`: writes the tables of the specification, and the page.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use coax_program::outln;
use coax_specification::coverage::{workspace, Coverage};
use coax_specification::{page, statements, tables};

const NAME: &str = "coax-specification";

/// The specification of the coax device: its tables, its page, and which test shows what.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Writes the tables into the text, as the crate coax-abi has them
    Tables,
    /// Writes the page, in HTML
    Page {
        /// The file
        file: PathBuf,
    },
    /// Prints each statement with the tests that show it
    Coverage,
}

fn main() -> ExitCode {
    match coax_program::parse(NAME) {
        Ok(cli) => coax_program::finish(NAME, run(&cli)),
        Err(status) => status,
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.action {
        Action::Tables => {
            let path = workspace().join("guest-driver/abi/SPECIFICATION.md");
            write(&path, &tables::fill(&read(&path)?)?)?;
        }
        Action::Page { file } => {
            // Not the one that was compiled in, which may be older.
            let text = read(&workspace().join("guest-driver/abi/SPECIFICATION.md"))?;
            write(file, &page::render(&text, &Coverage::read(&workspace())?)?)?;
        }
        Action::Coverage => {
            let coverage = Coverage::read(&workspace())?;
            for statement in statements() {
                outln!("{}: {}", statement.name, statement.text)?;
                for test in coverage.tests.get(statement.name).into_iter().flatten() {
                    outln!("    {test}")?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))
}

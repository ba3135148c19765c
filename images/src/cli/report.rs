// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line of `coax report`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `coax report`
#[derive(Debug, Subcommand)]
pub enum Report {
    /// Make one report of those of all parts of a run, which `test --partition` wrote as KTAP, JUnit or JSON. A part
    /// that is missing, and a test that two have, are errors. Exit status: 0 if nothing failed in any
    Merge(Merge),
    /// Print the seconds that each test took, and in the place of a VM those of everything else in it: what parts are
    /// made by, images/src/commands/test/seconds.json
    Seconds {
        /// Report that `test` wrote, of a whole run
        file: PathBuf,
    },
}

/// `coax report merge`
#[derive(Args, Debug)]
pub struct Merge {
    /// Reports, one of each part, in any order and format
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write the report as KTAP
    #[arg(long, value_name = "FILE")]
    pub ktap: Option<PathBuf>,
    /// Write the report as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
}

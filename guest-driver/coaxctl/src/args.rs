// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::range::Selector;

/// How a RANGE is written, for every subcommand that takes one.
const RANGE_HELP: &str = "\
RANGE is one of
  START-END     addresses in hexadecimal, as in /proc/PID/maps: 7f0000000000-7f0000200000
  START+LEN     a start in hexadecimal and a length in bytes, or with K, M or G (powers of
                1024): 7f0000000000+2M
  NAME          mappings by name, the last part of a path being enough: [heap], [stack],
                libc.so.6; [anon] for mappings without a name
Only what is mapped of a range counts; starts are rounded down and ends up to whole pages.";

/// Look at and steer the coax accelerator.
///
/// Pages that the device works on move to its own memory. coaxctl shows what the device is and
/// has done, which pages of a process are in its memory, and moves pages by hand.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage.\n\n\
        Examples:\n  \
        coaxctl info\n  \
        coaxctl residency 314 '[heap]'\n  \
        coaxctl prefetch 314 7f0000000000+64M\n  \
        coaxctl stats --json | jq .device.page_requests"
)]
pub struct Cli {
    /// Device file.
    #[arg(long, global = true, default_value = coax::DEFAULT_DEVICE, value_name = "FILE")]
    pub device: PathBuf,
    /// Write JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Say what the device is: mode, memory in all and free, contexts, queues.
    Info,
    /// Show the counters of driver and device.
    #[command(
        long_about = "Show the counters of driver and device.\n\nThey count from the start of \
            driver and device and never go back: the difference of two readings is what \
            happened in between."
    )]
    Stats,
    /// Show where the pages of a process are.
    #[command(
        long_about = "Show where the pages of a process are, mapping by mapping, without \
            touching any.\n\nColumns: none (never touched or swapped out), system (anonymous, \
            in system memory), device (in the device's memory), file (file-backed or shared, \
            in system memory). Read from /proc/PID/maps and /proc/PID/pagemap; needs root.",
        after_help = RANGE_HELP
    )]
    Residency {
        /// Process.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        pid: u32,
        /// Ranges to look at; all mappings if none is given.
        #[arg(value_name = "RANGE")]
        ranges: Vec<Selector>,
    },
    /// Move pages of a process to device memory.
    #[command(
        long_about = "Move pages of a process to device memory.\n\nPages that were never \
            touched, are file-backed or pinned, or find no room stay where they are; the \
            counts say how many. Another's process needs root.",
        after_help = RANGE_HELP
    )]
    Prefetch(Migration),
    /// Move pages of a process to system memory.
    #[command(
        long_about = "Move pages of a process to system memory.\n\nThe device asks for them \
            again when it needs them. Another's process needs root.",
        after_help = RANGE_HELP
    )]
    Evict(Migration),
}

/// What to move.
#[derive(Args, Debug)]
pub struct Migration {
    /// Process.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: u32,
    /// Range to move, or `all` mappings.
    #[arg(value_name = "RANGE|all")]
    pub range: Selector,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn process_zero_is_a_usage_error() {
        let error = Cli::try_parse_from(["coaxctl", "evict", "0", "all"]).map(drop);
        assert_eq!(error.map_err(|error| error.exit_code()), Err(2));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use coax_program::args;

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
        coaxctl storm -- sort big-file\n  \
        coaxctl sha256 big-file\n  \
        coaxctl stats --json | jq .device.page_requests"
)]
pub struct Cli {
    /// Device file.
    #[arg(long, global = true, default_value = coax::DEFAULT_DEVICE, value_name = "FILE")]
    pub device: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Say what the device is: mode, memory in all and free, contexts, queues.
    Info(Form),
    /// Show the counters of driver and device.
    #[command(
        long_about = "Show the counters of driver and device.\n\nThey count from the start of \
            driver and device and never go back: the difference of two readings is what \
            happened in between."
    )]
    Stats(Form),
    /// Show where the pages of a process are, its policies and advice.
    #[command(
        long_about = "Show where the pages of a process are, mapping by mapping, without \
            touching any.\n\nColumns: none (never touched or swapped out), system (anonymous, \
            in system memory), device (in the device's memory), file (file-backed or shared, \
            in system memory). Below a mapping stands what the process advised for parts of it, \
            at the end what is to be said of each of its contexts: policy, and counters since it \
            was opened. Read from /proc/PID/maps, pagemap and fdinfo; needs root.",
        after_help = RANGE_HELP
    )]
    Residency {
        /// Process.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        pid: u32,
        /// Ranges to look at; all mappings if none is given.
        #[arg(value_name = "RANGE", value_parser = selector())]
        ranges: Vec<Selector>,
        #[command(flatten)]
        form: Form,
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
    /// Print the SHA-256 of files as sha256sum does, computed by the device.
    #[command(
        long_about = "Print the SHA-256 of files as sha256sum does, computed by the device.\n\nFiles \
            are mapped, and the device reads them in the page cache; standard input, pipes and \
            files of the kernel's are read into memory first."
    )]
    Sha256 {
        /// Files; - is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<OsString>,
    },
    /// Run a program while its memory moves to the device and back all the time.
    #[command(
        long_about = "Run a program while its memory moves to the device and back all the time.\n\n\
            Ranges are pulled at random out of all that the program and its children have \
            mapped, over to device memory and back, besides what the CPU brings back by \
            touching it. The program must not notice: its input, output, signals and end are its \
            own. What was moved is told at the end. Needs root.",
        after_help = "Exit status: that of CMD, which also ends by the signal that ended CMD; 127 if there \
            is no CMD, 126 if it cannot be run, 125 if there can be no storm, 2 wrong usage."
    )]
    Storm(Storm),
}

/// How an answer is written.
#[derive(Args, Clone, Copy, Debug)]
pub struct Form {
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What to move.
#[derive(Args, Debug)]
pub struct Migration {
    /// Process.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: u32,
    /// Range to move, or `all` mappings.
    #[arg(value_name = "RANGE|all", value_parser = selector())]
    pub range: Selector,
    #[command(flatten)]
    pub form: Form,
}

/// Every reader of JSON has numbers up to this one exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;

/// A storm and the program that is in it.
#[derive(Args, Debug)]
pub struct Storm {
    /// Number that all random choices follow from, below 2^53; another one each time, and told, if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    pub seed: Option<u64>,
    /// Most pulls in a second; as many as there is time for if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// End the storm after so many seconds; the program goes on.
    #[arg(long, value_name = "SECONDS", value_parser = args::seconds)]
    pub duration: Option<Duration>,
    /// Most pages in a pull.
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=MAX_PULL_PAGES))]
    pub pages: u32,
    /// Write what was moved to a file, as JSON, instead of as text to standard error.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Program with its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

fn selector() -> impl clap::builder::TypedValueParser<Value = Selector> {
    OsStringValueParser::new().try_map(|argument| Selector::from_argument(&argument))
}

/// 1 GiB: a pull holds up those who change the program's mappings.
const MAX_PULL_PAGES: i64 = 1 << 18;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_storm_takes_a_program_and_sane_numbers() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("coaxctl storm --rate 5 --json out -- ls --json").expect("well-formed");
        let Action::Storm(storm) = cli.action else {
            panic!("no storm: {:?}", cli.action);
        };
        assert_eq!(storm.argv, ["ls", "--json"]);
        assert_eq!(storm.json, Some("out".into()));
        for line in [
            "coaxctl storm",
            "coaxctl storm ls",
            "coaxctl storm --rate 0 -- ls",
            "coaxctl storm --duration 0 -- ls",
            "coaxctl storm --duration inf -- ls",
            "coaxctl storm --pages 0 -- ls",
            // One more than numbers of JSON go.
            "coaxctl storm --seed 9007199254740992 -- ls",
        ] {
            let error = parse(line).map(drop);
            assert_eq!(error.map_err(|error| error.exit_code()), Err(2), "{line}");
        }
    }

    #[test]
    fn names_of_files_and_mappings_need_be_no_text() {
        use std::os::unix::ffi::OsStrExt as _;
        let name = std::ffi::OsStr::from_bytes(b"\xff.bin");
        let parse = |words: [&std::ffi::OsStr; 4]| Cli::try_parse_from(words).expect("well-formed");
        let [program, residency, pid] = ["coaxctl", "residency", "7"].map(std::ffi::OsStr::new);
        let Action::Residency { ranges, .. } = parse([program, residency, pid, name]).action else {
            panic!("another action");
        };
        assert_eq!(ranges, [Selector::Name(name.to_owned())]);
        let Action::Sha256 { files } = parse([program, "sha256".as_ref(), name, name]).action
        else {
            panic!("another action");
        };
        assert_eq!(files, [name, name]);
    }

    #[test]
    fn process_zero_is_a_usage_error() {
        let error = Cli::try_parse_from(["coaxctl", "evict", "0", "all"]).map(drop);
        assert_eq!(error.map_err(|error| error.exit_code()), Err(2));
    }
}

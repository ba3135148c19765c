// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax-engine-bench`: the speed of the engine's operations over memory that is translated
//! already, beside the same work done directly in the memory of this process.
//!
//! The host's numbers are the yardsticks for measurements in a VM.
#![forbid(unsafe_code)]

mod memory;
mod workload;

use std::process::ExitCode;

use clap::Parser;
use coax_program::outln;
use coax_program::output::OutputError;
use serde_json::json;

use memory::Mapping;
use workload::{Rate, Sizes};

/// The program's name.
const NAME: &str = "coax-engine-bench";

/// Measures the operations of the coax engine against the host
///
/// Prints a table, or JSON with --json. Each rate is the best of several rounds.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Args {
    /// Bytes to hash and to copy; K, M and G are binary
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    bytes: u64,

    /// Rows of the square matrices
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(1..=8192))]
    gemm_size: u64,

    /// Nodes of the list and of the tree
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    nodes: u64,

    /// Bytes over which the nodes are scattered; K, M and G are binary
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    spread: u64,

    /// Rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Measure only the operation of this name
    #[arg(long, value_name = "NAME", value_parser = workload::NAMES)]
    only: Option<String>,

    /// Map each page to another place, as system memory is, instead of 2 MiB at a time
    #[arg(long)]
    scattered: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Parses a number of bytes with an optional binary suffix.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => {
            let shift = match text.as_bytes().last() {
                Some(b'K') => 10,
                Some(b'M') => 20,
                _ => 30,
            };
            (digits, shift)
        }
        None => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    // Far above any machine's memory, far below where sizes are multiplied.
    const MOST: u64 = 1 << 40;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| (4096..=MOST).contains(bytes))
        .ok_or_else(|| "not within 4K … 1024G".into())
}

fn main() -> ExitCode {
    match coax_program::parse(NAME) {
        Ok(args) => coax_program::finish(NAME, run(&args)),
        Err(status) => status,
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sizes = Sizes {
        bytes: args.bytes,
        gemm: args.gemm_size as usize,
        nodes: args.nodes,
        spread: args.spread,
        rounds: args.rounds,
        mapping: if args.scattered {
            Mapping::Pages
        } else {
            Mapping::Runs
        },
    };
    print(args, &workload::run(&sizes, args.only.as_deref())?)?;
    Ok(ExitCode::SUCCESS)
}

fn print(args: &Args, rates: &[Rate]) -> Result<(), OutputError> {
    if args.json {
        let results: serde_json::Map<_, _> = rates
            .iter()
            .map(|rate| {
                let value = json!({
                    "unit": format!("{}/s", rate.unit),
                    "host": rate.host,
                    "engine": rate.engine,
                    "ratio": rate.engine / rate.host,
                });
                (rate.name.to_owned(), value)
            })
            .collect();
        let report = json!({
            "bytes": args.bytes,
            "gemm_size": args.gemm_size,
            "nodes": args.nodes,
            "spread": args.spread,
            "scattered": args.scattered,
            "results": results,
        });
        return outln!("{report:#}");
    }
    outln!("operation        host         engine   engine/host")?;
    for rate in rates {
        outln!(
            "{:8}{:>14} {:>14} {:>8.2}",
            rate.name,
            human(rate.host, rate.unit),
            human(rate.engine, rate.unit),
            rate.engine / rate.host
        )?;
    }
    Ok(())
}

/// A rate with a decimal prefix.
fn human(rate: f64, unit: &str) -> String {
    match rate {
        r if r >= 1e9 => format!("{:.1} G{unit}/s", r / 1e9),
        r if r >= 1e6 => format!("{:.1} M{unit}/s", r / 1e6),
        r => format!("{:.1} k{unit}/s", r / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_binary_suffixes_and_bounds() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("1G"), Ok(1 << 30));
        for bad in ["", "M", "1", "-4K", "9999999G", "4KB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use coax::abi::wire::PAGE_SIZE;

/// Show and measure ordinary memory moving to the coax accelerator and back.
///
/// JSON, one line for each scenario or measurement, goes to the file of --json; progress goes to
/// standard error.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 all passed, 1 something failed, 2 wrong usage."
)]
pub struct Cli {
    /// Device file.
    #[arg(long, global = true, default_value = coax::DEFAULT_DEVICE, value_name = "FILE")]
    pub device: PathBuf,
    /// Where JSON goes; - is standard output.
    #[arg(long, global = true, default_value = "-", value_name = "FILE")]
    pub json: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run all four scenarios, each in a process of its own.
    All(Input),
    /// The device hashes malloc'ed memory.
    Hash(Input),
    /// The device walks a list and a tree of malloc'ed nodes.
    Structures(Input),
    /// The device multiplies matrices in malloc'ed memory.
    Gemm(Input),
    /// The device reads a shared file mapping in place.
    File(Input),
    /// Measure.
    Bench(Bench),
}

/// What the scenarios work on.
#[derive(Args, Clone, Debug)]
pub struct Input {
    /// File to hash and map.
    #[arg(long, default_value = "/vmlinux", value_name = "FILE")]
    pub file: PathBuf,
    /// SHA-256 of the file, if it is known; else busybox finds it.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Rows and columns of the matrices.
    #[arg(long, default_value_t = 1024, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub size: u32,
    /// Nodes of the list and keys of the tree.
    #[arg(long, default_value_t = 8000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub nodes: u32,
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// Only open that many contexts and work in all of them at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub contexts: Option<u32>,
    /// How long the contexts work.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", requires = "contexts",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Only move memory of these sizes to the device and back; K, M and G are binary.
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', value_parser = size,
          conflicts_with = "contexts")]
    pub migrate_sizes: Vec<usize>,
    /// Do so on that many devices at once, --device and those numbered after it.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "migrate_sizes",
          value_parser = clap::value_parser!(u32).range(1..=16))]
    pub at_once: u32,
    /// Only measure empty commands and device page faults, while that many threads keep processors busy.
    #[arg(long, value_name = "N", conflicts_with_all = ["contexts", "migrate_sizes"],
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub busy: Option<u32>,
}

/// A number of whole pages in bytes, with an optional binary suffix.
fn size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let count: usize = digits.parse().map_err(|error| format!("{error}"))?;
    count
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0 && bytes % PAGE_SIZE as usize == 0)
        .ok_or_else(|| "no whole pages".into())
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
    fn sizes_are_whole_pages() {
        assert_eq!(size("512K"), Ok(512 << 10));
        assert_eq!(size("1G"), Ok(1 << 30));
        for bad in ["", "K", "0", "4095", "1T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}

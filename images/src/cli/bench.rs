// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line of `coax bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Kernel, OneMode};

/// `coax bench`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    /// A part of its own; everything else if there is none.
    #[command(subcommand)]
    pub part: Option<BenchPart>,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// Measurements that are asked for by name.
#[derive(Debug, Subcommand)]
pub enum BenchPart {
    /// How much a device fault of one process is held up by what another does with the device
    Fairness(Fairness),
    /// How long the device takes to give a translation up while it is at work
    Invalidate(Invalidate),
    /// Moving memory to the device and back, beside the kernel's test_hmm and the host's memcpy
    Migrate(Migrate),
    /// Stock programs, numpy and one in C, with the device and without, in a VM with this machine's files
    Programs(Programs),
}

/// `coax bench fairness`
///
/// Times faults of the device, as whole commands, in one process: alone, and beside another one that has 64
/// commands on pages that never come, 64 commands without end, large copies, moves of memory to and fro, or
/// contexts that come and go. None of that may make a fault take more than twice as long.
#[derive(Args, Debug)]
pub struct Fairness {
    /// How the driver uses device memory
    #[arg(long, value_enum, default_value_t = OneMode::Private)]
    pub mode: OneMode,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// `coax bench invalidate`
///
/// Drops pages that the device has translations of while it is at work, for the same context, on the commands
/// with the longest steps. What counts is the device's own time, from an invalidation to its answer: 99 of 100
/// may take 100 µs at most. Beside it stands what the guest sees of it.
#[derive(Args, Debug)]
pub struct Invalidate {
    /// How the driver uses device memory
    #[arg(long, value_enum, default_value_t = OneMode::Private)]
    pub mode: OneMode,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// `coax bench migrate`
#[derive(Args, Debug)]
pub struct Migrate {
    /// Rounds of the kernel's benchmark on both drivers, in turn; medians are shown
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Measure beside another VM, both of whose processors are busy; only the kernel's benchmark, and the
    /// goal is that nothing is slower than test_hmm
    #[arg(long)]
    pub busy: bool,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also draw them
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// `coax bench programs`
///
/// Runs numpy and a program in C with the BLAS drop-in and without, in turn, in one VM, hashes files by the
/// device and by sha256sum, and times BLAS calls of many shapes around the size from which they are sent
/// to the device.
#[derive(Args, Debug)]
pub struct Programs {
    /// How the driver uses device memory
    #[arg(long, value_enum, default_value_t = OneMode::Private)]
    pub mode: OneMode,
    /// Also let the CPU make the product of 2048 x 2048, which takes minutes where it is emulated
    #[arg(long)]
    pub full: bool,
    /// Times that each BLAS call is made on either side; medians are shown
    #[arg(long, value_name = "N", default_value_t = 7,
          value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Also write the measurements as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
}

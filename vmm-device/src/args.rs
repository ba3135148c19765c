// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Command line, by the conventions for back-end programs in QEMU's
//! `docs/interop/vhost-user.rst`.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Parser};
use coax_abi::wire::{MAX_COMMAND_QUEUES, MAX_CONTEXTS, MAX_PAGE_REQUESTS};

use crate::device::Config;

/// vhost-user back end of the coax accelerator
///
/// Serves one front end, such as QEMU's vhost-user-coax-pci, and ends with status 0 when that
/// disconnects or on SIGTERM, SIGINT or SIGHUP. The log goes to the standard error.
#[derive(Clone, Debug, Parser)]
#[command(version)]
#[command(group(ArgGroup::new("socket").required(true).args(["socket_path", "fd"])))]
pub struct Args {
    /// Create this Unix domain socket and listen on it; it is removed at the end
    #[arg(long, value_name = "PATH")]
    pub socket_path: Option<PathBuf>,

    /// Serve this file descriptor of the parent: a Unix domain socket that listens, or one that is
    /// connected to the front end
    #[arg(long, value_name = "FDNUM", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub fd: Option<RawFd>,

    /// Create this socket too, for the front end to pass on translation by the guest's IOMMU (PCIe ATS
    /// and PRI); without it the driver translates
    #[arg(long, value_name = "PATH", conflicts_with = "pcie_fd")]
    pub pcie_socket: Option<PathBuf>,

    /// Serve this file descriptor of the parent for the same purpose
    #[arg(long, value_name = "FDNUM", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub pcie_fd: Option<RawFd>,

    /// Print what the program can do as JSON and exit; other options are ignored
    // Named here for the help alone: `main` looks for it before the options are parsed.
    #[arg(long)]
    print_capabilities: bool,

    /// Contexts (open device files) the guest can have at once
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONTEXTS)))]
    pub contexts: u32,

    /// Engines, each with a command queue and a thread; the front end must have as many queues
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_COMMAND_QUEUES)))]
    pub engines: u16,

    /// Page requests that may be outstanding
    #[arg(long, value_name = "N", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PAGE_REQUESTS)))]
    pub page_requests: u32,

    /// Say only what is wrong
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more: -v what the driver sets up, -vv each message
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Args {
    /// The sizes of the device.
    pub fn config(&self) -> Config {
        Config {
            contexts: self.contexts,
            engines: self.engines,
            page_requests: self.page_requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["vhost-device-coax"], args].concat())
    }

    #[test]
    fn exactly_one_of_path_and_descriptor_is_needed() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--socket-path", "/tmp/s", "--fd", "3"]).is_err());
        assert!(parse(&["--socket-path", "/tmp/s"]).is_ok());
        assert!(parse(&["--fd", "3"]).is_ok());
        assert!(parse(&["--fd=-1"]).is_err());
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for bad in [
            ["--contexts", "0"],
            ["--contexts", "4097"],
            ["--engines", "0"],
            ["--engines", "17"],
            ["--page-requests", "129"],
        ] {
            assert!(parse(&[&["--fd", "3"], &bad[..]].concat()).is_err());
        }
    }
}

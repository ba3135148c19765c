// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vhost-user back end of the coax accelerator.
//!
//! `README.md` of this crate describes the program and how its parts meet; the contract with
//! the driver is the crate `coax-abi`.
//!
//! Imports go one way: `transport`, `relay` and `server` know vhost-user and virtqueues; `queues`,
//! `services::virtqueue` and `shell` know the device; `machine` knows `commands`, `resolve` and
//! `mmu`, and reaches everything else through traits; these, `engine`, `command` and `message` know
//! none of it.

pub mod access;
pub mod args;
pub mod command;
pub mod commands;
pub mod deviations;
pub mod device;
pub mod dma;
pub mod engine;
pub mod error_output;
pub mod fail_stop;
pub mod fair;
pub mod features;
pub mod guest_log;
pub mod job;
pub mod latency;
pub mod machine;
pub mod message;
pub mod mmu;
pub mod queues;
pub mod relay;
pub mod resolve;
pub mod server;
pub mod services;
pub mod shell;
pub mod socket;
pub mod stats;
pub mod sync;
pub mod time_slice;
pub mod transport;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vhost-user back end of the coax accelerator.
//!
//! `README.md` of this crate describes the program and how its parts meet; the contract with
//! the driver is the crate `coax-abi`.
//!
//! Imports go one way: `backend` and `server` know vhost-user, `queue` knows virtqueues;
//! `service`, `worker` and `pri` know the device; `engine`, `command`, `message` and `atc`
//! know none of these.

pub mod access;
pub mod args;
pub mod atc;
pub mod backend;
pub mod command;
pub mod context;
pub mod device;
pub mod dma;
pub mod engine;
pub mod guest_log;
pub mod intake;
pub mod job;
pub mod latency;
pub mod message;
pub mod pri;
pub mod queue;
pub mod server;
pub mod service;
pub mod stats;
pub mod sync;
pub mod tags;
pub mod worker;

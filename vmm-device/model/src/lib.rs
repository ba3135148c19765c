// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The part of the device that several threads work on, in the hands of a model checker.
//!
//! The modules are the device's own source files; only the locks are those of the crate `shuttle`,
//! which runs the threads one at a time and chooses at each lock who goes on. [`world`] is what is
//! around them, and [`ledger`] knows what is true.
#![forbid(unsafe_code)]

#[path = "../../src"]
mod device {
    pub mod access;
    pub mod commands;
    pub mod fair;
    pub mod machine;
    pub mod mmu;
    pub mod resolve;
}

pub mod ledger;
pub mod sync;
pub mod world;

pub use device::{access, commands, fair, machine, mmu, resolve};

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What cases are made of, and the program that runs them.

pub mod device;
pub mod list;
pub mod memory;
pub mod module;
pub mod pagemap;
pub mod pattern;
pub mod process;
pub mod raw;
pub mod runner;
pub mod wait;

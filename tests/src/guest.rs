// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What cases are made of, and the program that runs them.

pub mod blas;
pub mod cgroup;
pub mod core_file;
pub mod counters;
pub mod device;
pub mod disk;
pub mod fresh;
pub mod hmm_errors;
pub mod list;
pub mod memory;
pub mod module;
pub mod mute;
pub mod node;
pub mod pagemap;
pub mod pattern;
pub mod pin;
pub mod process;
pub mod program;
pub mod raw;
pub mod runner;
pub mod shortage;
pub mod slot;
pub mod smaps;
pub mod userfault;
pub mod wait;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host half: a VM for each mode with this machine's files, and the sums.

mod report;
mod vm;

pub use report::{Report, Stressed};
pub use vm::{run, Settings};

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host half: VMs for each mode, one after the other, what is shown meanwhile, and the sums.

mod report;
mod show;
mod vm;

pub use report::{Report, Tried};
pub use vm::{run, Settings};

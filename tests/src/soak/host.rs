// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host half: a VM for each mode, what is shown meanwhile, and the sums.

mod report;
mod show;
mod vm;

pub use report::{Report, Soaked};
pub use vm::{soak, Settings};

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Use the coax accelerator on ordinary memory: plain pointers in, results out.
//!
//! ```no_run
//! # fn main() -> Result<(), coax::Error> {
//! let context = coax::Context::open()?;
//! let text = std::fs::read("/etc/services").unwrap_or_default(); // malloc'ed, nothing special
//! let digest = context.sha256(&text)?; // the device reads `text` where it is
//! println!("{digest:02x?}");
//! # Ok(())
//! # }
//! ```
//!
//! # Memory safety
//!
//! The device reads and writes the memory of this process while the program goes on. The typed
//! calls of [`Context`] ([`sha256`](Context::sha256), [`copy`](Context::copy), …) take slices
//! and return when the device has finished with them, so they are safe. Calls that take bare
//! addresses ([`submit`](Context::submit), [`run`](Context::run),
//! [`list_sum`](Context::list_sum), [`tree_search`](Context::tree_search)) are `unsafe`: the
//! caller answers for the memory until the command was collected. Atomic operations
//! ([`fetch_add_u64`](Context::fetch_add_u64), …) take references to atomic integers and are
//! safe as well. Addresses that turn out not
//! to be accessible are no danger: the command fails with [`Failure::fault`].

mod atomics;
mod command;
mod compute;
mod context;
mod error;
#[doc(hidden)]
pub mod ffi;
mod file;
mod gemm;
mod memory;
mod node;
mod populated;
mod stats;
mod sys;

pub use coax_abi as abi;
pub use coax_abi::uapi::{Info, MODE_COHERENT, MODE_NUMA, MODE_PRIVATE, NO_NODE};

pub use command::{Command, Completion};
pub use compute::{ListLayout, ListSum, TreeHit, TreeLayout};
pub use context::{CommandId, Context, DEFAULT_DEVICE};
pub use error::{Access, Error, Failure, Fault, Status};
pub use gemm::Gemm;
pub use memory::{Advice, Direction, InForce, Location, Migrated, PageRange, Policy, Residency};
pub use populated::{populated, Populated};
pub use stats::{Device as DeviceStats, Stats};

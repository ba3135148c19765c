// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The soak: stock programs in a storm of moving pages, for a long time.
//!
//! The guest half ([`guest`]) runs parts of workloads under `coaxctl storm` at its highest rate, in the
//! order of a [`pass`], until the time is over, and compares what each comes to with what it came to
//! without a storm. It tells the host what happens by [`event`]s. The host half
//! (`host`) boots a VM for each mode with this machine's files as its root, shows the events, and sums
//! them up.
//!
//! Time in a storm is what counts: runs without one, which come first, take none of it.

pub mod event;
pub mod guest;
#[cfg(feature = "host")]
pub mod host;
pub mod pass;
pub mod workload;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! stress-ng in the storm: each of its stressors of the classes `vm`, `memory` and `scheduler` that runs in
//! such a VM without the device runs under `coaxctl storm`, and has to end as it does without.
//!
//! What can run is found out, not listed: a stressor that stress-ng itself does not run, or that fails
//! without a storm, is left out with what it said. [`stressors::LEFT_OUT`] has those that are not even tried.
//! The guest half ([`guest`]) tells the host of each by an [`event`]; the host half (`host`) boots a VM with
//! this machine's files for each mode, and another behind a stressor that took one with it.

pub mod event;
pub mod guest;
#[cfg(feature = "host")]
pub mod host;
pub mod stressors;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Trials: something bad happens to the device at many points, each followed from a seed, under a storm of
//! everything that it can do.
//!
//! | trial | at a point |
//! |---|---|
//! | [`Trial::Stall`](plan::Trial) | the back end alone stops for a while, and goes on |
//! | [`Trial::Kill`](plan::Trial) | the back end is killed, the driver unbound, or the device unplugged; then there is a new one |
//!
//! The guest half ([`guest`]) is a conductor with a crew of processes: workers, each with memory whose every
//! byte is known, and at each point somebody who looks at fresh memory. It tells the host of each point by an
//! [`event`]. The host half (`host`) boots the VM, does to the device what the guest asks for, shows the
//! points and sums them up; when a VM ends badly, the points that are left run in another.

pub mod event;
pub mod guest;
#[cfg(feature = "host")]
pub mod host;
pub mod plan;
pub mod rng;

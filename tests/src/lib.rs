// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tests that boot VMs.
//!
//! A case is a function that runs in the guest, in a process of its own, with a note of the
//! VM it needs. The host half groups the cases by VM and mode, boots one VM a group and reads
//! the guest's KTAP; a case that needs the host to act while it runs says so by a request
//! (see [`request`]).
//!
//! | module | runs in | job |
//! |---|---|---|
//! | [`cases`] | guest | the cases, one file a subject |
//! | [`mod@bench`] | guest | measurements of `coax bench` |
//! | [`guest`] | guest | what cases are made of, and the program that runs them |
//! | [`mod@case`], [`deviation`], [`request`], [`witness`] | both | what the two halves agree on |
//! | [`soak`] | both | stock programs in a long storm, a program of its own on the host |
//! | [`stress`] | both | stress-ng in a storm, a program of its own on the host |
//! | [`trial`] | both | something bad at many seeded points, a program of its own on the host |
//! | `host` | host | groups, VMs, results |
#![deny(unsafe_code)]

pub mod bench;
pub mod case;
pub mod cases;
pub mod deviation;
pub mod guest;
#[cfg(feature = "host")]
pub mod host;
pub mod request;
pub mod soak;
pub mod stress;
pub mod trial;
pub mod witness;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds kernel, QEMU and guest, and launches VMs with the coax accelerator.
//!
//! [`job`] and [`frames`] are shared with the guest's init, which is built without the feature
//! `host`. On the host, [`images`] joins the builds ([`kernel`], [`qemu`], [`guest`]), which
//! rest on [`artifacts`] (what is fetched), [`cache`] (what is kept) and [`tool`] (how programs
//! are run), and [`launch`] starts VMs, with a tree of the host by [`virtiofsd`]. [`accel`] decides between KVM and TCG,
//! and [`machine`] says what VMs are.

pub mod frames;
pub mod job;

#[cfg(feature = "host")]
pub mod accel;
#[cfg(feature = "host")]
pub mod archive;
#[cfg(feature = "host")]
pub mod artifacts;
#[cfg(feature = "host")]
pub mod availability;
#[cfg(feature = "host")]
pub mod blas;
#[cfg(feature = "host")]
pub mod cache;
#[cfg(feature = "host")]
pub mod cargo;
#[cfg(feature = "host")]
pub mod crate_program;
#[cfg(feature = "host")]
pub mod debian;
#[cfg(feature = "host")]
pub mod fetch;
#[cfg(feature = "host")]
pub mod front_program;
#[cfg(feature = "host")]
pub mod guest;
#[cfg(feature = "host")]
pub mod hmm_tests;
#[cfg(feature = "host")]
pub mod host_packages;
#[cfg(feature = "host")]
pub mod images;
#[cfg(feature = "host")]
pub mod initramfs;
#[cfg(feature = "host")]
pub mod kernel;
#[cfg(feature = "host")]
pub mod launch;
#[cfg(feature = "host")]
pub mod machine;
#[cfg(feature = "host")]
pub mod newc;
#[cfg(feature = "host")]
pub mod pcie;
#[cfg(feature = "host")]
pub mod process;
#[cfg(feature = "host")]
pub mod progress;
#[cfg(feature = "host")]
pub mod qemu;
#[cfg(feature = "host")]
pub mod result_file;
#[cfg(feature = "host")]
pub mod rust_for_kernel;
#[cfg(feature = "host")]
pub mod sqlite;
#[cfg(feature = "host")]
pub mod steps;
#[cfg(feature = "host")]
pub mod temporary;
#[cfg(feature = "host")]
pub mod test_hmm;
#[cfg(feature = "host")]
pub mod tool;
#[cfg(feature = "host")]
pub mod virtiofsd;

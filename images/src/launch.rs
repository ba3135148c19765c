// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Starts a VM with the accelerator, runs one job in it and says how that ended.
//!
//! ```no_run
//! use coax_images::{images::{Images, Which}, job::{Job, Mode}, launch::{Vm, VmConfig}};
//!
//! let images = Images::built(&Which::default())?;
//! let config = VmConfig { mode: Mode::Coherent, ..VmConfig::default() };
//! let outcome = Vm::start(&images, &config, &Job::new(["coaxctl", "info"]))?.wait()?;
//! assert!(outcome.exit.success());
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! A VM is QEMU, a back end for each device and one for the root file system if that is a tree of
//! the host, in one process group each, and the job inside. All
//! end with [`Vm`], however it ends. [`Vm::wait`] returns an [`Outcome`] only when the guest
//! told how its job ended, the kernel did not complain, and back ends and QEMU ended well;
//! everything else is a [`LaunchError`] that shows the evidence.

mod action;
mod back_end;
mod channel;
mod config;
mod console;
mod device;
mod ends;
mod evidence;
mod flow;
pub mod foreign;
mod lines;
mod monitor;
mod qemu_args;
mod record;
mod terminal;
mod vm;
mod wait;

pub use crate::process::end_children_on_signals;
pub use action::Action;
pub use config::{Bytes, GuestFile, Output, Tree, VmConfig};
pub use console::complaint;
pub use device::Place;
pub use evidence::{BackEndEvidence, Evidence, Failure, LaunchError, Outcome};
pub use terminal::{current_size, is_interactive, restore as restore_terminal};
pub use vm::Vm;

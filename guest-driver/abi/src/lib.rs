// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The contract of the coax accelerator.
//!
//! [`wire`] is what driver and device say to each other through virtqueues, [`uapi`] what
//! programs and driver say to each other through ioctls. The same two files are compiled into
//! the device, the guest library and, through `#[path]`, the kernel module.
#![no_std]
#![forbid(unsafe_code)]

pub mod uapi;
pub mod wire;

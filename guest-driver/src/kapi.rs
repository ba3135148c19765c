// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers of kernel interfaces, one interface a file, without any policy of coax.
//!
//! With `sys` this is the only place in the module that contains `unsafe`. Each file is written
//! as if for `rust/kernel`, so that a wrapper that appears there can replace it.

pub(crate) mod chardev;
pub(crate) mod completion;
pub(crate) mod dmem;
pub(crate) mod exclusive;
pub(crate) mod frames;
pub(crate) mod hmm;
pub(crate) mod irqlock;
pub(crate) mod migrate;
pub(crate) mod misc;
pub(crate) mod mm;
pub(crate) mod node;
pub(crate) mod node_memory;
pub(crate) mod notifier;
pub(crate) mod page;
pub(crate) mod pagemap;
pub(crate) mod pci;
pub(crate) mod region;
pub(crate) mod sva;
pub(crate) mod thread;
pub(crate) mod trace;
pub(crate) mod uaccess;
pub(crate) mod virtio;
pub(crate) mod virtqueue;
pub(crate) mod work;

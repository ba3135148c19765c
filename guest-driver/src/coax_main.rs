// SPDX-License-Identifier: GPL-2.0

//! Driver of the coax accelerator.

use kernel::prelude::*;

mod call;
mod charges;
mod commands;
mod context;
mod context_table;
mod copy;
mod device;
mod ending;
mod faults;
mod hmm;
mod hot;
mod ioctl;
mod kapi;
mod lifetime;
mod link;
mod looks;
mod memory;
mod migration;
mod mirror;
mod modes;
mod page_map;
mod policy;
mod range_map;
mod range_set;
mod residency;
mod show;
mod stall;
mod stats;
mod sys;
mod users;
// The contract is a crate of its own for the device and the guest library.
#[path = "../abi/src/uapi.rs"]
#[allow(unreachable_pub, dead_code)]
mod uapi;
#[path = "../abi/src/wire.rs"]
#[allow(unreachable_pub, dead_code)]
mod wire;

module! {
    type: Coax,
    name: "coax",
    authors: ["The coax developers"],
    description: "Driver of the coax accelerator with coherent memory",
    license: "GPL",
    params: {
        mode: u32 {
            default: 0,
            description: "Device memory: 0 private (a CPU access brings the page back), 1 coherent (the CPU accesses it in place), 2 numa (memory of a node of its own, which the system moves pages to and from)",
        },
        policy: u32 {
            default: 0,
            description: "First policy of a context, and the most eager one it may have: 0 pages move when the device touches them, 1 on request, 2 never",
        },
        hmm: u32 {
            default: 0,
            description: "1: also offer test_hmm's interface, as /dev/hmm_dmirrorN; devices 0 and 1 are then private, others coherent",
        },
    },
}

/// What the module was told when it was loaded.
mod parameters {
    use super::{kapi::misc::parameter, module_parameters};

    /// `mode`.
    pub(crate) fn mode() -> u32 {
        parameter(module_parameters::mode.value())
    }

    /// `policy`.
    pub(crate) fn policy() -> u32 {
        parameter(module_parameters::policy.value())
    }

    /// `hmm`.
    pub(crate) fn hmm() -> bool {
        parameter::<u32>(module_parameters::hmm.value()) != 0
    }
}

/// The module while it is loaded.
#[pin_data]
struct Coax {
    #[pin]
    _driver: kapi::virtio::Registration<device::Device>,
    // Dropped after the driver has left all devices.
    _watch: kapi::pci::Watch,
    _class: kapi::chardev::Class,
}

impl kernel::InPlaceModule for Coax {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _class: kapi::chardev::Class::new()?,
            _watch: kapi::pci::Watch::new()?,
            _driver <- kapi::virtio::Registration::new(module),
        })
    }
}

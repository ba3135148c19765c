// SPDX-License-Identifier: GPL-2.0

//! What the device says of itself, and what the module was told to do with it: checked, and refused with a
//! line that says what is wrong.

use crate::{
    kapi::{
        node_memory::{self, NodeMemory},
        pagemap::Kind,
        virtio::{ShmRegion, VirtioDevice},
    },
    uapi, wire,
};
use kernel::{device::Device, prelude::*};

/// Most command queues that this driver uses; a device with more is refused.
pub(super) const MAX_COMMAND_QUEUES: u32 = 16;
/// Devices that are private with the parameter `hmm`; `test_hmm` has two of each kind.
const HMM_PRIVATE_DEVICES: u32 = 2;
/// Device memory comes in multiples of what `memremap_pages` maps at a time.
const MEMORY_UNIT: u64 = 2 << 20;

/// Whether the driver can work with a device of this configuration.
///
/// # Errors
///
/// `EINVAL`: not.
pub(super) fn check(dev: &Device, config: &wire::Config) -> Result {
    let queues = config.command_queues.get();
    let contexts = config.max_contexts.get();
    let requests = config.page_request_capacity.get();
    if config.magic.get() != wire::MAGIC {
        dev_err!(
            dev,
            "coax: not a coax device: the configuration has another magic number\n"
        );
        return Err(EINVAL);
    }
    if config.abi_version.get() != wire::ABI_VERSION {
        dev_err!(
            dev,
            "coax: the device speaks version {} of the device ABI, this driver version {}; take both from one release\n",
            config.abi_version.get(),
            wire::ABI_VERSION
        );
        return Err(EINVAL);
    }
    if config.services.get() & wire::SERVICE_VIRTQUEUE == 0 {
        dev_err!(
            dev,
            "coax: the device does not offer translation by virtqueue\n"
        );
        return Err(EINVAL);
    }
    if !(1..=MAX_COMMAND_QUEUES).contains(&queues)
        || !(1..=wire::MAX_CONTEXTS).contains(&contexts)
        || !(1..=wire::MAX_PAGE_REQUESTS).contains(&requests)
    {
        dev_err!(
            dev,
            "coax: a number in the configuration is out of range: {} command queues, {} contexts, {} page requests\n",
            queues,
            contexts,
            requests
        );
        return Err(EINVAL);
    }
    Ok(())
}

/// The device memory.
///
/// # Errors
///
/// `ENODEV`: there is none. `EINVAL`: it cannot have struct pages.
pub(super) fn memory(vdev: &VirtioDevice) -> Result<ShmRegion> {
    let dev = vdev.parent();
    let Some(region) = vdev.shm_region(wire::SHM_DEVICE_MEMORY) else {
        dev_err!(dev, "coax: the device announces no device memory\n");
        return Err(ENODEV);
    };
    if region.len() == 0 || (region.start() | region.len()) % MEMORY_UNIT != 0 {
        let (len, at) = (region.len(), region.start());
        dev_err!(
            dev,
            "coax: {} bytes of device memory at {:#x} are not whole 2 MiB\n",
            len,
            at
        );
        return Err(EINVAL);
    }
    Ok(region)
}

/// The mode of device `number`, as `MODE_*` and as the kernel is to know its memory.
///
/// # Errors
///
/// `EINVAL`: the module was told one that is not known.
pub(super) fn mode(dev: &Device, number: u32) -> Result<(u32, Kind)> {
    let mode = match *crate::module_parameters::hmm.value() {
        0 => *crate::module_parameters::mode.value(),
        _ if number < HMM_PRIVATE_DEVICES => uapi::MODE_PRIVATE,
        _ => uapi::MODE_COHERENT,
    };
    let kind = match mode {
        uapi::MODE_PRIVATE => Kind::Private,
        uapi::MODE_COHERENT => Kind::Coherent,
        uapi::MODE_NUMA => Kind::Node,
        other => {
            dev_err!(
                dev,
                "coax: mode={} is not known; 0 is private, 1 coherent, 2 numa\n",
                other
            );
            return Err(EINVAL);
        }
    };
    Ok((mode, kind))
}

/// Whether the policy that the module was told is known.
///
/// # Errors
///
/// `EINVAL`: not.
pub(super) fn check_policy(dev: &Device) -> Result {
    let policy = *crate::module_parameters::policy.value();
    if policy > uapi::POLICY_NEVER {
        dev_err!(
            dev,
            "coax: policy={} is not known; 0 is on fault, 1 on request, 2 never\n",
            policy
        );
        return Err(EINVAL);
    }
    Ok(())
}

/// The memory node that the device's memory is to be.
///
/// # Errors
///
/// `ENODEV`: firmware names none. `EINVAL`, `EBUSY`: it cannot be.
pub(super) fn node_for(vdev: &VirtioDevice, region: ShmRegion) -> Result<Pin<KBox<NodeMemory>>> {
    let dev = vdev.parent();
    let Some(node) = vdev.node() else {
        dev_err!(
            dev,
            "coax: mode=2: firmware puts the device in no memory node (_PXM, SRAT)\n"
        );
        return Err(ENODEV);
    };
    NodeMemory::new(node, region).inspect_err(|error| {
        let (mib, at) = (region.len() >> 20, region.start());
        if *error == EINVAL {
            let block = node_memory::block_bytes() >> 20;
            dev_err!(
                dev,
                "coax: mode=2: {} MiB of device memory at {:#x} are not whole memory blocks of {} MiB\n",
                mib,
                at,
                block
            );
        } else {
            dev_err!(
                dev,
                "coax: mode=2: node {} is not for device memory alone: it has CPUs or memory, or does not exist\n",
                node
            );
        }
    })
}

// SPDX-License-Identifier: GPL-2.0

//! What the device says of itself, and what the module was told to do with it: checked, and refused with a
//! line that says what is wrong.

use crate::{
    kapi::{
        pci::MemoryFunction,
        virtio::{ShmRegion, VirtioDevice},
    },
    parameters, uapi, wire,
};
use kernel::{device::Device, prelude::*};

/// Most command queues that this driver uses; a device with more is refused.
pub(super) const MAX_COMMAND_QUEUES: u32 = wire::MAX_COMMAND_QUEUES as u32;
/// Devices that are private with the parameter `hmm`; `test_hmm` has two of each kind.
const HMM_PRIVATE_DEVICES: u32 = 2;
/// Device memory comes in multiples of what `memremap_pages` maps at a time.
const MEMORY_UNIT: u64 = 2 << 20;

/// Whether the device may be one of somebody else's, who has its type by right.
fn may_be_anothers(vdev: &VirtioDevice) -> bool {
    vdev.device_type() == wire::VIRTIO_ID_BORROWED
}

/// The configuration, if the driver can work with it.
///
/// # Errors
///
/// `EINVAL`: not. `ENODEV`: the device is none of ours.
pub(super) fn read(vdev: &VirtioDevice) -> Result<wire::Config> {
    let config: wire::Config = vdev.read_config();
    if may_be_anothers(vdev) && config.magic.get() != wire::MAGIC {
        return Err(ENODEV);
    }
    check(vdev.parent(), &config)?;
    Ok(config)
}

fn check(dev: &Device, config: &wire::Config) -> Result {
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

/// The device memory, and the function that has it if it is not the device itself.
///
/// # Errors
///
/// `ENODEV`: there is none. `EINVAL`: it cannot have struct pages. Those of [`MemoryFunction::beside`].
pub(super) fn memory(vdev: &VirtioDevice) -> Result<(ShmRegion, Option<MemoryFunction>)> {
    let dev = vdev.parent();
    let (region, function) = match vdev.shm_region(wire::SHM_DEVICE_MEMORY) {
        Some(region) => (region, None),
        None => match beside(vdev)? {
            Some((function, region)) => (region, Some(function)),
            None => {
                if !may_be_anothers(vdev) {
                    dev_err!(
                        dev,
                        "coax: the device announces no device memory, and no other function of its slot has it\n"
                    );
                }
                return Err(ENODEV);
            }
        },
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
    Ok((region, function))
}

fn beside(vdev: &VirtioDevice) -> Result<Option<(MemoryFunction, ShmRegion)>> {
    let found = MemoryFunction::beside(vdev, wire::MEMORY_FUNCTION, wire::MEMORY_FUNCTION_BAR);
    found.inspect_err(|error| {
        let dev = vdev.parent();
        dev_err!(
            dev,
            "coax: the function with the device memory cannot be enabled: {:?}\n",
            error
        );
    })
}

/// The mode of device `number`, a `MODE_*` if the module was told one that is known.
pub(super) fn mode(number: u32) -> u32 {
    match parameters::hmm() {
        false => parameters::mode(),
        true if number < HMM_PRIVATE_DEVICES => uapi::MODE_PRIVATE,
        true => uapi::MODE_COHERENT,
    }
}

/// Whether the policy that the module was told is known.
///
/// # Errors
///
/// `EINVAL`: not.
pub(super) fn check_policy(dev: &Device) -> Result {
    let policy = parameters::policy();
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

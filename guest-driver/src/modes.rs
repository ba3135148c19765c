// SPDX-License-Identifier: GPL-2.0

//! The memory modes; `memory` has what they are to the rest of the driver.

mod coherent;
mod evict;
mod numa;
mod pool;
mod private;
mod zone;

use crate::{
    kapi::virtio::{ShmRegion, VirtioDevice},
    link::Link,
    memory::DeviceMemory,
    uapi,
};
use kernel::{prelude::*, sync::Arc};

/// The device memory `region` of `vdev` in `mode`, a `MODE_*`.
///
/// # Errors
///
/// `EINVAL`: no such mode, or not with this memory. `ENODEV`, `EBUSY`, `ENOMEM`, `ERANGE`: the memory cannot have
/// struct pages of this kind. The reason is in the log.
pub(crate) fn memory(
    mode: u32,
    vdev: &VirtioDevice,
    region: ShmRegion,
    link: Arc<Link>,
) -> Result<Arc<dyn DeviceMemory>> {
    match mode {
        uapi::MODE_PRIVATE => private::memory(vdev.parent(), region, link),
        uapi::MODE_COHERENT => coherent::memory(vdev.parent(), region, link),
        uapi::MODE_NUMA => numa::memory(vdev, region, link),
        other => {
            dev_err!(
                vdev.parent(),
                "coax: mode={} is not known; 0 is private, 1 coherent, 2 numa\n",
                other
            );
            Err(EINVAL)
        }
    }
}

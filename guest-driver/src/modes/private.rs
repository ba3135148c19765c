// SPDX-License-Identifier: GPL-2.0

//! `MODE_PRIVATE`: device memory at addresses that CPUs cannot use. A CPU that touches a page has it brought
//! back.

use super::zone::{self, Place, Zone};
use crate::{
    kapi::{
        migrate::Fault,
        pagemap::{FaultError, Pagemap},
        virtio::ShmRegion,
    },
    link::Link,
    memory::{About, DeviceMemory},
    migration, uapi,
};
use kernel::{device::Device, prelude::*, sync::Arc};

/// Private.
struct Private;

/// The memory `region` of `dev`.
///
/// # Errors
///
/// `ENOMEM`, `ERANGE`: no room for struct pages.
pub(super) fn memory(
    dev: &Device,
    region: ShmRegion,
    link: Arc<Link>,
) -> Result<Arc<dyn DeviceMemory>> {
    let zone = Zone::<Private>::new(link, &region)?;
    zone::with_struct_pages(dev, &region, Pagemap::private(region, c"coax", zone))
}

impl Place for Private {
    const ABOUT: About = About {
        mode: uapi::MODE_PRIVATE,
        name: "private",
        first_policy: uapi::POLICY_ON_FAULT,
    };
    const LARGE_FOLIOS: bool = true;

    fn on_cpu_fault(memory: &dyn DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError> {
        migration::on_cpu_fault(memory, fault)
    }
}

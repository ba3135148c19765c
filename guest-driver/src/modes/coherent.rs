// SPDX-License-Identifier: GPL-2.0

//! `MODE_COHERENT`: device memory at its own physical address. CPUs use a page where it is.

use super::zone::{self, Place, Zone};
use crate::{
    kapi::{
        migrate::Fault,
        pagemap::{FaultError, Pagemap},
        virtio::ShmRegion,
    },
    link::Link,
    memory::{About, DeviceMemory},
    uapi,
};
use kernel::{device::Device, prelude::*, sync::Arc};

/// Coherent.
struct Coherent;

/// The memory `region` of `dev`.
///
/// # Errors
///
/// `EBUSY`: the physical range is taken. `ENOMEM`, `ERANGE`: no room for struct pages.
pub(super) fn memory(
    dev: &Device,
    region: ShmRegion,
    link: Arc<Link>,
) -> Result<Arc<dyn DeviceMemory>> {
    let zone = Zone::<Coherent>::new(link, &region)?;
    zone::with_struct_pages(dev, &region, Pagemap::coherent(region, c"coax", zone))
}

impl Place for Coherent {
    const ABOUT: About = About {
        mode: uapi::MODE_COHERENT,
        name: "coherent",
        first_policy: uapi::POLICY_ON_FAULT,
    };
    // Page tables that map a large coherent folio are taken for system memory by
    // `migrate_vma_collect_huge_pmd()`, and `migrate_device_coherent_folio()`, with which a long-term pin
    // moves a page out, warns of one (`mm/migrate_device.c`).
    const LARGE_FOLIOS: bool = false;

    fn on_cpu_fault(_: &dyn DeviceMemory, _: &Fault<'_>) -> Result<(), FaultError> {
        // The kernel asks for private pages only.
        Err(FaultError::Lost)
    }
}

// SPDX-License-Identifier: GPL-2.0

//! `MODE_NUMA`: device memory as memory of a node without CPUs. The kernel gives it out, and moves pages to it
//! and from it as to and from any other; the driver does where a program asks for moves on fault.

use crate::{
    kapi::{
        frames::Frames,
        node::MemoryNode,
        node_memory::{self, NodeMemory},
        page::{LockedFolio, PagePtr},
        virtio::{ShmRegion, VirtioDevice},
    },
    link::Link,
    memory::{About, DeviceMemory},
    uapi,
};
use core::ops::Range;
use kernel::{
    device::Device,
    mm::virt::VmaRef,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// Longest attempt of a reset to empty the memory node, 10 s: what is still held then stays.
const REMOVE_LIMIT_MS: u32 = 10_000;

/// A node.
struct Numa {
    link: Arc<Link>,
    frames: Frames,
    memory: Pin<KBox<NodeMemory>>,
    accepting: Atomic<bool>,
}

/// The memory `region` of `vdev`, on the node where firmware puts the device.
///
/// # Errors
///
/// `ENODEV`: firmware names none. `EINVAL`, `EBUSY`: it cannot be that node's. `ENOMEM`.
pub(super) fn memory(
    vdev: &VirtioDevice,
    region: ShmRegion,
    link: Arc<Link>,
) -> Result<Arc<dyn DeviceMemory>> {
    let numa = Numa {
        link,
        frames: Frames::in_place(region),
        memory: node_for(vdev, region)?,
        accepting: Atomic::new(true),
    };
    Ok(Arc::new(numa, GFP_KERNEL)?)
}

/// The memory node that the device's memory is to be.
fn node_for(vdev: &VirtioDevice, region: ShmRegion) -> Result<Pin<KBox<NodeMemory>>> {
    let dev = vdev.parent();
    let Some(node) = vdev.node() else {
        dev_err!(
            dev,
            "coax: mode=2: firmware puts the device in no memory node (SRAT, _PXM)\n"
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

impl Numa {
    fn place(&self) -> MemoryNode {
        self.memory.node()
    }
}

impl DeviceMemory for Numa {
    fn about(&self) -> About {
        About {
            mode: uapi::MODE_NUMA,
            name: "numa",
            // Memory of a node is used only when that is asked for.
            first_policy: uapi::POLICY_ON_REQUEST,
        }
    }

    fn node(&self) -> u32 {
        self.place().number() as u32
    }

    fn link(&self) -> &Link {
        &self.link
    }

    fn frames(&self) -> &Frames {
        &self.frames
    }

    fn has_large_folios(&self) -> bool {
        true
    }

    fn free_pages(&self) -> u64 {
        self.place().free_pages()
    }

    fn has_room(&self) -> bool {
        let accepting = self.accepting.load(Relaxed) && self.link.lifetime.is_live();
        accepting && self.place().has_room()
    }

    fn page(&self, _ahead: &mut Range<usize>, _want: usize, _user: u16) -> Option<LockedFolio> {
        LockedFolio::alloc_on(self.place(), 0)
    }

    fn large_folio(&self, order: u32, _user: u16) -> Option<LockedFolio> {
        LockedFolio::alloc_on(self.place(), order)
    }

    /// To the kernel the pages of a node are system memory wherever they are, and may be in the swap cache.
    fn takes(&self, page: PagePtr) -> bool {
        !self.frames.has(page) && !page.is_under_writeback()
    }

    fn may_serve(&self, vma: &VmaRef) -> bool {
        self.place().is_for(vma)
    }

    /// As `move_pages` has it, by which the other pages get there.
    fn may_serve_caller(&self) -> bool {
        self.place().is_for_caller()
    }

    fn moves_by_calls(&self) -> bool {
        false
    }

    fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Relaxed);
    }

    fn enter_service(&self, dev: &Device) -> Result {
        self.memory.add().inspect_err(|error| {
            let memory = self.frames.memory();
            dev_err!(
                dev,
                "coax: {} MiB at {:#x} cannot become memory of node {}: {:?}\n",
                memory.len() >> 20,
                memory.start(),
                self.place().number(),
                error
            );
        })
    }

    /// Removing the memory is the only way to empty a node that a driver has. That it comes back when the
    /// driver is leaving does no harm: it waits for this call, and then removes it for good.
    fn empty(&self) -> Result<u64> {
        self.memory.remove(REMOVE_LIMIT_MS)?;
        self.memory.add()?;
        Ok(0)
    }

    fn leave_service(&self) {
        self.memory.remove_for_good();
    }
}

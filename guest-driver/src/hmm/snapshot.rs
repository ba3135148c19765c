// SPDX-License-Identifier: GPL-2.0

//! What is mapped, page by page, without touching any.

use super::{
    abi::{self, Command},
    Dmirror, PAGE_SIZE,
};
use crate::{
    kapi::{hmm::HmmPfn, misc::go_on, page::PMD_ORDER, uaccess},
    memory::DeviceMemory,
    residency::{windows, View},
};
use kernel::prelude::*;

/// Pages, as a power of two, that an entry of the page upper directory maps: 1 GiB.
const PUD_ORDER: u32 = 2 * PMD_ORDER;

impl Dmirror {
    /// Writes a `HMM_DMIRROR_PROT_*` byte for each page of the range to `ptr`.
    ///
    /// # Errors
    ///
    /// `EFAULT`: `ptr` cannot be written. `EBUSY`: the mappings do not stop changing. `EINVAL`: the
    /// process is gone.
    pub(super) fn snapshot(&self, command: &mut Command) -> Result {
        let mm = self.mm(EINVAL)?;
        let memory = self.context.device.memory()?;
        let len = command.npages * PAGE_SIZE;
        let mut view = View::new(&*memory, &mm, command.addr..command.addr + len)?;
        for (addr, npages) in windows(command.addr, len) {
            let say = |pfns: &[HmmPfn], bytes: &mut [u8]| {
                for (byte, pfn) in bytes.iter_mut().zip(pfns) {
                    *byte = permission(&*memory, *pfn);
                }
            };
            view.look(addr, npages, say)
                .map_err(|error| if error == ETIMEDOUT { EBUSY } else { error })?;
            let bytes = &view.kinds[..npages];
            let to = command.ptr.checked_add(command.cpages).ok_or(EFAULT)?;
            uaccess::write_bytes(to as usize, bytes)?;
            command.cpages += npages as u64;
            go_on()?;
        }
        Ok(())
    }
}

fn permission(memory: &dyn DeviceMemory, pfn: HmmPfn) -> u8 {
    if pfn.is_error() {
        return abi::PROT_ERROR;
    }
    let Some(page) = pfn.page() else {
        return abi::PROT_NONE;
    };
    let local = memory.frames().has(page);
    let place = match (page.is_device_private(), page.is_device_coherent(), local) {
        (true, _, true) => abi::PROT_DEV_PRIVATE_LOCAL,
        (true, _, false) => abi::PROT_DEV_PRIVATE_REMOTE,
        (_, true, true) => abi::PROT_DEV_COHERENT_LOCAL,
        (_, true, false) => abi::PROT_DEV_COHERENT_REMOTE,
        _ if page.is_small_zero() => abi::PROT_ZERO,
        _ => abi::PROT_NONE,
    };
    let access = if pfn.is_writable() {
        abi::PROT_WRITE
    } else {
        abi::PROT_READ
    };
    let size = match pfn.map_order() {
        PMD_ORDER => abi::PROT_PMD,
        PUD_ORDER => abi::PROT_PUD,
        _ => 0,
    };
    place | access | size
}

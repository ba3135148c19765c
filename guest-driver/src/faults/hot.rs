// SPDX-License-Identifier: GPL-2.0

//! Moving what the device tells that it uses often, where its faults do not pass the driver because the IOMMU
//! answers them.
//!
//! The device counts for a context as long as something of it may move on fault ([`Faults::watch`]). What it
//! tells is a hint: the 2 MiB are looked at mapping by mapping and policy by policy, as for a fault, and move by
//! the same mover. Commands go on meanwhile: pages that are on their way are missed, and asked for again.
//!
//! `watched` is held while the device is told, so that whoever changes a policy last has the last word; it is taken
//! before all other locks of the driver. The lock of what was told is a leaf, taken in interrupts.

use super::{Faults, Resolver, Scratch, PAGE_SIZE};
use crate::{
    kapi::{
        misc::boottime_ns,
        mm::{self, ReadGuard},
    },
    memory::DeviceMemory,
    migration::{self, Cause, Wish, WINDOW_PAGES},
    uapi, wire,
};
use core::ops::Range;
use kernel::mm::virt::VmaRef;

/// Accesses to 2 MiB of system memory, page by page, after which the device tells of them: as many pages as move
/// around a fault unless a program says otherwise.
const ACCESSES: u32 = 16;
/// Bytes that are told of together.
const BYTES: u64 = WINDOW_PAGES as u64 * PAGE_SIZE;

impl Faults {
    /// Has the device tell of what it uses if something of the context may move on fault, and else not.
    pub(crate) fn watch(&self) {
        let (link, mirror) = (&self.resolver.device.link, &self.resolver.mirror);
        if !mirror.by_iommu || !link.features.access_notification {
            return;
        }
        let mut watched = self.watched.lock();
        let wanted = mirror.policies.any_on_fault();
        if *watched == wanted {
            return;
        }
        let accesses = if wanted { ACCESSES } else { 0 };
        // Who was killed meanwhile needs it no more, and a device that is silent tells nothing.
        if link.notify(mirror.id(), accesses).is_ok() {
            *watched = wanted;
        }
    }

    /// Takes what the device tells for the worker; false if it makes no sense. Callable from interrupts.
    pub(super) fn told(&self, told: &wire::DeviceRequest) -> bool {
        let link = &self.resolver.device.link;
        let address = told.va.get();
        if !self.resolver.mirror.by_iommu || address % BYTES != 0 {
            return false;
        }
        link.stats.notifications.add(1);
        self.hot.lock().add(address, boottime_ns());
        true
    }

    /// Moves all that was told of.
    pub(super) fn move_hot(&self, memory: &dyn DeviceMemory, scratch: &mut Scratch) {
        while !self.resolver.mirror.is_closed() {
            let Some(address) = self.hot.lock().take() else {
                return;
            };
            if self.resolver.move_range(memory, address, scratch) == 0 {
                self.hot.lock().rest(address, boottime_ns());
            }
        }
    }
}

impl Resolver {
    /// Moves the pages of the 2 MiB from `address` on that move on fault, and returns how many did.
    fn move_range(&self, memory: &dyn DeviceMemory, address: u64, scratch: &mut Scratch) -> u64 {
        let Some(mm) = mm::get(self.notifier.mm()) else {
            return 0;
        };
        let user = self.mirror.user();
        if !memory.has_room_for(user) {
            self.device.link.stats.device_full.add(WINDOW_PAGES as u64);
            return 0;
        }
        let _charged = mm::charge_to(&mm);
        memory.make_room(user, WINDOW_PAGES);
        let guard = ReadGuard::lock(&mm);
        let end = address.saturating_add(BYTES).min(mm::task_size(&mm)) as usize;
        let (mut at, mut moved) = (address as usize, 0);
        while at < end {
            let Some(vma) = guard.find_vma(at).filter(|vma| vma.start() < end) else {
                break;
            };
            let part = vma.start().max(at)..vma.end().min(end);
            at = part.end;
            if !mm::may_migrate(vma) || !memory.may_serve(vma) {
                continue;
            }
            let part = part.start as u64..part.end as u64;
            for (part, rule) in self.mirror.policies.parts(part) {
                if rule.policy == uapi::POLICY_ON_FAULT {
                    let part = part.start as usize..part.end as usize;
                    moved += self.move_part(memory, vma, part, scratch);
                }
            }
        }
        moved
    }

    fn move_part(
        &self,
        memory: &dyn DeviceMemory,
        vma: &VmaRef,
        part: Range<usize>,
        scratch: &mut Scratch,
    ) -> u64 {
        let wish = Wish {
            user: self.mirror.user(),
            fill: 0..0,
            fill_large: false,
            fail_alloc: None,
            cause: Cause::DeviceFault(self.mirror.id().number),
        };
        // What does not move is used in place.
        let arrays = core::mem::take(&mut scratch.arrays);
        let Ok((moved, arrays)) = migration::to_device(memory, vma, part, &wish, arrays) else {
            return 0;
        };
        scratch.arrays = arrays;
        self.mirror.stats.to_device.add(moved);
        moved
    }
}

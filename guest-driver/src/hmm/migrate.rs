// SPDX-License-Identifier: GPL-2.0

//! Moving ranges on request.

use super::{abi::Command, Dmirror, PAGE_SIZE};
use crate::{
    kapi::misc::go_on,
    memory::DeviceMemory,
    migration::{chunks, Direction, RangeMove, Unfit},
    residency::{windows, View},
    uapi,
};
use kernel::prelude::*;

/// Pages whose translations the device is told after they moved, 1 GiB: a sixth of what its cache
/// holds for all contexts.
const AHEAD_PAGES: u64 = 1 << 18;

impl Dmirror {
    /// Moves the range to device memory, pages never touched too; then the device reads it and writes
    /// it to `ptr`.
    ///
    /// # Errors
    ///
    /// `EINVAL`: part of the range is not mapped, must not be read, or is of a kind that does not
    /// migrate. `ENOENT`: not all of it is in this device's memory afterwards. `EFAULT`: `ptr` cannot
    /// be written. `EPERM`: the driver was loaded to move nothing. `ENOMEM`.
    pub(super) fn migrate_to_device(&self, command: &mut Command) -> Result {
        if self.context.mirror.policies.context().policy == uapi::POLICY_NEVER {
            return Err(EPERM);
        }
        let memory = self.context.device.memory()?;
        let moved = self.migrate(&*memory, command, Direction::ToDevice { fill: true })?;
        if moved < command.npages && !self.all_on_device(&*memory, command)? {
            return Err(ENOENT);
        }
        // Nothing waits for the device to ask. Translations given up meanwhile it asks for.
        let ahead = command.npages.min(AHEAD_PAGES) as usize;
        let faults = self.context.faults.data();
        faults.tell_ahead(&*memory, command.addr, ahead)?;
        self.read(command)?;
        command.faults = 0;
        Ok(())
    }

    /// Brings the pages of the range that are in this device's memory back.
    ///
    /// # Errors
    ///
    /// Those of [`Self::migrate_to_device`] that are not about `ptr`.
    pub(super) fn migrate_to_system(&self, command: &mut Command) -> Result {
        let memory = self.context.device.memory()?;
        command.cpages = self.migrate(&*memory, command, Direction::ToSystem)?;
        Ok(())
    }

    fn migrate(
        &self,
        memory: &dyn DeviceMemory,
        command: &Command,
        direction: Direction,
    ) -> Result<u64> {
        let (mm, fail) = (self.mm(EINVAL)?, Some(&self.fail_alloc));
        let mirror = &self.context.mirror;
        let mut mover = RangeMove::new(memory, &mm, mirror, direction, Unfit::Refuse, fail);
        let mut moved = 0;
        for chunk in chunks(command.addr..command.addr + command.npages * PAGE_SIZE) {
            moved += mover.run(chunk)?.pages;
            go_on()?;
        }
        Ok(moved)
    }

    fn all_on_device(&self, memory: &dyn DeviceMemory, command: &Command) -> Result<bool> {
        let mm = self.mm(EINVAL)?;
        let len = command.npages * PAGE_SIZE;
        let mut view = View::new(memory, &mm, command.addr..command.addr + len)?;
        for (addr, npages) in windows(command.addr, len) {
            let kinds = view.count(addr, npages)?;
            if kinds[usize::from(uapi::RESIDENT_DEVICE)] != npages as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

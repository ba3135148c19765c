// SPDX-License-Identifier: GPL-2.0

//! The device reads, writes and takes pages for itself.

use super::{abi::Command, in_user_space, Dmirror, PAGE_SIZE};
use crate::{
    kapi::{misc::not_supported, mm},
    wire,
};
use kernel::{mm::virt::flags, prelude::*};

/// Which side of a copy is the memory mirrored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mirrored {
    Source,
    Destination,
}

impl Dmirror {
    /// The device reads the range and writes it to `ptr`.
    ///
    /// # Errors
    ///
    /// `EFAULT`: part of either is not mapped, or must not be accessed so. `ENOMEM`: the range is
    /// larger than memory.
    pub(super) fn read(&self, command: &mut Command) -> Result {
        self.copy(command, Mirrored::Source)
    }

    /// The device reads `ptr` and writes it to the range.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read`]; `EPERM`: part of the range may be read only.
    pub(super) fn write(&self, command: &mut Command) -> Result {
        self.copy(command, Mirrored::Destination)
    }

    fn copy(&self, command: &mut Command, mirrored: Mirrored) -> Result {
        if command.npages > mm::total_pages() {
            return Err(ENOMEM);
        }
        let len = command.npages * PAGE_SIZE;
        if !in_user_space(&*self.mm(EFAULT)?, command.ptr, len) {
            return Err(EFAULT);
        }
        let mut args = [0; wire::COMMAND_ARGS];
        args[..3].copy_from_slice(&match mirrored {
            Mirrored::Source => [command.ptr, command.addr, len],
            Mirrored::Destination => [command.addr, command.ptr, len],
        });
        let reply = self.context.run(wire::OP_COPY, &args)?;
        command.cpages = reply.bytes_done.get() / PAGE_SIZE;
        let faults = match mirrored {
            Mirrored::Source => &reply.result[..8],
            Mirrored::Destination => &reply.result[8..16],
        };
        command.faults = u64::from_le_bytes(faults.try_into().map_err(|_| EIO)?);
        self.checked(command, &reply, mirrored == Mirrored::Destination)
    }

    /// What `test_hmm` says of what the device says.
    fn checked(&self, command: &Command, reply: &wire::CommandReply, write: bool) -> Result {
        match reply.status.get() {
            wire::STATUS_OK => Ok(()),
            wire::STATUS_FAULT => Err(self.refusal(command, reply.fault_va.get(), write)),
            wire::STATUS_RESPONSE_FAILURE => Err(EFAULT),
            wire::STATUS_BAD_ARGUMENT => Err(EINVAL),
            _ => Err(EIO),
        }
    }

    /// `EPERM` where memory to be written may be read, else `EFAULT`.
    fn refusal(&self, command: &Command, va: u64, write: bool) -> Error {
        let inside = va.wrapping_sub(command.addr) < command.npages.wrapping_mul(PAGE_SIZE);
        let Ok(mm) = self.mm(EFAULT) else {
            return EFAULT;
        };
        let guard = mm.mmap_read_lock();
        match guard.vma_lookup(va as usize) {
            Some(vma)
                if write && inside && vma.flags() & (flags::READ | flags::WRITE) == flags::READ =>
            {
                EPERM
            }
            _ => EFAULT,
        }
    }

    /// The device takes each page of the range for itself, by an atomic operation that changes
    /// nothing, and reads it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read`]. `EOPNOTSUPP`: part of the range is shared, or of hugetlb: the device would
    /// use it together with the CPUs. `EINVAL`: the process is gone.
    pub(super) fn exclusive(&self, command: &mut Command) -> Result {
        self.can_be_exclusive(command)?;
        let mut args = [0; wire::COMMAND_ARGS];
        // One word of four bytes a page, to which nothing is added.
        args[..5].copy_from_slice(&[command.addr, 4, 0, command.npages, PAGE_SIZE]);
        let reply = self.context.run(wire::OP_FETCH_ADD, &args)?;
        self.checked(command, &reply, false)?;
        let read = self.read(command);
        command.faults = 0;
        read
    }

    /// Whether what the range has before its first hole is anonymous memory, or becomes so when it is
    /// written.
    fn can_be_exclusive(&self, command: &Command) -> Result {
        let mm = self.mm(EINVAL)?;
        let mut at = command.addr;
        let end = at + command.npages * PAGE_SIZE;
        let guard = mm.mmap_read_lock();
        while at < end {
            let Some(vma) = guard.vma_lookup(at as usize) else {
                break;
            };
            if vma.flags() & (flags::SHARED | flags::HUGETLB) != 0 {
                return Err(not_supported());
            }
            at = vma.end() as u64;
        }
        Ok(())
    }

    /// Whether no page of the range is the device's alone.
    ///
    /// # Errors
    ///
    /// `EPERM`: one is.
    pub(super) fn check_exclusive(&self, command: &Command) -> Result {
        let end = command.addr + command.npages * PAGE_SIZE;
        if self.context.mirror.lock().is_exclusive(command.addr, end) {
            return Err(EPERM);
        }
        Ok(())
    }
}

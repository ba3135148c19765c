// SPDX-License-Identifier: GPL-2.0

//! `/dev/hmm_dmirrorN`: the interface of the kernel's `test_hmm`, on a device of its own.
//!
//! With it the kernel's `hmm-tests` (`tools/testing/selftests/mm`) run unchanged. An open file is a
//! context of the device, whose pages move on request only. What `test_hmm` does with the CPU the
//! device does here: it reads and writes the process's memory by commands, through its ATC, translation
//! requests and page requests. `abi` has the calls; errors are those of `test_hmm`, but for source and
//! destination that overlap, which the device refuses (`EINVAL`), and a caller that does not share the
//! opener's memory while that lives (`EPERM`): buffer and memory mirrored are one address space to the
//! device.

mod abi;
mod access;
mod migrate;
mod snapshot;

use crate::{
    context::Context,
    device::Device,
    kapi::{chardev::OpenFile, hmm::HAS_UNLOCKED_FAULTS, mm, uaccess},
    uapi, wire,
};
use abi::Command;
use kernel::{
    alloc::flags,
    bindings,
    fs::File,
    mm::{virt::VmaNew, MmWithUser},
    page::Page,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        poll::PollTable,
        Arc,
    },
};

const PAGE_SIZE: u64 = wire::PAGE_SIZE;

/// An open file.
pub(crate) struct Dmirror {
    context: Arc<Context>,
    /// Makes the next allocation of a migration fail, once.
    fail_alloc: Atomic<bool>,
}

impl Dmirror {
    fn run(&self, number: u32, command: &mut Command) -> Result {
        match number {
            abi::READ => self.read(command),
            // The device's faults are all resolved without the mmap lock.
            abi::READ_UNLOCKED if HAS_UNLOCKED_FAULTS => self.read(command),
            abi::WRITE => self.write(command),
            abi::MIGRATE_TO_DEV => self.migrate_to_device(command),
            abi::MIGRATE_TO_SYS => self.migrate_to_system(command),
            abi::SNAPSHOT => self.snapshot(command),
            abi::EXCLUSIVE => self.exclusive(command),
            abi::CHECK_EXCLUSIVE => self.check_exclusive(command),
            abi::RELEASE => self.context.device.empty().map(|_| ()),
            abi::FLAGS => {
                let fail = command.npages & abi::FLAG_FAIL_ALLOC != 0;
                self.fail_alloc.store(fail, Relaxed);
                Ok(())
            }
            _ => Err(EINVAL),
        }
    }

    /// The process's memory, or `error` if it has none any more.
    fn mm(&self, error: Error) -> Result<ARef<MmWithUser>> {
        self.context.mm.mmget_not_zero().ok_or(error)
    }
}

impl OpenFile for Dmirror {
    type Device = Device;

    fn open(device: &Arc<Device>) -> Result<Arc<Self>> {
        let context = Context::open(device)?;
        let policy = device.first_policy().max(uapi::POLICY_ON_REQUEST);
        context.mirror.policies.set_context(policy, 0);
        context.faults.data().watch();
        let opened = Arc::new(
            Dmirror {
                context: context.clone(),
                fail_alloc: Atomic::new(false),
            },
            GFP_KERNEL,
        );
        if opened.is_err() {
            context.release();
        }
        Ok(opened?)
    }

    fn ioctl(&self, number: u32, arg: usize) -> Result<isize> {
        match self.context.check() {
            // If the opener is gone, and its memory with it, the calls say so themselves.
            Err(error) if error == EPERM && self.mm(error).is_err() => {}
            checked => checked?,
        }
        let mut command: Command = uaccess::read(arg)?;
        let end = command
            .addr
            .wrapping_add(command.npages.wrapping_mul(PAGE_SIZE));
        if command.addr % PAGE_SIZE != 0 || command.addr >= end {
            return Err(EINVAL);
        }
        (command.cpages, command.faults) = (0, 0);
        // `test_hmm` drops the bits of the number of pages that do not fit the number of bytes.
        let asked = command.npages;
        command.npages = (end - command.addr) / PAGE_SIZE;
        self.run(number, &mut command)?;
        command.npages = asked;
        uaccess::write(arg, &command)?;
        Ok(0)
    }

    fn poll(&self, file: &File, table: &PollTable<'_>) -> u32 {
        self.context.poll(file, table) & (bindings::POLLERR | bindings::POLLHUP)
    }

    /// Ordinary zeroed pages put into the mapping at once: a mixed mapping to look at.
    fn mmap(&self, vma: &VmaNew) -> Result {
        let mixed = vma.set_mixedmap();
        for addr in (vma.start()..vma.end()).step_by(PAGE_SIZE as usize) {
            let page = Page::alloc_page(GFP_KERNEL | flags::__GFP_ZERO)?;
            mixed.vm_insert_page(addr, &page)?;
        }
        Ok(())
    }

    fn release(&self) {
        self.context.release();
    }
}

/// Whether `addr` … `addr + len` lies in user space.
fn in_user_space(mm: &MmWithUser, addr: u64, len: u64) -> bool {
    addr.checked_add(len)
        .is_some_and(|end| end <= mm::task_size(mm))
}

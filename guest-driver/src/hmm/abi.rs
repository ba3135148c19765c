// SPDX-License-Identifier: GPL-2.0

//! The calls of `lib/test_hmm_uapi.h`, which is not exported to user space and has no version.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct hmm_dmirror_cmd`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Command {
    /// First page meant.
    pub(crate) addr: u64,
    /// Where data comes from or goes to.
    pub(crate) ptr: u64,
    /// Pages meant.
    pub(crate) npages: u64,
    /// Out: pages done.
    pub(crate) cpages: u64,
    /// Out: times the device had to wait for translations.
    pub(crate) faults: u64,
}

/// `_IOWR('H', number, struct hmm_dmirror_cmd)`.
const fn iowr(number: u32) -> u32 {
    3 << 30 | (size_of::<Command>() as u32) << 16 | (b'H' as u32) << 8 | number
}

/// `HMM_DMIRROR_READ`: the device reads `addr` and writes `ptr`.
pub(crate) const READ: u32 = iowr(0);
/// `HMM_DMIRROR_WRITE`: the device reads `ptr` and writes `addr`.
pub(crate) const WRITE: u32 = iowr(1);
/// `HMM_DMIRROR_MIGRATE_TO_DEV`, and the device then reads `addr` and writes `ptr`.
pub(crate) const MIGRATE_TO_DEV: u32 = iowr(2);
/// `HMM_DMIRROR_MIGRATE_TO_SYS`.
pub(crate) const MIGRATE_TO_SYS: u32 = iowr(3);
/// `HMM_DMIRROR_SNAPSHOT`: a byte a page to `ptr`.
pub(crate) const SNAPSHOT: u32 = iowr(4);
/// `HMM_DMIRROR_EXCLUSIVE`: takes pages from the CPUs, and the device then reads `addr` and writes `ptr`.
pub(crate) const EXCLUSIVE: u32 = iowr(5);
/// `HMM_DMIRROR_CHECK_EXCLUSIVE`: `EPERM` if any page is the device's alone.
pub(crate) const CHECK_EXCLUSIVE: u32 = iowr(6);
/// `HMM_DMIRROR_RELEASE`: brings all pages of the device back.
pub(crate) const RELEASE: u32 = iowr(7);
/// `HMM_DMIRROR_FLAGS`: sets `npages` as the flags.
pub(crate) const FLAGS: u32 = iowr(8);

/// `HMM_DMIRROR_READ_UNLOCKED`, since 7.3: as `READ`, of memory too whose faults a program resolves.
pub(crate) const READ_UNLOCKED: u32 = iowr(9);

/// `HMM_DMIRROR_FLAG_FAIL_ALLOC`: the next allocation of a migration fails.
pub(crate) const FLAG_FAIL_ALLOC: u64 = 1;

/// `HMM_DMIRROR_PROT_*`: what a snapshot says of a page.
pub(crate) const PROT_ERROR: u8 = 0xff;
pub(crate) const PROT_NONE: u8 = 0x00;
pub(crate) const PROT_READ: u8 = 0x01;
pub(crate) const PROT_WRITE: u8 = 0x02;
pub(crate) const PROT_PMD: u8 = 0x04;
pub(crate) const PROT_PUD: u8 = 0x08;
pub(crate) const PROT_ZERO: u8 = 0x10;
pub(crate) const PROT_DEV_PRIVATE_LOCAL: u8 = 0x20;
pub(crate) const PROT_DEV_PRIVATE_REMOTE: u8 = 0x30;
pub(crate) const PROT_DEV_COHERENT_LOCAL: u8 = 0x40;
pub(crate) const PROT_DEV_COHERENT_REMOTE: u8 = 0x50;

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Ioctls of `/dev/coaxN`.
//!
//! An open file is a context: it belongs to the memory of the process that opened it, and only
//! threads that share this memory may use it (others get `EPERM`). All integers have the
//! machine's byte order and a fixed width, structures have no implicit padding, fields called
//! `reserved` must be zero (`EINVAL`). After removal of the device all calls give `ENODEV`; calls that
//! need a device that has stopped answering give `EIO`.
//! `lib/include/coax.h` is the same contract in C.
//!
//! `poll(2)` reports `POLLIN` when a submitted command has completed and was not collected.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::wire::{COMMAND_ARGS, RESULT_BYTES};

/// Ioctl type letter of all calls.
pub const IOC_MAGIC: u32 = 0xC0;
/// Version that [`Info`] reports; it grows with every incompatible change.
pub const UAPI_VERSION: u32 = 2;
/// Commands one context may have submitted and not collected (`EBUSY` beyond).
pub const MAX_IN_FLIGHT: usize = 64;
/// Ranges for which one context may have advice (`ENOSPC` beyond).
pub const MAX_ADVISED: usize = 1024;
/// Most bytes one migrate, residency or advise call may span, 1 TiB (`EINVAL` beyond).
pub const MAX_RANGE_BYTES: u64 = 1 << 40;

/// `_IOC(dir, IOC_MAGIC, nr, size)` of `include/uapi/asm-generic/ioctl.h`.
const fn ioc(dir: u32, nr: u32, size: usize) -> u32 {
    // A size over 14 bits would run into the direction bits.
    assert!(size < 1 << 14);
    (dir << 30) | ((size as u32) << 16) | (IOC_MAGIC << 8) | nr
}
const READ: u32 = 2;
const WRITE: u32 = 1;

/// Fills [`Info`].
pub const IOC_INFO: u32 = ioc(READ, 0, size_of::<Info>());
/// Starts the command in [`Submit`], which gets its identifier.
pub const IOC_SUBMIT: u32 = ioc(READ | WRITE, 1, size_of::<Submit>());
/// Collects the command named in [`Wait`].
pub const IOC_WAIT: u32 = ioc(READ | WRITE, 2, size_of::<Wait>());
/// Moves the pages of the range in [`Migrate`].
pub const IOC_MIGRATE: u32 = ioc(READ | WRITE, 3, size_of::<Migrate>());
/// Says where each page of the range in [`Residency`] is.
pub const IOC_RESIDENCY: u32 = ioc(READ | WRITE, 4, size_of::<Residency>());
/// Sets the context's [`Policy`].
pub const IOC_POLICY: u32 = ioc(WRITE, 5, size_of::<Policy>());
/// Fills [`Stats`].
pub const IOC_STATS: u32 = ioc(READ, 6, size_of::<Stats>());
/// Takes the device out of service and back: commands of all contexts end with `ECANCELED`,
/// all device pages move to system memory. Needs `CAP_SYS_ADMIN` (`EPERM`). No argument.
pub const IOC_RESET: u32 = ioc(0, 7, 0);
/// Gives the [`Advise`] for a range.
pub const IOC_ADVISE: u32 = ioc(WRITE, 8, size_of::<Advise>());
/// Says what holds at the address in [`PolicyAt`].
pub const IOC_POLICY_AT: u32 = ioc(READ | WRITE, 9, size_of::<PolicyAt>());

/// Device memory is device-private: a CPU access brings the page back.
pub const MODE_PRIVATE: u32 = 0;
/// Device memory is device-coherent: the CPU accesses it in place.
pub const MODE_COHERENT: u32 = 1;
/// Device memory is ordinary memory of a node of its own ([`Info::node`]): the system moves pages,
/// those of files and shared memory too (`move_pages(2)`, `mbind(2)`), and [`IOC_MIGRATE`] gives
/// `EOPNOTSUPP`. The driver moves anonymous pages by [`POLICY_ON_FAULT`] alone.
pub const MODE_NUMA: u32 = 2;
/// [`Info::node`] of a device whose memory is not that of a node.
pub const NO_NODE: u32 = u32::MAX;

/// What the device is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Info {
    /// [`UAPI_VERSION`].
    pub version: u32,
    /// `MODE_*`.
    pub mode: u32,
    /// Contexts the device can hold.
    pub max_contexts: u32,
    /// Command queues.
    pub command_queues: u32,
    /// Device memory in pages.
    pub device_pages: u64,
    /// Device memory not in use, in pages.
    pub free_pages: u64,
    /// First page frame number of the device memory's struct pages, as `/proc/PID/pagemap`
    /// shows it; 0 without `CAP_SYS_ADMIN`.
    pub first_pfn: u64,
    /// In [`MODE_NUMA`] the memory node, as `/sys/devices/system/node` numbers it; else [`NO_NODE`].
    pub node: u32,
    /// First `POLICY_*` of a context, and the most eager one that it may have: the driver's parameter
    /// `policy`, in [`MODE_NUMA`] at least [`POLICY_ON_REQUEST`].
    pub policy: u32,
}

/// A command for the device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Submit {
    /// `OP_*` of the device ABI.
    pub opcode: u32,
    /// Must be zero.
    pub reserved: u32,
    /// Arguments of the opcode.
    pub arg: [u64; COMMAND_ARGS],
    /// Out: identifier for [`Wait`], unique in this context.
    pub id: u64,
}

/// Collect a command. `EINTR` leaves it in place (a wait without limit is begun anew where the signal's
/// action has `SA_RESTART`); `ETIMEDOUT` too; `EINVAL`: no such command,
/// or another thread collects it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Wait {
    /// Identifier from [`Submit`].
    pub id: u64,
    /// Longest wait in milliseconds; `u32::MAX` waits without limit.
    pub timeout_ms: u32,
    /// Out: `STATUS_*` of the device ABI.
    pub status: u32,
    /// Out: address refused.
    pub fault_va: u64,
    /// Out: `ACCESS_*` refused.
    pub fault_access: u32,
    /// Must be zero.
    pub reserved: u32,
    /// Out: bytes done.
    pub bytes_done: u64,
    /// Out: page requests the command waited for.
    pub page_requests: u64,
    /// Out: result of the opcode.
    pub result: [u8; RESULT_BYTES],
}

/// To device memory.
pub const MIGRATE_TO_DEVICE: u32 = 1;
/// To system memory.
pub const MIGRATE_TO_SYSTEM: u32 = 2;

/// Move pages on request. Partial success is normal; the counts say what happened. To the device nothing
/// moves of those parts of the range where [`POLICY_NEVER`] holds.
/// `EINVAL`: misaligned, empty, over [`MAX_RANGE_BYTES`], or not in user space; `ESRCH`: no such process;
/// `EACCES`: no right to it; `EPERM`: to the device, and [`POLICY_NEVER`] holds for all of the range;
/// `EFAULT`: part of the range is not mapped (the rest was done);
/// `EOPNOTSUPP`: the request is good, and the system moves these pages ([`MODE_NUMA`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Migrate {
    /// Start, page-aligned.
    pub addr: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// `MIGRATE_TO_*`.
    pub direction: u32,
    /// Process whose memory is meant, 0 for the caller's own. Another's needs
    /// `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE` (`EACCES`), and its own policies and advice do not bind that.
    pub pid: u32,
    /// Out: pages moved.
    pub moved: u64,
    /// Out: pages that were already there.
    pub already: u64,
    /// Out: pages left where they were: never touched, file-backed, pinned, or no memory.
    pub left: u64,
}

/// Nothing is mapped at this page, or it was never touched, or it is swapped out.
pub const RESIDENT_NONE: u8 = 0;
/// Anonymous page in system memory.
pub const RESIDENT_SYSTEM: u8 = 1;
/// Page in this device's memory.
pub const RESIDENT_DEVICE: u8 = 2;
/// File-backed or shared page in system memory: the device uses it in place.
pub const RESIDENT_FILE: u8 = 3;

/// Query where pages are, without touching any: when all has moved that commands collected before were about to
/// move.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Residency {
    /// Start, page-aligned.
    pub addr: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// Where to store a `RESIDENT_*` byte for each page, or 0 for the counts alone.
    pub vector: u64,
    /// Out: pages of each kind, indexed by `RESIDENT_*`.
    pub pages: [u64; 4],
}

/// A device fault migrates the page, and present neighbours, to device memory. The first policy of a
/// context, but in [`MODE_NUMA`], where that is [`POLICY_ON_REQUEST`], and where the driver was loaded
/// with another ([`Info::policy`]). In [`MODE_NUMA`] pages stay that are bound to other nodes (`mbind(2)`).
/// Where the IOMMU translates for the context, pages move when the device uses their 2 MiB often.
pub const POLICY_ON_FAULT: u32 = 0;
/// Pages move only by [`IOC_MIGRATE`]; the device uses the others in place.
pub const POLICY_ON_REQUEST: u32 = 1;
/// Nothing moves; [`IOC_MIGRATE`] to the device gives `EPERM`. What is in device memory stays there until
/// something brings it back.
pub const POLICY_NEVER: u32 = 2;
/// Only in [`Advise`]: the context's policy, whatever that is or becomes.
pub const POLICY_CONTEXT: u32 = 3;

/// Migration policy of the context. `EINVAL`: unknown, or no such `fault_around`; `EPERM`: more eager than
/// what the driver was loaded with; `EACCES`: [`POLICY_ON_FAULT`] in [`MODE_NUMA`], and the caller's
/// `cpuset.mems` lacks the node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Policy {
    /// `POLICY_*`.
    pub policy: u32,
    /// Pages around a device fault that migrate with it: a power of two, 1 … 512; 0 leaves
    /// the setting as it is. Starts at 16.
    pub fault_around: u32,
}

/// Advice for a range of the caller's memory: it overrides the context's [`Policy`] there, and replaces all
/// advice given before for any of it. [`POLICY_CONTEXT`] and 0 take advice away.
///
/// - It binds this context; other open files have advice of their own.
/// - It concerns device faults and calls that begin after it. Pages stay where they are, and a move that
///   is under way may end after the call.
/// - It is a property of what is mapped, as that of `madvise(2)`: it ends when the addresses are
///   unmapped or something else is mapped over them, and does not go along where `mremap(2)` moves
///   them. A child made by `fork(2)` has no context and so no advice; `exec` and close end it.
/// - Pages that move around a fault are those with the same advice.
/// - A context has advice for at most [`MAX_ADVISED`] ranges, neighbours with the same advice being one.
///   If unmapping would cut a range in two in a full table, the advice stays with its addresses.
///
/// On any error all advice is as it was. `EINVAL`: misaligned, empty, over [`MAX_RANGE_BYTES`], or not in
/// user space, unknown policy, or no such `fault_around`; `EPERM`: more eager than what the driver was
/// loaded with; `EACCES`: as for [`Policy`]; `EFAULT`: part of the range is not mapped, unless advice is taken away; `ENOSPC`: more ranges than there may be; `ENOMEM`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Advise {
    /// Start, page-aligned.
    pub addr: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// `POLICY_*`.
    pub policy: u32,
    /// Pages around a device fault that migrate with it: a power of two, 1 … 512; 0: as many as the
    /// context's.
    pub fault_around: u32,
}

/// What holds at an address of the caller's memory, mapped or not. `EINVAL`: not in user space, or
/// `reserved` is not zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PolicyAt {
    /// Address.
    pub addr: u64,
    /// Out: first address from there on that has other advice, or none where this one has some.
    pub end: u64,
    /// Out: `POLICY_*` in force, never [`POLICY_CONTEXT`].
    pub policy: u32,
    /// Out: pages around a device fault that migrate with it.
    pub fault_around: u32,
    /// Out: 1 if there is advice, 0 if both are the context's.
    pub advised: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// Counters since the driver was loaded (`context_*`: since the file was opened).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stats {
    /// Page requests of this context.
    pub context_page_requests: u64,
    /// Pages of this context moved to device memory.
    pub context_to_device: u64,
    /// Commands submitted in this context.
    pub context_commands: u64,
    /// Invalidations sent for this context.
    pub context_invalidations: u64,
    /// Contexts open.
    pub contexts: u64,
    /// Page requests taken from the device.
    pub page_requests: u64,
    /// Translation requests taken from the device.
    pub translation_requests: u64,
    /// Group responses: Success.
    pub responses_success: u64,
    /// Group responses: Invalid Request.
    pub responses_invalid: u64,
    /// Group responses: Response Failure.
    pub responses_failure: u64,
    /// Invalidations sent to the device.
    pub invalidations: u64,
    /// Pages moved to device memory because the device touched them.
    pub to_device_fault: u64,
    /// Pages moved to device memory on request.
    pub to_device_request: u64,
    /// Pages brought back because a CPU touched them.
    pub to_system_fault: u64,
    /// Pages brought back on request.
    pub to_system_request: u64,
    /// Pages brought back by reset, removal or eviction.
    pub to_system_evict: u64,
    /// Pages not moved to device memory because it was full.
    pub device_full: u64,
    /// Messages of the device that made no sense.
    pub device_errors: u64,
    /// Nanoseconds from boot (`CLOCK_BOOTTIME`) to the first page in device memory; 0 if none
    /// moved yet.
    pub first_migration_ns: u64,
    /// Counters of the device itself, in the order of the device ABI's `DeviceStats`; zero if it
    /// does not answer.
    pub device: [u64; 19],
}

const _: () = {
    assert!(size_of::<Info>() == 48);
    assert!(size_of::<Submit>() == 112);
    assert!(size_of::<Wait>() == 80);
    assert!(size_of::<Migrate>() == 48);
    assert!(size_of::<Residency>() == 56);
    assert!(size_of::<Policy>() == 8);
    assert!(size_of::<Advise>() == 24);
    assert!(size_of::<PolicyAt>() == 32);
    assert!(size_of::<Stats>() == 38 * 8);
};

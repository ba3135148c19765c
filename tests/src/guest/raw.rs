// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ioctls as a hostile program would make them: any number, any pointer.

// UNSAFETY: the library refuses to make such calls, and the kernel must.
#![expect(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use coax_abi::uapi::MAX_RANGE_BYTES;
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::memory::{Mapping, PAGE};

/// Bits of a request that hold the size of its argument (`include/uapi/asm-generic/ioctl.h`).
const SIZE_SHIFT: u32 = 16;
const SIZE_MASK: u32 = (1 << 14) - 1;

/// Ranges that every call refuses, and what is wrong with each; some of them near this mapping.
pub fn bad_ranges(memory: &Mapping) -> [(&'static str, u64, u64); 9] {
    let (at, len, page) = (memory.address(), memory.len() as u64, PAGE as u64);
    [
        ("a misaligned start", at + 1, len),
        ("a misaligned length", at, len - 1),
        ("no bytes", at, 0),
        ("more than the limit", at, MAX_RANGE_BYTES + page),
        ("a wrapping range", at, page.wrapping_neg()),
        ("the last page", page.wrapping_neg(), page),
        ("the kernel's half", 0xffff_8880_0000_0000, page),
        ("no canonical address", 0x8000_0000_0000_0000, page),
        ("the end of user space and more", 0x7fff_ffff_e000, 4 * page),
    ]
}

/// Makes the call with the argument's address; the driver's answer is in the argument, and at
/// addresses in it, which must be of [`Mapping`]s or of nothing in this process.
///
/// # Panics
///
/// If the request says that its argument is larger than this one.
pub fn ioctl<T: FromBytes + IntoBytes>(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: &mut T,
) -> Result<(), Errno> {
    let size = (request >> SIZE_SHIFT) & SIZE_MASK;
    assert!(
        size as usize <= size_of::<T>(),
        "{request:#x} takes {size} bytes"
    );
    let pointer: *mut T = argument;
    // SAFETY:
    // - The kernel reads and writes no more than the size in the request, which fits.
    // - Any bytes are a good `T`.
    // - Addresses in the argument name memory into which there are no references.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), pointer) }).map(drop)
}

/// Makes the call with an address that must be of a [`Mapping`], or not be valid
/// memory of this process, or with a call that takes no argument.
pub fn ioctl_at(fd: BorrowedFd<'_>, request: u32, address: u64) -> Result<(), Errno> {
    // SAFETY: callers pass addresses at which nothing of this program lies, or of memory into which
    // there are no references, so that a call that wrote there would change no object of Rust's.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), address) }).map(drop)
}

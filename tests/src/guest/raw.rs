// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ioctls as a hostile program would make them: any number, any pointer.

// UNSAFETY: the library refuses to make such calls, and the kernel must.
#![expect(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

/// Bits of a request that hold the size of its argument (`include/uapi/asm-generic/ioctl.h`).
const SIZE_SHIFT: u32 = 16;
const SIZE_MASK: u32 = (1 << 14) - 1;

/// Makes the call with the argument's address; the driver's answer is in the argument, and at
/// addresses in it, which must be of [`super::memory::Mapping`]s or of nothing in this process.
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

/// Makes the call with an address that must be of a [`super::memory::Mapping`], or not be valid
/// memory of this process, or with a call that takes no argument.
pub fn ioctl_at(fd: BorrowedFd<'_>, request: u32, address: u64) -> Result<(), Errno> {
    // SAFETY: callers pass addresses at which nothing of this program lies, or of memory into which
    // there are no references, so that a call that wrote there would change no object of Rust's.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), address) }).map(drop)
}

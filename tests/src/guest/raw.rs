// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ioctls as a hostile program would make them: any number, any pointer.

// UNSAFETY: the library refuses to make such calls, and the kernel must.
#![expect(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

/// Makes the call with the argument's address; the driver's answer is in the argument.
pub fn ioctl<T: FromBytes + IntoBytes>(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: &mut T,
) -> Result<(), Errno> {
    let pointer: *mut T = argument;
    // SAFETY:
    // - The kernel reads and writes at most the size encoded in the request, which callers
    //   take from the contract together with the type, or which names no call at all.
    // - `T` has no invalid values.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), pointer) }).map(drop)
}

/// Makes the call with an address that must not be valid memory of this process, or with a
/// call that takes no argument.
pub fn ioctl_at(fd: BorrowedFd<'_>, request: u32, address: u64) -> Result<(), Errno> {
    // SAFETY: callers pass addresses at which nothing of this program lies, so that a call
    // that wrote there anyway would change no object of Rust's.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), address) }).map(drop)
}

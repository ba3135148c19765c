// SPDX-License-Identifier: GPL-2.0

//! Plain structures to and from user space, each copied once.
//!
//! C header: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h)

use kernel::{
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reads a `T` from the address `addr` of the calling process.
///
/// # Errors
///
/// `EFAULT`: the memory cannot be read.
pub(crate) fn read<T: FromBytes + IntoBytes>(addr: usize) -> Result<T> {
    let mut value = T::new_zeroed();
    UserSlice::new(UserPtr::from_addr(addr), size_of::<T>())
        .reader()
        .read_slice(value.as_mut_bytes())?;
    Ok(value)
}

/// Writes `value` to the address `addr` of the calling process.
///
/// # Errors
///
/// `EFAULT`: the memory cannot be written.
pub(crate) fn write<T: IntoBytes + Immutable>(addr: usize, value: &T) -> Result {
    write_bytes(addr, value.as_bytes())
}

/// Writes `bytes` to the address `addr` of the calling process.
///
/// # Errors
///
/// `EFAULT`: the memory cannot be written.
pub(crate) fn write_bytes(addr: usize, bytes: &[u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(addr), bytes.len())
        .writer()
        .write_slice(bytes)
}

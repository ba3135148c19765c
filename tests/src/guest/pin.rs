// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Long-term pins of memory, as `io_uring` takes them for registered buffers.

// UNSAFETY: neither libc nor nix has `io_uring`.
#![expect(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{ensure, Result};

use super::memory::Mapping;

/// `IORING_REGISTER_BUFFERS`.
const REGISTER_BUFFERS: u32 = 0;
/// `struct io_uring_params`, in words; zeros ask for nothing special.
const PARAMETER_WORDS: usize = 15;

/// Pages that cannot move until this value goes.
#[derive(Debug)]
pub struct Pin(#[expect(dead_code, reason = "closing it unpins")] OwnedFd);

impl Pin {
    /// Pins all pages of the mapping, writable and for long.
    pub fn of(mapping: &Mapping) -> Result<Self> {
        let mut parameters = [0u64; PARAMETER_WORDS];
        let pointer = parameters.as_mut_ptr();
        // SAFETY: the kernel reads and writes one `struct io_uring_params`, which fits.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, pointer) };
        ensure!(fd >= 0, "io_uring_setup: {}", last_error());
        // SAFETY: the call made this descriptor and nobody else knows it.
        let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
        let vector = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(usize::try_from(mapping.address())?),
            iov_len: mapping.len(),
        };
        // SAFETY: the vector is one valid element for the time of the call; the pages are only
        // pinned, as no operation is ever submitted.
        let result = unsafe {
            let call = libc::SYS_io_uring_register;
            libc::syscall(call, ring.as_raw_fd(), REGISTER_BUFFERS, &vector, 1)
        };
        ensure!(result == 0, "io_uring_register: {}", last_error());
        Ok(Pin(ring))
    }
}

fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}

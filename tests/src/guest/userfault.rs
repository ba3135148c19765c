// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A program that resolves faults: `userfaultfd(2)`.
//!
//! Neither libc nor nix has its structures; they are those of `include/uapi/linux/userfaultfd.h`.

// UNSAFETY: ioctls on address ranges.
#![expect(unsafe_code)]

use std::io::ErrorKind;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{bail, ensure, Context, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::memory::{Mapping, PAGE};
use super::process::readable;
use super::wait::event_limit;
use crate::case::Skip;

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFD_FEATURE_WP_HUGETLBFS_SHMEM`.
const PROTECT_SHARED: u64 = 1 << 12;
/// `UFFD_EVENT_PAGEFAULT`.
const EVENT_PAGEFAULT: u8 = 0x12;
/// `UFFD_PAGEFAULT_FLAG_WP`.
const FLAG_PROTECTED: u64 = 1 << 1;

/// What a monitor resolves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Watch {
    /// Pages that are not there (`UFFDIO_REGISTER_MODE_MISSING`).
    Missing = 1,
    /// Writes to pages that it has protected (`UFFDIO_REGISTER_MODE_WP`).
    Writes = 2,
    /// Pages that are in the file and not mapped (`UFFDIO_REGISTER_MODE_MINOR`).
    Unmapped = 4,
}

/// A fault to be resolved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Number of the page in the mapping.
    pub page: usize,
    /// It is a write to a protected page.
    pub protected: bool,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    more: u64,
}

/// Resolves faults in one mapping.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
    address: u64,
}

/// `_IOWR(UFFDIO, number, …)` of a structure of `words` 64-bit fields.
const fn iowr(number: u64, words: usize) -> u64 {
    3 << 30 | (words as u64 * 8) << 16 | 0xaa << 8 | number
}

impl Monitor {
    /// Has faults in the mapping told to the caller.
    pub fn new(memory: &Mapping, watch: Watch) -> Result<Self> {
        // SAFETY: the call takes an integer and touches no memory.
        let fd =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Skip(format!("the kernel has no userfaultfd: {error}")).into());
        }
        // SAFETY: the call made this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
        let monitor = Monitor {
            fd,
            address: memory.address(),
        };
        let features = if watch == Watch::Writes {
            PROTECT_SHARED
        } else {
            0
        };
        monitor
            .call(0x3f, &mut [API, features, 0])
            .context("UFFDIO_API")?;
        let len = memory.len() as u64;
        monitor
            .call(0x00, &mut [monitor.address, len, watch as u64, 0])
            .context("UFFDIO_REGISTER")?;
        Ok(monitor)
    }

    fn call<const WORDS: usize>(
        &self,
        number: u64,
        argument: &mut [u64; WORDS],
    ) -> std::io::Result<()> {
        // SAFETY:
        // - The structure has the size that the call's number says.
        // - What the calls change is memory of a mapping, into which there are no references.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                iowr(number, WORDS),
                argument.as_mut_ptr(),
            )
        };
        if result < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits for the next fault.
    pub fn next(&self) -> Result<Fault> {
        ensure!(
            readable(self.fd.as_fd(), event_limit())?,
            "No fault within {:?}",
            event_limit()
        );
        match self.pending()? {
            Some(fault) => Ok(fault),
            None => bail!("A fault that is none"),
        }
    }

    /// The next fault, if there is one.
    pub fn pending(&self) -> Result<Option<Fault>> {
        let mut bytes = [0; size_of::<Message>()];
        match nix::unistd::read(&self.fd, &mut bytes).map_err(std::io::Error::from) {
            Ok(len) => ensure!(len == bytes.len(), "{len} bytes from the userfaultfd"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("userfaultfd"),
        }
        let message = Message::read_from_bytes(&bytes).map_err(|_| anyhow::anyhow!("Message"))?;
        ensure!(
            message.event == EVENT_PAGEFAULT,
            "Event {:#x}",
            message.event
        );
        Ok(Some(Fault {
            page: (message.address - self.address) as usize / PAGE,
            protected: message.flags & FLAG_PROTECTED != 0,
        }))
    }

    fn at(&self, page: usize) -> u64 {
        self.address + (page * PAGE) as u64
    }

    /// Puts a page in place.
    pub fn give(&self, page: usize, bytes: &[u8; PAGE]) -> Result<()> {
        let mut copy = [self.at(page), bytes.as_ptr() as u64, PAGE as u64, 0, 0];
        self.call(0x03, &mut copy).context("UFFDIO_COPY")
    }

    /// Maps a page that is in the file.
    pub fn map(&self, page: usize) -> Result<()> {
        let mut go_on = [self.at(page), PAGE as u64, 0, 0];
        self.call(0x07, &mut go_on).context("UFFDIO_CONTINUE")
    }

    /// Protects pages from writes, or no longer.
    pub fn protect(&self, pages: Range<usize>, protected: bool) -> Result<()> {
        let len = (pages.len() * PAGE) as u64;
        self.call(0x06, &mut [self.at(pages.start), len, protected.into()])
            .context("UFFDIO_WRITEPROTECT")
    }
}

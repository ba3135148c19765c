// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files as the device reads them: mapped, in the page cache where they are.
// UNSAFETY: files are mapped and unmapped, and the device is given the mapping's address.
#![expect(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::ptr;

use crate::command::Command;
use crate::context::Context;
use crate::error::Error;

/// A file mapped to be read.
///
/// # Invariants
///
/// `at` … `at + len` is a mapping of its own, and `len` is not 0.
struct Mapping {
    at: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    fn of(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: A new mapping anywhere disturbs nothing that exists.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // INVARIANT: The kernel gave this range to nobody else, and maps nothing of length 0.
        Ok(Self { at, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant the mapping is this value's alone.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

impl Context {
    /// SHA-256 of a file: a regular file, from its beginning, is mapped, and the device reads its pages in
    /// the page cache, where they are; of anything else, such as a pipe, or a file of the kernel's that cannot
    /// be mapped, the contents are read into memory, where the device reads them.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] if the file can be neither mapped nor read, or the driver did not take the command;
    /// [`Error::Command`] if the device could not do it, with a fault in the mapping if the file was
    /// cut short meanwhile.
    pub fn sha256_file(&self, file: &mut File) -> Result<[u8; 32], Error> {
        let refused = |call| move |source| Error::Call { call, source };
        let metadata = file.metadata().map_err(refused("fstat"))?;
        // What the kernel makes up as it is read has no length.
        let mapped = metadata.is_file() && metadata.len() > 0;
        let len = usize::try_from(metadata.len()).ok().filter(|_| mapped);
        // Nor has all that has a length pages to map: of sysfs that is a page, of some file systems nothing.
        let Some(mapping) = len.and_then(|len| Mapping::of(file, len).ok()) else {
            let mut contents = Vec::new();
            file.read_to_end(&mut contents).map_err(refused("read"))?;
            return self.sha256(&contents);
        };
        let len = mapping.len;
        let command = Command::sha256(mapping.at.expose_provenance() as u64, len as u64);
        // SAFETY: The device reads the mapping, which is there until it is done. Others may write to the
        // file meanwhile; nothing in this process looks at it as memory.
        Ok(unsafe { self.run(command) }?.result)
    }
}

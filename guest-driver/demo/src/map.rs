// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shared mappings: of a file, and of memory that never leaves the system.
// UNSAFETY: mmap(2) and munmap(2).
#![expect(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use anyhow::{ensure, Context as _, Result};

/// Counters of a byte histogram.
const BYTE_VALUES: usize = 256;

/// Mapped memory, unmapped on drop.
///
/// # Invariants
///
/// `start` … `start + len` is a mapping of its own that can be read.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize, rights: c_int, flags: c_int, fd: c_int) -> io::Result<Self> {
        // SAFETY: Without MAP_FIXED the kernel picks an address where nothing is.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                rights,
                libc::MAP_SHARED | flags,
                fd,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // INVARIANT: The kernel has just made this mapping, and callers ask for PROT_READ.
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours by the invariant, and no borrow outlives `self`. The call
        // cannot fail for a mapping that exists.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A file mapped shared and read-only.
#[derive(Debug)]
pub struct MappedFile(Mapping);

impl MappedFile {
    /// Maps a whole file. It must not be truncated or written while it is mapped, which holds
    /// for the kernel image that the demonstration uses.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("Cannot open {name}"))?;
        let len = file
            .metadata()
            .with_context(|| format!("Cannot examine {name}"))?
            .len();
        ensure!(len > 0, "{name} is empty");
        let mapping = Mapping::new(len as usize, libc::PROT_READ, 0, file.as_raw_fd())
            .with_context(|| format!("Cannot map {name}"))?;
        Ok(Self(mapping))
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY:
        // - The mapping is readable and lives as long as `self`, by the invariant.
        // - Nobody writes the file, as `open` demands.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }
}

/// Histogram counters in shared memory, which belongs to a file system and so never migrates.
#[derive(Debug)]
pub struct SharedCounters(Mapping);

impl SharedCounters {
    /// Counters at zero.
    pub fn new() -> Result<Self> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let len = size_of::<[u64; BYTE_VALUES]>();
        let mapping = Mapping::new(len, rights, libc::MAP_ANONYMOUS, -1)
            .context("Cannot map shared memory")?;
        Ok(Self(mapping))
    }

    /// The counters.
    pub fn get(&mut self) -> &mut [u64; BYTE_VALUES] {
        // SAFETY:
        // - The mapping is page-aligned, as long as the array, readable and writable, and lives
        //   as long as `self`.
        // - It is shared with nobody: no child inherits it while it is borrowed.
        unsafe { self.0.start.cast().as_mut() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_file_shows_its_bytes() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("file");
        std::fs::write(&path, b"coax").expect("a scratch file");
        assert_eq!(MappedFile::open(&path).expect("mapped").bytes(), b"coax");
    }

    #[test]
    fn empty_and_missing_files_are_refused() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("empty");
        assert!(MappedFile::open(&path).is_err());
        std::fs::write(&path, b"").expect("a scratch file");
        assert!(MappedFile::open(&path).is_err());
    }

    #[test]
    fn counters_start_at_zero_and_keep_values() {
        let mut counters = SharedCounters::new().expect("mapped");
        assert_eq!(counters.get(), &[0; BYTE_VALUES]);
        counters.get()[255] = 7;
        assert_eq!(counters.get()[255], 7);
    }
}

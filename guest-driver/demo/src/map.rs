// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mappings: of a file, of memory that never leaves the system, and of memory in pages of one size.
// UNSAFETY: mmap(2), madvise(2) and munmap(2).
#![expect(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use anyhow::{ensure, Context as _, Result};

/// Size of a large page.
const HUGE_PAGE: usize = 2 << 20;
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
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, fd, 0) };
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
        let mapping = Mapping::new(
            len as usize,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
        )
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
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let mapping = Mapping::new(len, rights, flags, -1).context("Cannot map shared memory")?;
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

/// Private memory of the process in pages of 2 MiB, or without any of those.
#[derive(Debug)]
pub struct PrivateMemory {
    mapping: Mapping,
    /// Bytes of the mapping before the memory.
    skipped: usize,
    len: usize,
}

impl PrivateMemory {
    /// Maps and writes so many bytes from an address on at which a large page can be.
    pub fn new(len: usize, huge: bool) -> Result<Self> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let mapping =
            Mapping::new(len + HUGE_PAGE, rights, flags, -1).context("Cannot map memory")?;
        let start = mapping.start.as_ptr();
        let skipped = start.align_offset(HUGE_PAGE);
        ensure!(skipped < HUGE_PAGE, "memory cannot be aligned");
        let advice = if huge {
            libc::MADV_HUGEPAGE
        } else {
            libc::MADV_NOHUGEPAGE
        };
        // SAFETY: The range lies in the mapping, and the advice changes no content.
        let refused = unsafe { libc::madvise(start.add(skipped).cast(), len, advice) };
        ensure!(
            refused == 0,
            "Cannot choose the size of pages: {}",
            io::Error::last_os_error()
        );
        let mut memory = Self {
            mapping,
            skipped,
            len,
        };
        memory.bytes_mut().fill(1);
        Ok(memory)
    }

    /// The memory.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: The range lies in a readable mapping of ours that lives as long as `self`.
        unsafe {
            std::slice::from_raw_parts(self.mapping.start.as_ptr().add(self.skipped), self.len)
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As above, the mapping is writable, and it is borrowed exclusively with `self`.
        unsafe {
            std::slice::from_raw_parts_mut(self.mapping.start.as_ptr().add(self.skipped), self.len)
        }
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
    fn private_memory_is_aligned_and_written_to_its_end() {
        for huge in [false, true] {
            let memory = PrivateMemory::new(3 << 20, huge).expect("mapped");
            assert_eq!(memory.bytes().as_ptr().addr() % HUGE_PAGE, 0);
            assert_eq!(memory.bytes().len(), 3 << 20);
            assert!(memory.bytes().iter().all(|byte| *byte == 1));
        }
    }

    #[test]
    fn counters_start_at_zero_and_keep_values() {
        let mut counters = SharedCounters::new().expect("mapped");
        assert_eq!(counters.get(), &[0; BYTE_VALUES]);
        counters.get()[255] = 7;
        assert_eq!(counters.get()[255], 7);
    }
}

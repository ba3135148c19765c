// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory mappings whose content a device changes.
//!
//! No reference into a mapping is ever made, only copies in and out, so neither the device nor
//! a change of protection breaks what the compiler may assume. An access that the protection
//! forbids ends the process with a signal, which the runner reports as a failure of the case.

// UNSAFETY: system calls on address ranges and accesses through raw pointers are the subject.
#![expect(unsafe_code)]

mod relocate;

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use anyhow::{Context, Result};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a huge page.
pub const HUGE: usize = 2 << 20;

/// Readable and writable.
pub const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// Readable.
pub const READ_ONLY: i32 = libc::PROT_READ;
/// Not accessible.
pub const NO_ACCESS: i32 = libc::PROT_NONE;

/// A range of this process's address space.
///
/// # Invariants
///
/// `address … address + len` was returned by `mmap` or `mremap` and is owned by this value; of
/// it, everything outside `holes` is still mapped.
#[derive(Debug)]
pub struct Mapping {
    address: usize,
    len: usize,
    holes: Mutex<Vec<Range<usize>>>,
}

impl Mapping {
    /// Private anonymous memory.
    pub fn anonymous(len: usize) -> Result<Self> {
        Self::map(
            0,
            len,
            READ_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            None,
        )
    }

    /// Private anonymous memory at a free address.
    pub fn anonymous_at(address: usize, len: usize) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        Self::map(address, len, READ_WRITE, flags, None)
    }

    /// Private anonymous memory for which nothing is set aside, however much it is, and no huge pages wanted: a
    /// kernel may use them unasked.
    pub fn reserved(len: usize) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mapping = Self::map(0, len, READ_WRITE, flags, None)?;
        mapping
            .advise(0..len, libc::MADV_NOHUGEPAGE)
            .context("MADV_NOHUGEPAGE")?;
        Ok(mapping)
    }

    /// Anonymous memory shared with children.
    pub fn shared(len: usize) -> Result<Self> {
        Self::map(
            0,
            len,
            READ_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            None,
        )
    }

    /// The file, its pages shared.
    pub fn file_shared(file: BorrowedFd<'_>, len: usize, protection: i32) -> Result<Self> {
        Self::map(0, len, protection, libc::MAP_SHARED, Some(file))
    }

    /// The file, copied on write.
    pub fn file_private(file: BorrowedFd<'_>, len: usize) -> Result<Self> {
        Self::map(0, len, READ_WRITE, libc::MAP_PRIVATE, Some(file))
    }

    /// Private anonymous memory on huge-page boundaries, for which huge pages are wanted.
    pub fn huge(len: usize) -> Result<Self> {
        let mapping = Self::placed(len, 0, READ_WRITE)?;
        mapping
            .advise(0..len, libc::MADV_HUGEPAGE)
            .context("MADV_HUGEPAGE")?;
        Ok(mapping)
    }

    /// Private anonymous memory on huge-page boundaries, for which no huge pages are wanted.
    pub fn small_pages(len: usize) -> Result<Self> {
        let mapping = Self::placed(len, 0, READ_WRITE)?;
        mapping
            .advise(0..len, libc::MADV_NOHUGEPAGE)
            .context("MADV_NOHUGEPAGE")?;
        Ok(mapping)
    }

    /// Private anonymous memory of pages set aside for `hugetlbfs`.
    pub fn set_aside(len: usize) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        Self::map(0, len, READ_WRITE, flags, None)
    }

    /// Private anonymous memory that begins `offset` after a huge-page boundary.
    fn placed(len: usize, offset: usize, protection: i32) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let wide = Self::map(0, len + HUGE + offset, protection, flags, None)?;
        let start = wide.address.next_multiple_of(HUGE) + offset;
        let head = start - wide.address;
        let tail = wide.len - head - len;
        if head > 0 {
            wide.unmap(0..head)?;
        }
        if tail > 0 {
            wide.unmap(head + len..head + len + tail)?;
        }
        std::mem::forget(wide);
        // INVARIANT: the rest of the wide mapping, which nobody owns any more.
        Ok(Mapping {
            address: start,
            len,
            holes: Mutex::default(),
        })
    }

    fn map(
        address: usize,
        len: usize,
        protection: i32,
        flags: i32,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Self> {
        let fd = file.map_or(-1, |file| file.as_raw_fd());
        // SAFETY:
        // - No existing mapping is replaced: MAP_FIXED is not among the flags of any caller.
        // - The descriptor is borrowed for the call, or -1 with MAP_ANONYMOUS.
        let got = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(address),
                len,
                protection,
                flags,
                fd,
                0,
            )
        };
        if got == libc::MAP_FAILED {
            let error = std::io::Error::last_os_error();
            return Err(error).with_context(|| format!("mmap of {len} bytes at {address:#x}"));
        }
        // INVARIANT: the range is fresh from `mmap`.
        Ok(Mapping {
            address: got.expose_provenance(),
            len,
            holes: Mutex::default(),
        })
    }

    /// First address.
    pub fn address(&self) -> u64 {
        self.address as u64
    }

    /// Address of a byte in the mapping.
    pub fn at(&self, offset: usize) -> u64 {
        assert!(
            offset <= self.len,
            "offset {offset} of a mapping of {}",
            self.len
        );
        (self.address + offset) as u64
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no bytes; none does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pages.
    pub fn pages(&self) -> u64 {
        (self.len / PAGE) as u64
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.pointer(offset, into.len());
        // SAFETY:
        // - The source is mapped (invariant, checked by `pointer`) and `into` is a slice.
        // - They do not overlap: no reference into a mapping is ever made.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// Copies the whole mapping out.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let into = self.pointer(offset, from.len());
        // SAFETY:
        // - The destination is mapped (invariant, checked by `pointer`) and `from` is a slice.
        // - They do not overlap: no reference into a mapping is ever made.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) };
    }

    /// Sets all bytes of a range.
    pub fn fill(&self, range: Range<usize>, byte: u8) {
        let into = self.pointer(range.start, range.len());
        // SAFETY: the range is mapped (invariant, checked by `pointer`).
        unsafe { std::ptr::write_bytes(into, byte, range.len()) };
    }

    /// Has the kernel write the mapping's bytes to the file, as `write(2)`; returns how many.
    pub fn send(&self, range: Range<usize>, file: BorrowedFd<'_>) -> Result<usize> {
        let from = self.pointer(range.start, range.len());
        // SAFETY: the source is mapped (invariant, checked by `pointer`) and only read.
        let sent = unsafe { libc::write(file.as_raw_fd(), from.cast(), range.len()) };
        moved(sent).context("write")
    }

    /// Has the kernel read from the file into the mapping, as `read(2)`; returns how many bytes.
    pub fn receive(&self, range: Range<usize>, file: BorrowedFd<'_>) -> Result<usize> {
        let into = self.pointer(range.start, range.len());
        // SAFETY: the destination is mapped (invariant, checked by `pointer`), and there are no
        // references into it.
        let got = unsafe { libc::read(file.as_raw_fd(), into.cast(), range.len()) };
        moved(got).context("read")
    }

    /// Puts references to the pages of a range into a pipe, as `vmsplice(2)`: until the pipe is
    /// read they cannot move. Returns how many bytes the pipe holds.
    pub fn pin_in_pipe(&self, range: Range<usize>, pipe: BorrowedFd<'_>) -> Result<usize> {
        let from = self.pointer(range.start, range.len());
        let vector = libc::iovec {
            iov_base: from.cast(),
            iov_len: range.len(),
        };
        // SAFETY:
        // - The vector is one valid element for the time of the call.
        // - The source is mapped (invariant, checked by `pointer`) and only read, now or when
        //   the pipe is read.
        let taken = unsafe { libc::vmsplice(pipe.as_raw_fd(), &vector, 1, 0) };
        moved(taken).context("vmsplice")
    }

    /// Reads a word that others, the device among them, may write at the same time.
    pub fn load(&self, offset: usize) -> u64 {
        self.word(offset, |word| word.load(Ordering::SeqCst))
    }

    /// Writes a word that others, the device among them, may access at the same time.
    pub fn store(&self, offset: usize, value: u64) {
        self.word(offset, |word| word.store(value, Ordering::SeqCst));
    }

    /// Adds to a word that others, the device among them, may access at the same time.
    pub fn add(&self, offset: usize, addend: u64) {
        self.word(offset, |word| word.fetch_add(addend, Ordering::SeqCst));
    }

    /// Gives such a word a new value if it has the one expected, and tells whether it had.
    pub fn swap(&self, offset: usize, expected: u64, new: u64) -> bool {
        let order = Ordering::SeqCst;
        self.word(offset, |word| {
            word.compare_exchange(expected, new, order, order).is_ok()
        })
    }

    fn word<R>(&self, offset: usize, access: impl FnOnce(&AtomicU64) -> R) -> R {
        let pointer = self.pointer(offset, 8).cast::<u64>();
        assert!(pointer.is_aligned(), "word at offset {offset}");
        // SAFETY:
        // - Mapped (invariant, checked by `pointer`) and aligned.
        // - The reference lives for this one atomic access; no plain reference exists.
        access(unsafe { AtomicU64::from_ptr(pointer) })
    }

    /// Changes the protection of a range.
    pub fn protect(&self, range: Range<usize>, protection: i32) -> Result<()> {
        let start = self.pointer(range.start, range.len());
        // SAFETY: the range belongs to this mapping, into which there are no references.
        let result = unsafe { libc::mprotect(start.cast(), range.len(), protection) };
        check(result).with_context(|| format!("mprotect of {range:?}"))
    }

    /// Unmaps a range, which is a hole from then on.
    pub fn unmap(&self, range: Range<usize>) -> Result<()> {
        let start = self.pointer(range.start, range.len());
        // INVARIANT: the hole is recorded before the range can belong to anyone else.
        self.lock_holes().push(range.clone());
        // SAFETY: the range belongs to this mapping, into which there are no references.
        let result = unsafe { libc::munmap(start.cast(), range.len()) };
        if result != 0 {
            self.lock_holes().retain(|hole| *hole != range);
        }
        check(result).with_context(|| format!("munmap of {range:?}"))
    }

    /// Locks all pages in memory, as `mlock(2)`.
    pub fn lock(&self) -> Result<()> {
        let start = self.pointer(0, self.len);
        // SAFETY: the range belongs to this mapping; no byte of it changes.
        check(unsafe { libc::mlock(start.cast(), self.len) }).context("mlock")
    }

    /// Undoes [`Mapping::lock`].
    pub fn unlock(&self) -> Result<()> {
        let start = self.pointer(0, self.len);
        // SAFETY: the range belongs to this mapping; no byte of it changes.
        check(unsafe { libc::munlock(start.cast(), self.len) }).context("munlock")
    }

    /// Gives the kernel advice about a range.
    pub fn advise(&self, range: Range<usize>, advice: i32) -> std::io::Result<()> {
        let start = self.pointer(range.start, range.len());
        // SAFETY: the range belongs to this mapping, into which there are no references; advice
        // that drops content changes bytes as the device might.
        let result = unsafe { libc::madvise(start.cast(), range.len(), advice) };
        check(result)
    }

    /// Pointer to `len` bytes that are mapped.
    fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        assert!(
            end.is_some(),
            "{len} bytes at {offset} of a mapping of {}",
            self.len
        );
        let free = self
            .lock_holes()
            .iter()
            .all(|hole| hole.end <= offset || Some(hole.start) >= end);
        assert!(free, "{len} bytes at {offset} are unmapped");
        std::ptr::with_exposed_provenance_mut(self.address + offset)
    }

    fn lock_holes(&self) -> std::sync::MutexGuard<'_, Vec<Range<usize>>> {
        self.holes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut holes = std::mem::take(&mut *self.lock_holes());
        holes.sort_by_key(|hole| hole.start);
        holes.push(self.len..self.len);
        let mut start = 0;
        for hole in holes {
            if hole.start > start {
                let pointer = std::ptr::with_exposed_provenance_mut(self.address + start);
                // SAFETY: the range belongs to this mapping (invariant), which ends here.
                unsafe { libc::munmap(pointer, hole.start - start) };
            }
            start = start.max(hole.end);
        }
    }
}

/// Bytes that a system call moved, or its error.
fn moved(result: isize) -> std::io::Result<usize> {
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(result.unsigned_abs())
    }
}

/// The system call's error, if it returned one.
fn check(result: i32) -> std::io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_mappings_are_aligned_and_of_the_length_asked_for() -> Result<()> {
        let mapping = Mapping::huge(2 * HUGE)?;
        assert_eq!(mapping.address() as usize % HUGE, 0);
        mapping.fill(0..2 * HUGE, 7);
        assert_eq!(mapping.load(2 * HUGE - 8), 0x0707_0707_0707_0707);
        Ok(())
    }

    #[test]
    #[should_panic(expected = "are unmapped")]
    fn holes_are_not_accessed() {
        let mapping = Mapping::anonymous(3 * PAGE).expect("mmap");
        mapping.unmap(PAGE..2 * PAGE).expect("munmap");
        mapping.store(2 * PAGE, 1);
        mapping.load(PAGE);
    }
}

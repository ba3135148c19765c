// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `PROCMAP_QUERY`: one mapping of a process (`include/uapi/linux/fs.h`).
//!
//! Not the text of `/proc/PID/maps`: while that is read, a process that unmaps all it has takes the kernel
//! down (`mas_next_slot()` of Linux 7.2 goes on in a tree that has become empty). A query begins at an address
//! and holds nothing between two of them, so that the moment in which that can happen is short; it is still there.
// UNSAFETY: ioctl(2) takes an untyped pointer, and this one's argument an address.
#![expect(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;

/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`.
const COVERING_OR_NEXT: u64 = 0x10;
/// `PROCMAP_QUERY_VMA_*`, in the order of their bits.
pub const READABLE: u64 = 1 << 0;
pub const WRITABLE: u64 = 1 << 1;
pub const EXECUTABLE: u64 = 1 << 2;
pub const SHARED: u64 = 1 << 3;
/// Longest name with its terminating zero: `PATH_MAX`.
const MOST_NAME: usize = 4096;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// `PROCMAP_QUERY`, `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: u32 = 3 << 30 | (size_of::<Query>() as u32) << 16 | (b'f' as u32) << 8 | 17;

/// A mapping as the kernel tells it.
pub struct Found {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// [`READABLE`] and the others.
    pub flags: u64,
    /// Path, `[heap]` and the like, or nothing.
    pub name: OsString,
}

/// The first mapping that ends after `addr`, of the process whose `/proc/PID/maps` this is; `None` after
/// the last.
///
/// # Errors
///
/// `ESRCH`: the process has ended.
pub fn next(maps: &File, addr: u64) -> io::Result<Option<Found>> {
    let mut name = [0u8; MOST_NAME];
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_flags: COVERING_OR_NEXT,
        query_addr: addr,
        vma_name_size: MOST_NAME as u32,
        vma_name_addr: name.as_mut_ptr().expose_provenance() as u64,
        ..Query::default()
    };
    let argument: *mut Query = &mut query;
    // SAFETY:
    // - The call reads and writes one `Query`, whose size it is told.
    // - It writes at most `vma_name_size` bytes of a name to `name`, which lives as long.
    let result =
        unsafe { libc::ioctl(maps.as_raw_fd(), libc::Ioctl::from(PROCMAP_QUERY), argument) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            _ => Err(error),
        };
    }
    let length = (query.vma_name_size as usize).saturating_sub(1);
    let name = OsString::from_vec(name[..length.min(MOST_NAME)].to_vec());
    Ok(Some(Found {
        start: query.vma_start,
        end: query.vma_end,
        flags: query.vma_flags,
        name,
    }))
}

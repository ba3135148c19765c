// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ioctls of `/dev/coaxN`, one function each, and the system calls on memory nodes and page tables.
// UNSAFETY: ioctl(2) takes an untyped pointer; the pairs of number and structure are made here
// and nowhere else. Neither has the C library the calls on nodes.
#![expect(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use coax_abi::uapi;
use coax_abi::wire::PAGE_SIZE;

/// Calls the driver with a pointer to `argument`.
///
/// # Safety
///
/// - `request` must be the ioctl that takes a `T`, which bounds what the driver reads and
///   writes at `argument`.
/// - Addresses inside `argument` must be good for what the call makes of them.
unsafe fn call<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> io::Result<()> {
    let pointer: *mut T = argument;
    // SAFETY:
    // - `fd` is open for as long as the borrow lasts.
    // - `pointer` comes from a mutable reference, and the driver accesses no more than a `T`
    //   behind it by the caller's promise.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::Ioctl::from(request), pointer) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Device and number of a file, which no other file has while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(libc::dev_t, libc::ino_t);

/// Which file a descriptor is of.
pub fn file_of(fd: BorrowedFd<'_>) -> io::Result<FileId> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: The call fills a `stat`, whatever the descriptor is of; one that is of nothing is an error.
    if unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The call succeeded and has filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(FileId(stat.st_dev, stat.st_ino))
}

/// `IOC_INFO`.
pub fn info(fd: BorrowedFd<'_>) -> io::Result<uapi::Info> {
    let mut info = uapi::Info::default();
    // SAFETY: The call fills an `Info`, which holds no addresses.
    unsafe { call(fd, uapi::IOC_INFO, &mut info) }?;
    Ok(info)
}

/// `IOC_SUBMIT`.
///
/// # Safety
///
/// The device accesses the memory that `submit` names until the command was collected or the
/// context is closed: what it reads must not be written, what it writes must not be accessed
/// meanwhile, and none of it must be memory that Rust takes for unchanging.
pub unsafe fn submit(fd: BorrowedFd<'_>, submit: &mut uapi::Submit) -> io::Result<()> {
    // SAFETY: The call takes a `Submit`; its addresses are the caller's promise.
    unsafe { call(fd, uapi::IOC_SUBMIT, submit) }
}

/// `IOC_WAIT`.
pub fn wait(fd: BorrowedFd<'_>, wait: &mut uapi::Wait) -> io::Result<()> {
    // SAFETY: The call takes a `Wait`, which names a command and no memory.
    unsafe { call(fd, uapi::IOC_WAIT, wait) }
}

/// `IOC_MIGRATE`. Moving pages does not change what is in them, so any range will do.
pub fn migrate(fd: BorrowedFd<'_>, migrate: &mut uapi::Migrate) -> io::Result<()> {
    // SAFETY: The call takes a `Migrate`; it changes where the range lies physically, not its
    // content or mapping.
    unsafe { call(fd, uapi::IOC_MIGRATE, migrate) }
}

/// `IOC_RESIDENCY` for counts alone, or with a `RESIDENT_*` byte a page in `vector`.
///
/// # Panics
///
/// If `vector` is shorter than the range has pages.
pub fn residency(
    fd: BorrowedFd<'_>,
    addr: u64,
    len: u64,
    vector: Option<&mut [u8]>,
) -> io::Result<[u64; 4]> {
    let vector = vector.map_or(0, |bytes| {
        assert!(
            bytes.len() as u64 >= len.div_ceil(PAGE_SIZE),
            "one byte for each page"
        );
        bytes.as_mut_ptr().expose_provenance() as u64
    });
    let mut residency = uapi::Residency {
        addr,
        len,
        vector,
        ..Default::default()
    };
    // SAFETY: The call takes a `Residency`; it writes one byte a page at `vector`, and the
    // assertion above made sure of the room. The range is only looked at.
    unsafe { call(fd, uapi::IOC_RESIDENCY, &mut residency) }?;
    Ok(residency.pages)
}

/// `IOC_POLICY`.
pub fn policy(fd: BorrowedFd<'_>, mut policy: uapi::Policy) -> io::Result<()> {
    // SAFETY: The call reads a `Policy`, which holds no addresses.
    unsafe { call(fd, uapi::IOC_POLICY, &mut policy) }
}

/// `IOC_ADVISE`. Advice changes where pages may lie, not what is in them, so any range will do.
pub fn advise(fd: BorrowedFd<'_>, mut advise: uapi::Advise) -> io::Result<()> {
    // SAFETY: The call reads an `Advise`; its range is only named.
    unsafe { call(fd, uapi::IOC_ADVISE, &mut advise) }
}

/// `IOC_POLICY_AT`.
pub fn policy_at(fd: BorrowedFd<'_>, addr: u64) -> io::Result<uapi::PolicyAt> {
    let mut found = uapi::PolicyAt {
        addr,
        ..Default::default()
    };
    // SAFETY: The call fills a `PolicyAt`; its address is only named.
    unsafe { call(fd, uapi::IOC_POLICY_AT, &mut found) }?;
    Ok(found)
}

/// `move_pages(2)` on pages of process `pid`, 0 for this one: with `to` it moves them to that node, and
/// without it only looks. Puts the node of each page, or a negative errno, into `status`; says how
/// many pages the call gave up.
///
/// # Panics
///
/// If `status` has another length than `pages`.
pub fn move_pages(
    pid: u32,
    pages: &[usize],
    to: Option<u32>,
    status: &mut [i32],
    flags: i32,
) -> io::Result<u64> {
    assert_eq!(pages.len(), status.len(), "one status for each page");
    let nodes = to.map(|node| vec![node; pages.len()]);
    let nodes = nodes
        .as_ref()
        .map_or(std::ptr::null(), |nodes| nodes.as_ptr());
    // SAFETY:
    // - All arrays have `pages.len()` elements and stay for the call.
    // - Moving pages does not change what is in them or where they are mapped, so any will do.
    let given_up = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            pages.len(),
            pages.as_ptr(),
            nodes,
            status.as_mut_ptr(),
            flags,
        )
    };
    if given_up < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(given_up.unsigned_abs())
}

/// The memory node of the CPU that this thread runs on.
pub fn current_node() -> io::Result<u32> {
    let (mut cpu, mut node) = (0u32, 0u32);
    let none: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: The call fills two integers.
    let result = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, none) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(node)
}

/// Whether all of a range of this process is mapped.
pub fn is_mapped(addr: usize, len: usize) -> io::Result<bool> {
    let start = std::ptr::without_provenance_mut(addr);
    // SAFETY: With `MS_ASYNC` the call only looks whether all of the range is mapped.
    let result = unsafe { libc::msync(start, len, libc::MS_ASYNC) };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOMEM) => Ok(false),
        error => Err(error),
    }
}

/// `struct page_region`: pages that a `PAGEMAP_SCAN` has found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRegion {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `PAGEMAP_SCAN`, `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u32 = 3 << 30 | (size_of::<ScanArg>() as u32) << 16 | (b'f' as u32) << 8 | 16;
/// `PAGE_IS_PRESENT` and `PAGE_IS_SWAPPED`: what is in the page tables at all.
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;

/// Puts the runs of populated pages of `range` into `regions`, on a file `/proc/PID/pagemap`; returns how many
/// there are, and where the next call is to go on.
pub fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    range: Range<u64>,
    regions: &mut [PageRegion],
) -> io::Result<(usize, u64)> {
    let mut scan = ScanArg {
        size: size_of::<ScanArg>() as u64,
        start: range.start,
        end: range.end,
        vec: regions.as_mut_ptr().expose_provenance() as u64,
        vec_len: regions.len() as u64,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        ..ScanArg::default()
    };
    let argument: *mut ScanArg = &mut scan;
    // SAFETY:
    // - `pagemap` is open for as long as the borrow lasts.
    // - The call reads and writes one `ScanArg`, whose size it is told, and at most `vec_len` regions, which
    //   stay for the call. What is mapped is only looked at.
    let count = unsafe {
        libc::ioctl(
            pagemap.as_raw_fd(),
            libc::Ioctl::from(PAGEMAP_SCAN),
            argument,
        )
    };
    match usize::try_from(count) {
        Ok(count) => Ok((count, scan.walk_end)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// `IOC_STATS`.
pub fn stats(fd: BorrowedFd<'_>) -> io::Result<uapi::Stats> {
    let mut stats = uapi::Stats::default();
    // SAFETY: The call fills a `Stats`, which holds no addresses.
    unsafe { call(fd, uapi::IOC_STATS, &mut stats) }?;
    Ok(stats)
}

/// `IOC_RESET`.
pub fn reset(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: The call ignores its argument.
    unsafe { call(fd, uapi::IOC_RESET, &mut ()) }
}

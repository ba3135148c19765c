// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ioctls of `/dev/coaxN`, one function each, and the system calls on memory nodes.
// UNSAFETY: ioctl(2) takes an untyped pointer; the pairs of number and structure are made here
// and nowhere else. Neither has the C library the calls on nodes.
#![expect(unsafe_code)]

use std::io;
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

/// Whether all pages of a range of this process are mapped.
pub fn is_mapped(addr: usize, pages: usize) -> io::Result<bool> {
    let mut resident = vec![0u8; pages];
    let start = std::ptr::without_provenance_mut(addr);
    // SAFETY: The call writes one byte a page to `resident`; the range is only looked at.
    let result = unsafe { libc::mincore(start, pages * PAGE_SIZE as usize, resident.as_mut_ptr()) };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOMEM) => Ok(false),
        error => Err(error),
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where pages are, moving them on request, and when the device may move them.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem::size_of_val;
use std::os::fd::AsFd;

use coax_abi::uapi;
use coax_abi::wire::PAGE_SIZE;

use crate::context::{refused, Context};
use crate::error::Error;
use crate::{node, sys};

/// Whole pages of a process's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
}

impl PageRange {
    /// The range as given; the driver refuses it if it is not made of whole pages.
    pub fn new(addr: u64, len: u64) -> Self {
        Self { addr, len }
    }

    /// The pages on which the bytes `addr` … `addr + len` lie.
    pub fn covering(addr: u64, len: u64) -> Self {
        let start = addr & !(PAGE_SIZE - 1);
        // The last page of the address space cannot be mapped, so saturating loses nothing.
        let end = addr.saturating_add(len).checked_next_multiple_of(PAGE_SIZE);
        let end = end.unwrap_or(!(PAGE_SIZE - 1));
        Self {
            addr: start,
            len: end - start,
        }
    }

    /// The pages on which the elements of a slice lie.
    pub fn of<T>(slice: &[T]) -> Self {
        Self::covering(slice.as_ptr().addr() as u64, size_of_val(slice) as u64)
    }

    /// Pages in it.
    pub fn pages(&self) -> u64 {
        self.len / PAGE_SIZE
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:x}-{:x}",
            self.addr,
            self.addr.saturating_add(self.len)
        )
    }
}

/// Way to move pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To device memory.
    ToDevice,
    /// To system memory.
    ToSystem,
}

/// What a request to move pages came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Pages moved.
    pub moved: u64,
    /// Pages that were there before.
    pub already: u64,
    /// Pages that stayed: never touched, pinned, no memory, or, where the driver moves them,
    /// file-backed.
    pub left: u64,
}

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Nowhere: not mapped, never touched or swapped out.
    None,
    /// Anonymous, in system memory.
    System,
    /// In the device's memory.
    Device,
    /// File-backed or shared, in system memory; the device uses it in place.
    File,
}

impl Location {
    /// From `RESIDENT_*`; a value this library does not know is taken for "nowhere".
    fn from_byte(byte: u8) -> Self {
        match byte {
            uapi::RESIDENT_SYSTEM => Self::System,
            uapi::RESIDENT_DEVICE => Self::Device,
            uapi::RESIDENT_FILE => Self::File,
            _ => Self::None,
        }
    }
}

/// Pages of a range by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Not mapped, never touched or swapped out.
    pub none: u64,
    /// Anonymous, in system memory.
    pub system: u64,
    /// In the device's memory.
    pub device: u64,
    /// File-backed or shared, in system memory.
    pub file: u64,
}

/// When pages move to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// When the device touches them, with present neighbours. The default, but where device memory is a
    /// memory node: there the driver moves nothing (`EOPNOTSUPP`).
    OnFault,
    /// By [`Context::prefetch`] only, or however the system moves pages; the device uses the others in
    /// place.
    OnRequest,
    /// Never: the device works on system memory.
    Never,
}

impl Context {
    /// Moves the pages of a range of this process to device memory.
    ///
    /// Where that is a memory node, the kernel moves them (`move_pages(2)`), those of files and shared
    /// memory too; pages that other processes map as well need `CAP_SYS_NICE`.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] with `EINVAL` for a range that is misaligned, empty, too long or not
    /// user space; `EFAULT` if part of it is not mapped (the rest was moved); `EPERM` under
    /// [`Policy::Never`]. On a memory node also `ENODEV`, if its memory is not online, and `EACCES`, if
    /// the process's cpuset forbids the node.
    pub fn prefetch(&self, range: PageRange) -> Result<Migrated, Error> {
        self.migrate(0, range, Direction::ToDevice)
    }

    /// Moves the pages of a range of this process to system memory.
    ///
    /// # Errors
    ///
    /// As [`Context::prefetch`].
    pub fn evict(&self, range: PageRange) -> Result<Migrated, Error> {
        self.migrate(0, range, Direction::ToSystem)
    }

    /// Moves the pages of a range of another process, named by its PID.
    ///
    /// # Errors
    ///
    /// As [`Context::prefetch`], and `ESRCH` if there is no such process, `EACCES` or `EPERM`
    /// without the right to it.
    pub fn migrate_process(
        &self,
        pid: u32,
        range: PageRange,
        direction: Direction,
    ) -> Result<Migrated, Error> {
        // Zero would silently mean this process.
        if pid == 0 {
            return Err(Error::Argument("no process has PID 0"));
        }
        self.migrate(pid, range, direction)
    }

    fn migrate(&self, pid: u32, range: PageRange, direction: Direction) -> Result<Migrated, Error> {
        let mut migrate = uapi::Migrate {
            addr: range.addr,
            len: range.len,
            direction: match direction {
                Direction::ToDevice => uapi::MIGRATE_TO_DEVICE,
                Direction::ToSystem => uapi::MIGRATE_TO_SYSTEM,
            },
            pid,
            ..Default::default()
        };
        match sys::migrate(self.as_fd(), &mut migrate) {
            // The driver finds no fault with it, but the pages are the system's to move.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return node::migrate(self.info()?.node, pid, range, direction)
            }
            result => result.map_err(refused("COAX_IOC_MIGRATE"))?,
        }
        Ok(Migrated {
            moved: migrate.moved,
            already: migrate.already,
            left: migrate.left,
        })
    }

    /// Counts the pages of a range of this process by where they are, touching none.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] with `EINVAL` for a range that is misaligned, empty, too long or not
    /// user space.
    pub fn residency(&self, range: PageRange) -> Result<Residency, Error> {
        let pages = sys::residency(self.as_fd(), range.addr, range.len, None)
            .map_err(refused("COAX_IOC_RESIDENCY"))?;
        let count = |kind: u8| pages[usize::from(kind)];
        Ok(Residency {
            none: count(uapi::RESIDENT_NONE),
            system: count(uapi::RESIDENT_SYSTEM),
            device: count(uapi::RESIDENT_DEVICE),
            file: count(uapi::RESIDENT_FILE),
        })
    }

    /// Says of each page of a range of this process where it is, touching none.
    ///
    /// # Errors
    ///
    /// As [`Context::residency`].
    pub fn locate(&self, range: PageRange) -> Result<Vec<Location>, Error> {
        // The driver's own limit, before memory is taken for the answer.
        if range.len > uapi::MAX_RANGE_BYTES {
            return Err(Error::Argument("the range is longer than one call takes"));
        }
        let mut bytes = vec![uapi::RESIDENT_NONE; range.len.div_ceil(PAGE_SIZE) as usize];
        sys::residency(self.as_fd(), range.addr, range.len, Some(&mut bytes))
            .map_err(refused("COAX_IOC_RESIDENCY"))?;
        Ok(bytes.into_iter().map(Location::from_byte).collect())
    }

    /// Sets when pages move, and how many move around one that the device touched: a power
    /// of two up to 512, or `None` to leave that as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] with `EINVAL` for another `fault_around`.
    pub fn set_policy(&self, policy: Policy, fault_around: Option<u32>) -> Result<(), Error> {
        // Zero would silently mean "leave it".
        if fault_around == Some(0) {
            return Err(Error::Argument("fault_around must be a power of two"));
        }
        let policy = uapi::Policy {
            policy: match policy {
                Policy::OnFault => uapi::POLICY_ON_FAULT,
                Policy::OnRequest => uapi::POLICY_ON_REQUEST,
                Policy::Never => uapi::POLICY_NEVER,
            },
            fault_around: fault_around.unwrap_or(0),
        };
        sys::policy(self.as_fd(), policy).map_err(refused("COAX_IOC_POLICY"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_rounds_outwards() {
        let page = PAGE_SIZE;
        assert_eq!(PageRange::covering(page + 1, 1), PageRange::new(page, page));
        assert_eq!(
            PageRange::covering(page - 1, 2),
            PageRange::new(0, 2 * page)
        );
        assert_eq!(PageRange::covering(page, page), PageRange::new(page, page));
    }

    #[test]
    fn covering_does_not_overflow() {
        let range = PageRange::covering(u64::MAX - 10, 100);
        assert_eq!(range.addr, u64::MAX - (PAGE_SIZE - 1));
        assert_eq!(range.len, 0);
    }

    #[test]
    fn ranges_print_like_proc_maps() {
        assert_eq!(PageRange::new(0x1000, 0x2000).to_string(), "1000-3000");
    }
}

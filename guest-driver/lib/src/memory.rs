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
    /// memory node, which is used only when that is asked for.
    OnFault,
    /// By [`Context::prefetch`] only, or however the system moves pages; the device uses the others in
    /// place.
    OnRequest,
    /// Never: the device works on system memory.
    Never,
}

impl Policy {
    /// As `POLICY_*`.
    fn number(self) -> u32 {
        match self {
            Self::OnFault => uapi::POLICY_ON_FAULT,
            Self::OnRequest => uapi::POLICY_ON_REQUEST,
            Self::Never => uapi::POLICY_NEVER,
        }
    }

    /// From `POLICY_*`.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::OnFault, Self::OnRequest, Self::Never]
            .into_iter()
            .find(|policy| policy.number() == number)
    }
}

/// What a program says of a range; the default takes back what was said before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// When pages move; that of the context if `None`.
    pub policy: Option<Policy>,
    /// How many move around one that the device touched, a power of two up to 512; as many as in the
    /// rest of the context if `None`.
    pub fault_around: Option<u32>,
}

impl From<Policy> for Advice {
    fn from(policy: Policy) -> Self {
        Self {
            policy: Some(policy),
            fault_around: None,
        }
    }
}

/// What holds at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// When pages move.
    pub policy: Policy,
    /// How many move around one that the device touched.
    pub fault_around: u32,
    /// Whether advice says so, and not the context's policy alone.
    pub advised: bool,
    /// First address after it of which something else is said.
    pub end: u64,
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
    /// user space; `EFAULT` if part of it is not mapped (the rest was moved); `EPERM` if
    /// [`Policy::Never`] holds for all of it; where it holds for parts, they stay. On a memory node also `ENODEV`, if its memory is not online, and `EACCES`, if
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
                let node = self.info()?.node;
                // Of another process this context has no advice.
                if pid == 0 && direction == Direction::ToDevice {
                    return self.prefetch_to_node(node, range);
                }
                return node::migrate(node, pid, range, direction);
            }
            result => result.map_err(refused("COAX_IOC_MIGRATE"))?,
        }
        Ok(Migrated {
            moved: migrate.moved,
            already: migrate.already,
            left: migrate.left,
        })
    }

    /// Moves those parts of a range of this process to a node that may move.
    fn prefetch_to_node(&self, node: u32, range: PageRange) -> Result<Migrated, Error> {
        let (mut sum, mut failed) = (Migrated::default(), None);
        let end = range.addr + range.len;
        let mut at = range.addr;
        while at < end {
            let found = self.policy_at(at)?;
            let part = PageRange::new(at, found.end.min(end) - at);
            at += part.len;
            if found.policy == Policy::Never {
                sum.left += part.pages();
                continue;
            }
            match node::migrate(node, 0, part, Direction::ToDevice) {
                Ok(migrated) => {
                    sum.moved += migrated.moved;
                    sum.already += migrated.already;
                    sum.left += migrated.left;
                }
                // Part of it is not mapped; the rest is still to do.
                Err(error) if error.errno() == libc::EFAULT => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(sum), Err)
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
    /// [`Error::Call`] with `EINVAL` for another `fault_around`; `EPERM` if the driver was loaded with a
    /// less eager policy; `EACCES` for [`Policy::OnFault`] where device memory is a memory node that
    /// `cpuset.mems` lacks.
    pub fn set_policy(&self, policy: Policy, fault_around: Option<u32>) -> Result<(), Error> {
        // Zero would silently mean "leave it".
        if fault_around == Some(0) {
            return Err(Error::Argument("fault_around must be a power of two"));
        }
        let policy = uapi::Policy {
            policy: policy.number(),
            fault_around: fault_around.unwrap_or(0),
        };
        sys::policy(self.as_fd(), policy).map_err(refused("COAX_IOC_POLICY"))
    }

    /// Sets for a range of this process when pages move, and how many around one that the device
    /// touched, in place of the context's policy and of all advice given before for any of it. Pages stay
    /// where they are.
    ///
    /// Advice is a property of what is mapped: it ends when the memory is unmapped, and does not go along
    /// where `mremap` moves it. It binds this context alone.
    ///
    /// # Errors
    ///
    /// [`Error::Call`], and all advice is as it was: `EINVAL` for a range that is misaligned, empty, too
    /// long or not user space, and for another `fault_around`; `EFAULT` if part of it is not mapped, unless
    /// advice is taken back; `EPERM` if the driver was loaded with a less eager policy; `EACCES` for
    /// [`Policy::OnFault`] where device memory is a memory node that `cpuset.mems` lacks; `ENOSPC` for more
    /// than [`uapi::MAX_ADVISED`] ranges.
    pub fn advise(&self, range: PageRange, advice: impl Into<Advice>) -> Result<(), Error> {
        let advice = advice.into();
        // Zero would silently mean that of the context.
        if advice.fault_around == Some(0) {
            return Err(Error::Argument("fault_around must be a power of two"));
        }
        let advise = uapi::Advise {
            addr: range.addr,
            len: range.len,
            policy: advice.policy.map_or(uapi::POLICY_CONTEXT, Policy::number),
            fault_around: advice.fault_around.unwrap_or(0),
        };
        sys::advise(self.as_fd(), advise).map_err(refused("COAX_IOC_ADVISE"))
    }

    /// Which policy holds at an address of this process, and how far.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] with `EINVAL` for an address that is not user space; [`Error::Argument`] if the
    /// driver has a policy that this library does not know.
    pub fn policy_at(&self, addr: u64) -> Result<InForce, Error> {
        let found = sys::policy_at(self.as_fd(), addr).map_err(refused("COAX_IOC_POLICY_AT"))?;
        let policy = Policy::from_number(found.policy)
            .ok_or(Error::Argument("the driver has a policy that is not known"))?;
        Ok(InForce {
            policy,
            fault_around: found.fault_around,
            advised: found.advised != 0,
            end: found.end,
        })
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

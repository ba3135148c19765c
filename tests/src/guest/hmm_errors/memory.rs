// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of all kinds to make calls on.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::sys::memfd::{memfd_create, MFdFlags};

use crate::guest::memory::{Mapping, HUGE, NO_ACCESS, PAGE, READ_ONLY, READ_WRITE};

/// Pages of a range, unless its number of pages is what is wrong.
const COUNT: usize = 4;
const LEN: usize = COUNT * PAGE;
/// Where half of a range begins.
const HALF: usize = LEN / 2;
/// Most pages that a call may be asked to look at one by one.
pub const MOST_PAGES: u64 = 1 << 20;

/// In the kernel's half of the address space.
pub const KERNEL: u64 = 0xffff_8880_0000_0000;
/// The first page behind user space.
const BEHIND_USER_SPACE: u64 = 0x7fff_ffff_f000;
/// In neither half.
const NOWHERE: u64 = 1 << 63;

/// Pages of this program.
pub struct Memory(Mapping);

impl Deref for Memory {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.0
    }
}

impl Memory {
    /// A few pages with something in them.
    pub fn touched() -> Result<Self> {
        let memory = Mapping::anonymous(LEN)?;
        memory.fill(0..LEN, 1);
        Ok(Memory(memory))
    }

    /// Room for an answer, and nothing behind it.
    pub fn buffer() -> Result<Self> {
        let memory = Mapping::anonymous(4 * LEN)?;
        memory.fill(0..2 * LEN, 2);
        memory.unmap(2 * LEN..4 * LEN)?;
        Ok(Memory(memory))
    }
}

/// A range to make a call on.
pub struct Target {
    /// Its address.
    pub addr: u64,
    /// Its pages.
    pub npages: u64,
    _memory: Option<Mapping>,
}

impl Target {
    fn bare(addr: u64, npages: u64) -> Result<Self> {
        Ok(Target {
            addr,
            npages,
            _memory: None,
        })
    }

    fn all_of(memory: Mapping) -> Result<Self> {
        Ok(Target {
            addr: memory.address(),
            npages: memory.pages(),
            _memory: Some(memory),
        })
    }

    /// Touched memory, of which something is wrong with address or number of pages.
    fn wrong(offset: u64, npages: u64) -> Result<Self> {
        let Memory(memory) = Memory::touched()?;
        Ok(Target {
            addr: memory.address() + offset,
            npages,
            _memory: Some(memory),
        })
    }

    /// Touched memory after a change.
    fn changed(change: impl FnOnce(&Mapping) -> Result<()>) -> Result<Self> {
        let Memory(memory) = Memory::touched()?;
        change(&memory)?;
        Self::all_of(memory)
    }
}

/// A file of a few pages, which are all mapped where `touch` says so.
fn of_file(map: fn(&File) -> Result<Mapping>, touch: fn(&Mapping)) -> Result<Target> {
    let fd = memfd_create(c"coax-test", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let file = File::from(fd);
    file.set_len(LEN as u64).context("Size of the memfd")?;
    let memory = map(&file)?;
    touch(&memory);
    Target::all_of(memory)
}

fn shared(file: &File) -> Result<Mapping> {
    Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)
}

fn private(file: &File) -> Result<Mapping> {
    Mapping::file_private(file.as_fd(), LEN)
}

fn written(memory: &Mapping) {
    memory.fill(0..LEN, 3);
}

fn looked_at(memory: &Mapping) {
    drop(memory.to_vec());
}

type Place = (&'static str, fn(&File) -> Result<Target>);

/// Ranges of all kinds, good ones among them.
pub const PLACES: [Place; 31] = [
    ("touched", |_| Target::wrong(0, COUNT as u64)),
    ("untouched", |_| Target::all_of(Mapping::anonymous(LEN)?)),
    ("misaligned", |_| Target::wrong(8, 1)),
    ("no_pages", |_| Target::wrong(0, 0)),
    ("bytes_overflow_to_none", |_| Target::wrong(0, 1 << 52)),
    ("bytes_overflow_to_some", |_| {
        Target::wrong(0, (1 << 52) + 1)
    }),
    ("end_wraps", |_| Target::wrong(0, u64::MAX / PAGE as u64)),
    ("more_pages_than_memory", |_| Target::wrong(0, 1 << 24)),
    ("more_pages_than_addresses", |_| Target::wrong(0, 1 << 40)),
    ("null", |_| Target::bare(0, 1)),
    ("kernel", |_| Target::bare(KERNEL, 2)),
    ("nowhere", |_| Target::bare(NOWHERE, 2)),
    ("behind_user_space", |_| Target::bare(BEHIND_USER_SPACE, 1)),
    ("into_behind_user_space", |_| {
        Target::bare(BEHIND_USER_SPACE - PAGE as u64, 2)
    }),
    ("last_page", |_| Target::bare(PAGE.wrapping_neg() as u64, 1)),
    ("unmapped", |_| Target::changed(|m| m.unmap(0..LEN))),
    ("hole_first", |_| Target::changed(|m| m.unmap(0..HALF))),
    ("hole_last", |_| Target::changed(|m| m.unmap(HALF..LEN))),
    ("no_access", |_| {
        Target::changed(|m| m.protect(0..LEN, NO_ACCESS))
    }),
    ("no_access_last", |_| {
        Target::changed(|m| m.protect(HALF..LEN, NO_ACCESS))
    }),
    ("read_only", |_| {
        Target::changed(|m| m.protect(0..LEN, READ_ONLY))
    }),
    ("read_only_last", |_| {
        Target::changed(|m| m.protect(HALF..LEN, READ_ONLY))
    }),
    ("read_only_untouched", |_| {
        let memory = Mapping::anonymous(LEN)?;
        memory.protect(0..LEN, READ_ONLY)?;
        Target::all_of(memory)
    }),
    ("shared", |_| {
        let memory = Mapping::shared(LEN)?;
        written(&memory);
        Target::all_of(memory)
    }),
    ("shared_untouched", |_| {
        Target::all_of(Mapping::shared(LEN)?)
    }),
    ("shared_file", |_| of_file(shared, written)),
    ("private_file", |_| of_file(private, looked_at)),
    ("private_file_written", |_| of_file(private, written)),
    ("set_aside", |_| {
        let memory = Mapping::set_aside(HUGE)?;
        written(&memory);
        Ok(Target {
            addr: memory.address(),
            npages: COUNT as u64,
            _memory: Some(memory),
        })
    }),
    ("set_aside_untouched", |_| {
        let memory = Mapping::set_aside(HUGE)?;
        Ok(Target {
            addr: memory.address(),
            npages: COUNT as u64,
            _memory: Some(memory),
        })
    }),
    ("the_device_mapped", |device| {
        Target::all_of(Mapping::file_shared(device.as_fd(), LEN, READ_WRITE)?)
    }),
];

type Pointer = (&'static str, fn() -> Result<(u64, Option<Memory>)>);

/// Pointers of all kinds.
pub const POINTERS: [Pointer; 9] = [
    ("null", || Ok((0, None))),
    ("kernel", || Ok((KERNEL, None))),
    ("nowhere", || Ok((NOWHERE, None))),
    ("behind_user_space", || Ok((BEHIND_USER_SPACE, None))),
    ("wrapping", || Ok((PAGE.wrapping_neg() as u64, None))),
    ("unmapped", || changed(|memory| memory.unmap(0..LEN))),
    ("hole_last", || changed(|memory| memory.unmap(HALF..LEN))),
    ("read_only", || {
        changed(|memory| memory.protect(0..LEN, READ_ONLY))
    }),
    ("no_access", || {
        changed(|memory| memory.protect(0..LEN, NO_ACCESS))
    }),
];

fn changed(change: fn(&Mapping) -> Result<()>) -> Result<(u64, Option<Memory>)> {
    let memory = Memory::touched()?;
    change(&memory)?;
    Ok((memory.address(), Some(memory)))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad input to `/dev/hmm_dmirrorN`, the interface of the kernel's `test_hmm` that the driver
//! offers as well: each call, and the errno that came of it.
//!
//! The program knows no right answers. It runs on both drivers, and the host compares.

mod memory;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use coax_program::outln;
use coax_program::output::OutputError;
use nix::errno::Errno;

use super::memory::{Mapping, PAGE, READ_ONLY};
use super::process::{fork, line};
use super::raw::{ioctl, ioctl_at};
use memory::{Memory, Target, PLACES, POINTERS};

/// A private and a coherent device of either driver.
const DEVICES: [(&str, &str); 2] = [
    ("private", "/dev/hmm_dmirror0"),
    ("coherent", "/dev/hmm_dmirror2"),
];

/// `struct hmm_dmirror_cmd`: address, pointer, pages, and two fields of the answer.
type Command = [u64; 5];

const LETTER: u32 = b'H' as u32;
const READ_AND_WRITE: u32 = 3;

/// `_IOC(direction, letter, number, size)`.
const fn request(direction: u32, letter: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | letter << 8 | number
}

const fn call(number: u32) -> u32 {
    request(READ_AND_WRITE, LETTER, number, size_of::<Command>())
}

/// Calls that take a range (`lib/test_hmm_uapi.h`).
const CALLS: [(&str, u32); 8] = [
    ("read", call(0)),
    ("write", call(1)),
    ("migrate_to_device", call(2)),
    ("migrate_to_system", call(3)),
    ("snapshot", call(4)),
    ("exclusive", call(5)),
    (CHECK, call(6)),
    // Since 7.3; before it is a number like any other that is none.
    ("read_unlocked", call(9)),
];
/// This one looks at each page of the range, however many there are.
const CHECK: &str = "check_exclusive";
/// Calls for which a range only has to make sense.
const OTHER_CALLS: [(&str, u32); 2] = [("release", call(7)), ("flags", call(8))];

/// Requests that are none.
const UNKNOWN: [(&str, u32); 9] = [
    ("number_10", call(10)),
    ("number_255", call(255)),
    ("zero", 0),
    ("another_letter", request(3, b'I' as u32, 0, 40)),
    ("larger", request(3, LETTER, 0, 48)),
    ("smaller", request(3, LETTER, 0, 32)),
    ("without_argument", request(0, LETTER, 0, 0)),
    ("read_only", request(2, LETTER, 0, 40)),
    ("write_only", request(1, LETTER, 0, 40)),
];

/// Makes all calls and prints a line for each: `errno NAME VALUE`, at last how many there were.
///
/// # Errors
///
/// What is needed for the calls is missing.
pub fn run() -> Result<()> {
    let mut count = 0;
    for (kind, path) in DEVICES {
        let mut show = |name: &str, outcome: Result<(), Errno>| {
            count += 1;
            match outcome {
                Ok(()) => outln!("errno {kind}.{name} ok"),
                Err(errno) => outln!("errno {kind}.{name} {errno:?}"),
            }
        };
        let device = File::options()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| path.to_owned())?;
        ranges(&device, &mut show)?;
        pointers(device.as_fd(), &mut show)?;
        arguments(device.as_fd(), &mut show)?;
        requests(device.as_fd(), &mut show)?;
        drop(device);
        count += without_opener(kind, path)?;
    }
    Ok(outln!("errnos {count}")?)
}

fn make(
    device: BorrowedFd<'_>,
    request: u32,
    addr: u64,
    ptr: u64,
    npages: u64,
) -> Result<(), Errno> {
    // Room for requests that say they are larger.
    ioctl(device, request, &mut [addr, ptr, npages, 0, 0, 0])
}

/// Every call on every kind of range.
fn ranges(
    device: &File,
    show: &mut impl FnMut(&str, Result<(), Errno>) -> Result<(), OutputError>,
) -> Result<()> {
    for (place, target) in PLACES {
        for (call, request) in CALLS.into_iter().chain(OTHER_CALLS) {
            let target: Target = target(device).with_context(|| place.to_owned())?;
            if (call == CHECK || call == "flags") && target.npages > memory::MOST_PAGES {
                continue;
            }
            let buffer = Memory::buffer()?;
            let outcome = make(
                device.as_fd(),
                request,
                target.addr,
                buffer.address(),
                target.npages,
            );
            show(&format!("{call}.{place}"), outcome)?;
        }
    }
    Ok(())
}

/// Every call on good memory with every kind of pointer.
fn pointers(
    device: BorrowedFd<'_>,
    show: &mut impl FnMut(&str, Result<(), Errno>) -> Result<(), OutputError>,
) -> Result<()> {
    for (place, pointer) in POINTERS {
        for (call, request) in CALLS {
            let memory = Memory::touched()?;
            let (ptr, _kept) = pointer()?;
            let outcome = make(device, request, memory.address(), ptr, memory.pages());
            show(&format!("{call}.pointer_{place}"), outcome)?;
        }
    }
    Ok(())
}

/// Every call with its argument in bad places.
fn arguments(
    device: BorrowedFd<'_>,
    show: &mut impl FnMut(&str, Result<(), Errno>) -> Result<(), OutputError>,
) -> Result<()> {
    for (call, request) in CALLS {
        for (place, address) in [
            ("null", 0),
            ("kernel", memory::KERNEL),
            ("nowhere", 1 << 63),
        ] {
            let outcome = ioctl_at(device, request, address);
            show(&format!("{call}.argument_{place}"), outcome)?;
        }
        let (memory, buffer, argument) = (
            Memory::touched()?,
            Memory::buffer()?,
            Mapping::anonymous(PAGE)?,
        );
        let words = [memory.address(), buffer.address(), memory.pages()];
        for (at, word) in words.into_iter().enumerate() {
            argument.store(at * 8, word);
        }
        argument.protect(0..PAGE, READ_ONLY)?;
        let outcome = ioctl_at(device, request, argument.address());
        show(&format!("{call}.argument_read_only"), outcome)?;
        let end = argument.at(PAGE - 16);
        argument.unmap(0..PAGE)?;
        show(
            &format!("{call}.argument_unmapped"),
            ioctl_at(device, request, end),
        )?;
    }
    Ok(())
}

/// Requests that are none, with an argument that would do.
fn requests(
    device: BorrowedFd<'_>,
    show: &mut impl FnMut(&str, Result<(), Errno>) -> Result<(), OutputError>,
) -> Result<()> {
    for (name, request) in UNKNOWN {
        let (memory, buffer) = (Memory::touched()?, Memory::buffer()?);
        let (addr, ptr) = (memory.address(), buffer.address());
        let outcome = make(device, request, addr, ptr, memory.pages());
        show(&format!("unknown.{name}"), outcome)?;
        let outcome = ioctl_at(device, request, memory::KERNEL);
        show(&format!("unknown.{name}.argument_kernel"), outcome)?;
        let outcome = make(device, request, addr + 1, ptr, memory.pages());
        show(&format!("unknown.{name}.misaligned"), outcome)?;
    }
    Ok(())
}

/// Every call on a file whose opener is gone, and its memory with it; returns how many.
fn without_opener(kind: &str, path: &str) -> Result<usize> {
    let calls = CALLS.into_iter().chain(OTHER_CALLS).chain([UNKNOWN[0]]);
    let count = calls.clone().count();
    let (our_end, heirs_end) = line()?;
    fork(|| {
        let device = File::options().read(true).write(true).open(path)?;
        let heir = fork(|| {
            heirs_end.await_step(1)?;
            for (call, request) in calls {
                let (memory, buffer) = (Memory::touched()?, Memory::buffer()?);
                let (addr, ptr) = (memory.address(), buffer.address());
                match make(device.as_fd(), request, addr, ptr, memory.pages()) {
                    Ok(()) => outln!("errno {kind}.{call}.opener_gone ok"),
                    Err(errno) => outln!("errno {kind}.{call}.opener_gone {errno:?}"),
                }?;
            }
            heirs_end.announce(2)
        })?;
        // It lives on, and is not collected by this process.
        std::mem::forget(heir);
        Ok(())
    })?
    .succeeds()?;
    our_end.announce(1)?;
    our_end.await_step(2)?;
    Ok(count)
}

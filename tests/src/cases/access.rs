// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device may read and write, and what it says where it may not.

use anyhow::{ensure, Result};
use coax::{Access, Command};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{faulted, refused, Device};
use crate::guest::memory::{Mapping, NO_ACCESS, PAGE, READ_ONLY};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "access",
    cases: &[
        case!(
            read_of_untouched_memory_gives_zeros,
            "a read fault on memory nobody touched"
        ),
        case!(
            write_to_untouched_memory_is_seen,
            "a write fault on memory nobody touched"
        ),
        case!(
            read_of_present_memory_gives_its_content,
            "a read fault on present pages"
        ),
        case!(
            write_to_present_memory_is_seen,
            "a write fault on present pages"
        ),
        case!(
            unaligned_ranges_leave_their_neighbours_alone,
            "bytes around a write stay"
        ),
        case!(
            read_only_memory_is_read,
            "read access is enough for reading"
        ),
        case!(
            write_to_read_only_memory_is_refused,
            "a write fault without the right"
        ),
        case!(unmapped_memory_is_refused, "faults where nothing is mapped"),
        case!(inaccessible_memory_is_refused, "faults on PROT_NONE"),
        case!(
            kernel_addresses_are_refused,
            "the kernel's half is not the program's"
        ),
        case!(
            non_canonical_addresses_are_refused,
            "addresses that no CPU takes"
        ),
        case!(the_null_page_is_refused, "a null pointer in the program"),
        case!(
            wrap_around_is_refused,
            "a range over the end of the address space"
        ),
        case!(
            a_write_stops_at_the_first_bad_page,
            "partial progress is exact, for fill"
        ),
        case!(
            a_copy_stops_at_a_bad_source,
            "partial progress is exact, for the source"
        ),
        case!(
            a_copy_stops_at_a_bad_destination,
            "partial progress is exact, for the target"
        ),
        case!(
            a_fault_harms_no_other_command,
            "one bad address, others go on"
        ),
    ],
};

/// Enough pages for several translations, few enough to be quick.
const PAGES: usize = 16;
const LEN: usize = PAGES * PAGE;
const PATTERN: u64 = 0x1122_3344_5566_7788;

fn pattern_bytes(len: usize) -> Vec<u8> {
    PATTERN
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(len)
        .collect()
}

fn read_of_untouched_memory_gives_zeros() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let digest = device.digest(&memory)?;
    ensure!(
        digest == pattern::sha256(&[0; LEN]),
        "The device did not read zeros"
    );
    same(
        "memory after a read by the device",
        &memory.to_vec(),
        &[0; LEN],
    )
}

fn write_to_untouched_memory_is_seen() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let done = device.fill(&memory, 0..LEN, PATTERN)?;
    ensure!(done.bytes_done == LEN as u64, "{done:?}");
    same(
        "memory after a write by the device",
        &memory.to_vec(),
        &pattern_bytes(LEN),
    )
}

fn read_of_present_memory_gives_its_content() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(1, LEN);
    memory.write(0, &content);
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    Ok(())
}

fn write_to_present_memory_is_seen() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 0xee);
    device.fill(&memory, 0..LEN, PATTERN)?;
    same("memory", &memory.to_vec(), &pattern_bytes(LEN))
}

fn unaligned_ranges_leave_their_neighbours_alone() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let mut expected = pattern::bytes(2, LEN);
    memory.write(0, &expected);
    // Odd start and end, each in the middle of a page.
    let (start, end) = (PAGE + 13, 5 * PAGE + 1003);
    device.fill(&memory, start..end, PATTERN)?;
    expected[start..end].copy_from_slice(&pattern_bytes(end - start));
    same("memory", &memory.to_vec(), &expected)
}

fn read_only_memory_is_read() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(3, LEN);
    memory.write(0, &content);
    memory.protect(0..LEN, READ_ONLY)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), &content)
}

fn write_to_read_only_memory_is_refused() -> CaseResult {
    covers!("coax.drv.17");
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(4, LEN);
    memory.write(0, &content);
    memory.protect(0..LEN, READ_ONLY)?;
    let failure = faulted(
        device.fill(&memory, 0..LEN, PATTERN),
        memory.address(),
        Access::Write,
    )?;
    ensure!(failure.bytes_done == 0, "{failure:?}");
    same("read-only memory", &memory.to_vec(), &content)?;
    // Also when the device holds a translation for reading.
    device.digest(&memory)?;
    faulted(
        device.fill(&memory, 0..LEN, PATTERN),
        memory.address(),
        Access::Write,
    )?;
    same("read-only memory", &memory.to_vec(), &content)
}

fn unmapped_memory_is_refused() -> CaseResult {
    covers!("coax.drv.17");
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 1);
    memory.unmap(0..LEN)?;
    both_accesses_fault(&device, memory.address())
}

fn inaccessible_memory_is_refused() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 1);
    memory.protect(0..LEN, NO_ACCESS)?;
    both_accesses_fault(&device, memory.address())
}

fn kernel_addresses_are_refused() -> CaseResult {
    let device = Device::open()?;
    // Direct map, kernel text, and the first page behind user space.
    for address in [
        0xffff_8880_0000_0000,
        0xffff_ffff_8100_0000,
        0x7fff_ffff_f000,
    ] {
        both_accesses_fault(&device, address)?;
    }
    Ok(())
}

fn non_canonical_addresses_are_refused() -> CaseResult {
    let device = Device::open()?;
    for address in [
        0x8000_0000_0000_0000,
        0x00ff_0000_0000_0000,
        0xfeff_ffff_ffff_f000,
    ] {
        both_accesses_fault(&device, address)?;
    }
    Ok(())
}

fn the_null_page_is_refused() -> CaseResult {
    both_accesses_fault(&Device::open()?, 0x10)
}

fn wrap_around_is_refused() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let nearly_all = u64::MAX - memory.address() + 2;
    refused(
        "fill",
        device.run(Command::fill(memory.address(), nearly_all, 0)),
        libc::EINVAL,
    )?;
    refused(
        "hash",
        device.run(Command::sha256(u64::MAX - 8, 64)),
        libc::EINVAL,
    )?;
    let copy = Command::copy(memory.address(), u64::MAX - 8, 64);
    refused("copy", device.run(copy), libc::EINVAL)?;
    same("memory", &memory.to_vec(), &[0; LEN])
}

fn a_write_stops_at_the_first_bad_page() -> CaseResult {
    let device = Device::open()?;
    // A hole, a page without rights and a read-only page, each met in the middle of a command.
    for spoil in [hole, no_access, read_only] {
        let memory = Mapping::anonymous(LEN)?;
        let mut expected = pattern::bytes(5, LEN);
        memory.write(0, &expected);
        let (start, bad) = (PAGE / 2 + 3, 9 * PAGE);
        spoil(&memory, bad)?;
        let outcome = device.fill(&memory, start..LEN, PATTERN);
        let failure = faulted(outcome, memory.at(bad), Access::Write)?;
        ensure!(failure.bytes_done == (bad - start) as u64, "{failure:?}");
        expected[start..bad].copy_from_slice(&pattern_bytes(bad - start));
        around_the_bad_page(&memory, bad, &expected)?;
    }
    Ok(())
}

fn a_copy_stops_at_a_bad_source() -> CaseResult {
    let device = Device::open()?;
    for spoil in [hole, no_access] {
        let (from, to) = (Mapping::anonymous(LEN)?, Mapping::anonymous(LEN)?);
        let content = pattern::bytes(6, LEN);
        from.write(0, &content);
        let bad = 5 * PAGE;
        spoil(&from, bad)?;
        // Source and target lie differently within their pages.
        let (source, target, len) = (100, 7, LEN - PAGE);
        let command = Command::copy(to.at(target), from.at(source), len as u64);
        let failure = faulted(device.run(command), from.at(bad), Access::Read)?;
        let done = bad - source;
        ensure!(failure.bytes_done == done as u64, "{failure:?}");
        let mut expected = vec![0; LEN];
        expected[target..target + done].copy_from_slice(&content[source..bad]);
        same("target", &to.to_vec(), &expected)?;
    }
    Ok(())
}

fn a_copy_stops_at_a_bad_destination() -> CaseResult {
    let device = Device::open()?;
    for spoil in [hole, no_access, read_only] {
        let (from, to) = (Mapping::anonymous(LEN)?, Mapping::anonymous(LEN)?);
        let content = pattern::bytes(7, LEN);
        from.write(0, &content);
        let bad = 11 * PAGE;
        spoil(&to, bad)?;
        let (source, target, len) = (9, 2000, LEN - PAGE);
        let command = Command::copy(to.at(target), from.at(source), len as u64);
        let failure = faulted(device.run(command), to.at(bad), Access::Write)?;
        let done = bad - target;
        ensure!(failure.bytes_done == done as u64, "{failure:?}");
        let mut expected = vec![0; LEN];
        expected[target..bad].copy_from_slice(&content[source..source + done]);
        around_the_bad_page(&to, bad, &expected)?;
    }
    Ok(())
}

fn a_fault_harms_no_other_command() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    let content = pattern::bytes(8, LEN);
    memory.write(0, &content);
    let mut good = Vec::new();
    let mut bad = Vec::new();
    // Alternating, all in flight at once and within the limit of a context.
    for _ in 0..16 {
        bad.push(device.start(Command::sha256(0x1000, 64))?);
        good.push(device.start(Command::sha256(memory.address(), LEN as u64))?);
    }
    for id in bad {
        faulted(device.finish(id), 0x1000, Access::Read)?;
    }
    for id in good {
        ensure!(
            device.finish(id)?.result == pattern::sha256(&content),
            "Wrong digest"
        );
    }
    Ok(())
}

fn both_accesses_fault(device: &Device, address: u64) -> Result<()> {
    let read = faulted(
        device.run(Command::sha256(address, 64)),
        address,
        Access::Read,
    )?;
    let write = faulted(
        device.run(Command::fill(address, 64, 0)),
        address,
        Access::Write,
    )?;
    ensure!(
        read.bytes_done == 0 && write.bytes_done == 0,
        "{read:?}, {write:?}"
    );
    Ok(())
}

fn hole(memory: &Mapping, at: usize) -> Result<()> {
    memory.unmap(at..at + PAGE)
}

fn no_access(memory: &Mapping, at: usize) -> Result<()> {
    memory.protect(at..at + PAGE, NO_ACCESS)
}

fn read_only(memory: &Mapping, at: usize) -> Result<()> {
    memory.protect(at..at + PAGE, READ_ONLY)
}

/// Compares what lies before and behind a page that may not be readable.
fn around_the_bad_page(memory: &Mapping, bad: usize, expected: &[u8]) -> Result<()> {
    let mut before = vec![0; bad];
    memory.read(0, &mut before);
    same("before the bad page", &before, &expected[..bad])?;
    let behind = bad + PAGE;
    let mut after = vec![0; LEN - behind];
    memory.read(behind, &mut after);
    same("behind the bad page", &after, &expected[behind..])
}

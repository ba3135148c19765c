// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Advice for ranges: when pages move there, in place of the context's policy.

use anyhow::{ensure, Context as _, Result};
use coax::{Advice, PageRange, Policy, MODE_NUMA};

use crate::case;
use crate::case::{CaseResult, Subject};
use crate::guest::device::{range_of, refused, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE};
use crate::guest::pattern::{self, same};
use crate::guest::process::fork;
use crate::guest::smaps;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "advise",
    cases: &[
        case!(each_range_follows_its_advice, "on_fault, on_request, never"),
        case!(
            advice_to_move_overrides_a_context_that_does_not,
            "on_fault in a context of policy never"
        ),
        case!(
            a_request_leaves_what_never_moves,
            "prefetch over ranges with and without advice"
        ),
        case!(
            fault_around_does_not_cross_a_border,
            "neighbours with other advice stay"
        ),
        case!(
            fault_around_of_a_range_is_its_own,
            "one page here, sixteen there"
        ),
        case!(
            a_huge_page_is_cut_at_a_border,
            "half of 2 MiB never moves, by fault and by request"
        ),
        case!(
            advice_leaves_pages_where_they_are,
            "never, said of pages on the device"
        ),
        case!(
            taken_back_advice_is_forgotten,
            "the context's policy holds again, also when it changes"
        ),
        case!(
            advice_ends_with_the_mapping,
            "munmap and a new mapping at the same addresses"
        ),
        case!(
            advice_does_not_move_with_mremap,
            "the old addresses and the new"
        ),
        case!(
            a_child_has_no_advice,
            "fork: the child's own context, and the parent's is as before"
        ),
        case!(contexts_do_not_share_advice, "two files of one process"),
    ],
};

pub(super) const PAGES: usize = 64;
pub(super) const LEN: usize = PAGES * PAGE;

/// Memory with known content, in small pages of system memory.
pub(super) fn filled(len: usize, seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(len)?;
    let content = pattern::bytes(seed, len);
    memory.write(0, &content);
    Ok((memory, content))
}

/// Some pages of a mapping.
pub(super) fn pages(memory: &Mapping, from: usize, count: usize) -> PageRange {
    PageRange::new(memory.at(from * PAGE), (count * PAGE) as u64)
}

/// Pages of a range that are on the device.
fn on_device(device: &Device, range: PageRange) -> Result<u64> {
    Ok(device.residency(range).context("Residency")?.device)
}

/// Demands that device, then CPU see the content.
pub(super) fn both_see(device: &Device, memory: &Mapping, content: &[u8]) -> Result<()> {
    ensure!(
        device.digest(memory)? == pattern::sha256(content),
        "Wrong digest"
    );
    same("memory", &memory.to_vec(), content)
}

/// Demands what holds at a page.
pub(super) fn holds(
    device: &Device,
    memory: &Mapping,
    page: usize,
    policy: Policy,
    advised: bool,
) -> Result<()> {
    let found = device.policy_at(memory.at(page * PAGE))?;
    ensure!(
        found.policy == policy && found.advised == advised,
        "Page {page}: {found:?}, expected {policy:?}, advised: {advised}"
    );
    Ok(())
}

/// The first policy of contexts in this mode.
pub(super) fn first(device: &Device) -> Result<Policy> {
    let number = device.info()?.policy;
    Policy::from_number(number).with_context(|| format!("Policy {number}"))
}

fn each_range_follows_its_advice() -> CaseResult {
    let device = Device::open_moving()?;
    let (memory, content) = filled(LEN, 301)?;
    let quarter = PAGES / 4;
    let part = |n: usize| pages(&memory, n * quarter, quarter);
    device.advise(part(1), Policy::OnRequest)?;
    device.advise(part(2), Policy::Never)?;
    device.advise(part(3), Policy::OnFault)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    let there = [0, 1, 2, 3].map(|n| on_device(&device, part(n)).unwrap_or(u64::MAX));
    let all = quarter as u64;
    ensure!(there == [all, 0, 0, all], "After a fault: {there:?}");
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(migrated.left == all, "{migrated:?}");
    let there = [0, 1, 2, 3].map(|n| on_device(&device, part(n)).unwrap_or(u64::MAX));
    ensure!(there == [all, all, 0, all], "After a request: {there:?}");
    refused("prefetch", device.prefetch(part(2)), libc::EPERM)?;
    both_see(&device, &memory, &content)?;
    device.fill(&memory, 0..LEN, 5)?;
    same(
        "memory",
        &memory.to_vec(),
        &5u64.to_le_bytes().repeat(LEN / 8),
    )
}

fn advice_to_move_overrides_a_context_that_does_not() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::Never, None)?;
    let (memory, content) = filled(LEN, 302)?;
    let half = PAGES / 2;
    device.advise(pages(&memory, half, half), Policy::OnFault)?;
    both_see(&device, &memory, &content)?;
    device.digest(&memory)?;
    let there = on_device(&device, pages(&memory, half, half))?;
    ensure!(
        there == half as u64,
        "{there} pages moved where they should"
    );
    let there = on_device(&device, pages(&memory, 0, half))?;
    ensure!(there == 0, "{there} pages moved in spite of the context");
    let refusal = device.prefetch(pages(&memory, 0, half));
    refused("prefetch", refusal, libc::EPERM)
}

fn a_request_leaves_what_never_moves() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(LEN, 303)?;
    // Single pages, and a run that ends with the mapping.
    let never = [(3, 1), (5, 1), (20, 7), (50, PAGES - 50)];
    for (from, count) in never {
        device.advise(pages(&memory, from, count), Policy::Never)?;
    }
    let stay: u64 = never.iter().map(|(_, count)| *count as u64).sum();
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(
        (migrated.moved, migrated.left) == (PAGES as u64 - stay, stay),
        "{migrated:?}"
    );
    for (from, count) in never {
        let there = on_device(&device, pages(&memory, from, count))?;
        ensure!(there == 0, "{there} pages from {from} on moved");
        let refusal = device.prefetch(pages(&memory, from, count));
        refused("prefetch", refusal, libc::EPERM)?;
    }
    // Back is always allowed.
    let back = device.evict(range_of(&memory))?;
    ensure!(back.moved == PAGES as u64 - stay, "{back:?}");
    both_see(&device, &memory, &content)
}

fn fault_around_does_not_cross_a_border() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::OnFault, Some(64))?;
    let (memory, content) = filled(LEN, 304)?;
    device.advise(pages(&memory, 0, 8), Policy::Never)?;
    device.advise(pages(&memory, 24, 1), Policy::OnRequest)?;
    // A window of its own right, beside which the others are no neighbours.
    let wide = Advice {
        policy: Some(Policy::OnFault),
        fault_around: Some(512),
    };
    device.advise(pages(&memory, 40, PAGES - 40), wide)?;
    device.fill(&memory, 16 * PAGE..16 * PAGE + 8, 7)?;
    let places = device.locate(range_of(&memory))?;
    let there: Vec<usize> = (0..PAGES)
        .filter(|page| places[*page] == coax::Location::Device)
        .collect();
    let expected: Vec<usize> = (8..24).collect();
    ensure!(there == expected, "Pages {there:?} moved");
    let mut content = content;
    content[16 * PAGE..16 * PAGE + 8].copy_from_slice(&7u64.to_le_bytes());
    both_see(&device, &memory, &content)
}

fn fault_around_of_a_range_is_its_own() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::OnFault, Some(1))?;
    // On a border of 16 pages, so that the window is where it is looked for.
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 1);
    let around = |count| Advice {
        policy: None,
        fault_around: Some(count),
    };
    device.advise(pages(&memory, 16, 32), around(16))?;
    device.advise(pages(&memory, 48, 16), around(4))?;
    for (page, moved) in [(2, 1), (20, 16), (49, 4)] {
        let before = device.device_pages(&memory)?;
        device.fill(&memory, page * PAGE..page * PAGE + 8, 3)?;
        let after = device.device_pages(&memory)?;
        ensure!(
            after - before == moved,
            "{} pages moved with page {page}, expected {moved}",
            after - before
        );
    }
    Ok(())
}

fn a_huge_page_is_cut_at_a_border() -> CaseResult {
    const HALF: usize = HUGE / PAGE / 2;
    let device = Device::open_moving()?;
    // A request for half of a huge page has the system move all of it (`move_pages(2)`).
    let by_driver = device.info()?.mode != MODE_NUMA;
    for by_request in [false, true] {
        if by_request && !by_driver {
            break;
        }
        let memory = Mapping::huge(HUGE)?;
        let mut content = pattern::bytes(305, HUGE);
        memory.write(0, &content);
        ensure!(
            smaps::huge_pages(&memory)? == 1,
            "The kernel gave no huge page"
        );
        device.advise(pages(&memory, HALF, HALF), Policy::Never)?;
        if by_request {
            let migrated = device.prefetch(range_of(&memory))?;
            let half = HALF as u64;
            ensure!(
                (migrated.moved, migrated.left) == (half, half),
                "{migrated:?}"
            );
        } else {
            // Writes on both sides of the border, and all of it read.
            let border = HALF * PAGE;
            device.fill(&memory, border - 8..border + 8, 9)?;
            content[border - 8..border + 8].copy_from_slice(&9u64.to_le_bytes().repeat(2));
            device.digest(&memory)?;
            let there = on_device(&device, pages(&memory, 0, HALF))?;
            ensure!(there > 0, "Nothing moved below the border");
        }
        let there = on_device(&device, pages(&memory, HALF, HALF))?;
        ensure!(there == 0, "{there} pages moved beyond the border");
        both_see(&device, &memory, &content)?;
        // Memory never touched, huge pages wanted: as much may come into being on the device.
        let untouched = Mapping::huge(HUGE)?;
        device.advise(pages(&untouched, HALF, HALF), Policy::Never)?;
        device.fill(&untouched, 0..HUGE, 11)?;
        let there = on_device(&device, pages(&untouched, HALF, HALF))?;
        ensure!(there == 0, "{there} new pages beyond the border");
        let all = 11u64.to_le_bytes().repeat(HUGE / 8);
        same("new memory", &untouched.to_vec(), &all)?;
    }
    Ok(())
}

fn advice_leaves_pages_where_they_are() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(LEN, 306)?;
    device.take(&memory)?;
    device.advise(range_of(&memory), Policy::Never)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    let there = device.device_pages(&memory)?;
    ensure!(there == PAGES as u64, "{there} pages are still there");
    device.evict(range_of(&memory))?;
    both_see(&device, &memory, &content)?;
    let there = device.device_pages(&memory)?;
    ensure!(there == 0, "{there} pages went back");
    Ok(())
}

fn taken_back_advice_is_forgotten() -> CaseResult {
    let device = Device::open()?;
    let first = first(&device)?;
    let (memory, content) = filled(LEN, 307)?;
    device.advise(range_of(&memory), Policy::Never)?;
    device.advise(pages(&memory, 0, 32), Advice::default())?;
    holds(&device, &memory, 0, first, false)?;
    holds(&device, &memory, 32, Policy::Never, true)?;
    device.set_policy(Policy::OnRequest, None)?;
    holds(&device, &memory, 0, Policy::OnRequest, false)?;
    holds(&device, &memory, 32, Policy::Never, true)?;
    let migrated = device.prefetch(range_of(&memory))?;
    ensure!(migrated.moved == 32, "{migrated:?}");
    // Advice of the fault-around alone follows the context's policy.
    let around = Advice {
        policy: None,
        fault_around: Some(2),
    };
    device.advise(range_of(&memory), around)?;
    holds(&device, &memory, 40, Policy::OnRequest, true)?;
    device.set_policy(Policy::Never, None)?;
    holds(&device, &memory, 40, Policy::Never, true)?;
    both_see(&device, &memory, &content)
}

fn advice_ends_with_the_mapping() -> CaseResult {
    let device = Device::open()?;
    let first = first(&device)?;
    let (memory, _) = filled(LEN, 308)?;
    device.advise(range_of(&memory), Policy::Never)?;
    memory.unmap(8 * PAGE..16 * PAGE)?;
    holds(&device, &memory, 7, Policy::Never, true)?;
    holds(&device, &memory, 8, first, false)?;
    holds(&device, &memory, 15, first, false)?;
    holds(&device, &memory, 16, Policy::Never, true)?;
    let address = memory.address();
    drop(memory);
    let again = Mapping::anonymous_at(address as usize, LEN)?;
    again.fill(0..LEN, 1);
    for page in [0, 12, PAGES - 1] {
        holds(&device, &again, page, first, false)?;
    }
    device.take(&again)?;
    // What is only emptied is still mapped.
    device.advise(range_of(&again), Policy::Never)?;
    again.advise(0..LEN, libc::MADV_DONTNEED)?;
    holds(&device, &again, 12, Policy::Never, true)
}

fn advice_does_not_move_with_mremap() -> CaseResult {
    let device = Device::open()?;
    let first = first(&device)?;
    let (memory, content) = filled(LEN, 309)?;
    device.advise(range_of(&memory), Policy::Never)?;
    let old = memory.address();
    let moved = memory.relocate()?;
    ensure!(moved.address() != old, "The memory was not moved");
    holds(&device, &moved, 0, first, false)?;
    let found = device.policy_at(old)?;
    ensure!(!found.advised, "{found:?} at the old place");
    device.take(&moved)?;
    both_see(&device, &moved, &content)
}

fn a_child_has_no_advice() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(LEN, 310)?;
    device.advise(range_of(&memory), Policy::Never)?;
    fork(|| {
        let own = Device::open()?;
        let found = own.policy_at(memory.address())?;
        ensure!(!found.advised, "{found:?} in the child");
        let range = range_of(&memory);
        refused(
            "the parent's",
            device.advise(range, Policy::Never),
            libc::EPERM,
        )?;
        refused("the parent's", device.policy_at(range.addr), libc::EPERM)?;
        memory.unmap(0..LEN)
    })?
    .succeeds()?;
    holds(&device, &memory, 5, Policy::Never, true)?;
    both_see(&device, &memory, &content)
}

fn contexts_do_not_share_advice() -> CaseResult {
    let (one, other) = (Device::open()?, Device::open()?);
    let first = first(&other)?;
    let (memory, _) = filled(LEN, 311)?;
    one.advise(range_of(&memory), Policy::Never)?;
    holds(&other, &memory, 0, first, false)?;
    refused("prefetch", one.prefetch(range_of(&memory)), libc::EPERM)?;
    other.take(&memory)
}

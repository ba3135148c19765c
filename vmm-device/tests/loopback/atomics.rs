// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Atomic operations: what they change, which right they ask for, and that nothing is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coax_abi::wire::*;
use coax_specification::covers;
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

use crate::commands::result_pair;
use crate::front_end::{Guest, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;
const ATOMIC: u32 = RW | ACCESS_ATOMIC;

fn atomic(va: u64) -> Option<(u64, u32)> {
    let (gpa, _) = crate::front_end::linear(va)?;
    Some((gpa, ATOMIC))
}

fn word(guest: &Guest, gpa: u64) -> u64 {
    u64::from_le_bytes(guest.read(gpa, 8).try_into().unwrap())
}

#[test]
fn fetch_add_changes_each_word_once_and_tells_the_first() {
    covers!("coax.dev.55", "coax.dev.62");
    let mut guest = Guest::new();
    guest.open(0);
    for n in 0..1000u64 {
        guest.write(PAGES + n * 24, &(n * 3).to_le_bytes());
    }
    let reply = guest.run(0, OP_FETCH_ADD, &[VA + 24, 8, 7, 998, 24], &atomic);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.bytes_done, 998 * 8);
    assert_eq!(result_pair(&reply), (3, 998));
    for n in 0..1000 {
        let added = if (1..999).contains(&n) { 7 } else { 0 };
        assert_eq!(word(&guest, PAGES + n * 24), n * 3 + added);
        assert_eq!(word(&guest, PAGES + n * 24 + 8), 0);
    }
}

#[test]
fn words_of_4_bytes_wrap_without_a_carry_into_the_next() {
    covers!("coax.dev.55");
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES + 4, &u32::MAX.to_le_bytes());
    let reply = guest.run(0, OP_FETCH_ADD, &[VA + 4, 4, 2, 1, 0], &atomic);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(result_pair(&reply), (u32::MAX.into(), 1));
    assert_eq!(guest.read(PAGES, 12), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn compare_swap_swaps_only_the_value_expected() {
    covers!("coax.dev.55");
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES + 16, &5u64.to_le_bytes());
    let mut swap = |expected, desired| {
        let args = [VA + 16, 8, expected, desired];
        let reply = guest.run(0, OP_COMPARE_SWAP, &args, &atomic);
        assert_eq!(reply.status, STATUS_OK);
        assert_eq!(reply.bytes_done, 8);
        (result_pair(&reply), word(&guest, PAGES + 16))
    };
    assert_eq!(swap(4, 9), ((5, 0), 5));
    assert_eq!(swap(5, 9), ((5, 0), 9));
}

#[test]
fn no_words_need_no_memory_and_unaligned_words_are_refused() {
    covers!("coax.dev.56", "coax.dev.57");
    let mut guest = Guest::new();
    guest.open(0);
    let reply = guest.run(0, OP_FETCH_ADD, &[VA, 8, 1, 0, 0], &|_| None);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(result_pair(&reply), (0, 0));
    for (opcode, args) in [
        (OP_FETCH_ADD, vec![VA + 4, 8, 1, 1, 0]),
        (OP_FETCH_ADD, vec![VA, 8, 1, 2, 12]),
        (OP_FETCH_ADD, vec![VA, 16, 1, 1, 0]),
        (OP_FETCH_ADD, vec![VA, 4, 1 << 32, 1, 0]),
        (OP_FETCH_ADD, vec![VA, 8, 1, 1 << 60, 1 << 10]),
        (OP_COMPARE_SWAP, vec![VA + 2, 4, 0, 0]),
        (OP_COMPARE_SWAP, vec![VA, 4, 0, 1 << 32]),
    ] {
        guest.submit(0, 0, opcode, &args);
        assert_eq!(guest.reply(0).status, STATUS_BAD_ARGUMENT, "{args:x?}");
    }
}

#[test]
fn right_is_asked_for_and_reading_and_writing_do_not_replace_it() {
    covers!("coax.dev.26", "coax.dev.45");
    let mut guest = Guest::new();
    guest.open(0);
    // The page is translated for reading and writing.
    let fill = guest.run(0, OP_FILL, &[VA, 8, 40], &crate::front_end::linear);
    assert_eq!(fill.status, STATUS_OK);
    guest.submit(0, 0, OP_FETCH_ADD, &[VA, 8, 2, 600, 4096]);
    // 600 pages: the window's 512 and those of the next one.
    let requests = [guest.request(), guest.request()];
    for (request, npages) in requests.iter().zip([512, 88]) {
        assert_eq!(request.npages, npages);
        assert_eq!(request.flags, ATOMIC);
        let va = request.va.get();
        let runs = [(va, PAGES + (va - VA), npages, ATOMIC)];
        guest.respond(request, RESPONSE_SUCCESS, &runs);
    }
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(result_pair(&reply), (40, 600));
    assert_eq!(word(&guest, PAGES + 599 * 4096), 2);
    // The pages may be read and written as well.
    guest.submit(0, 0, OP_COPY, &[VA + 64, VA, 8]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert!(guest.poll_request().is_none());
    assert_eq!(guest.stats().commands_parked, 2);
}

#[test]
fn refused_right_is_a_fault_at_the_word() {
    covers!("coax.dev.38", "coax.dev.45");
    let mut guest = Guest::new();
    guest.open(0);
    let end = VA + 2 * PAGE_SIZE;
    let reply = guest.run(0, OP_FETCH_ADD, &[VA + 8, 8, 1, 1 << 20, 8], &|va| {
        let (gpa, _) = atomic(va)?;
        Some((gpa, if va < end { ATOMIC } else { RW }))
    });
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, end);
    assert_eq!(reply.fault_access, ATOMIC);
    assert_eq!(result_pair(&reply), (0, 1023));
    assert_eq!(word(&guest, PAGES), 0);
    assert_eq!(word(&guest, PAGES + 2 * PAGE_SIZE - 8), 1);
    assert_eq!(word(&guest, PAGES + 2 * PAGE_SIZE), 0);
}

#[test]
fn engines_and_a_processor_lose_no_increment() {
    covers!("coax.dev.62");
    let mut guest = Guest::new();
    guest.open(0);
    for engine in [0, 1] {
        // Its translation is there, so that both start at once.
        let reply = guest.run(0, OP_FETCH_ADD, &[VA, 8, 0, 1, 0], &atomic);
        assert_eq!(reply.status, STATUS_OK, "{engine}");
    }
    let memory = guest.mem.clone();
    let slice = memory.get_slice(GuestAddress(PAGES), 8).unwrap();
    let cpu = slice.get_atomic_ref::<AtomicU64>(0).unwrap();
    let stop = AtomicBool::new(false);
    let added = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut added = 0u64;
            while !stop.load(Ordering::Relaxed) {
                cpu.fetch_add(1, Ordering::Relaxed);
                added += 1;
            }
            added
        });
        for _ in 0..20 {
            guest.submit(0, 0, OP_FETCH_ADD, &[VA, 8, 3, 20_000, 0]);
            guest.submit(1, 0, OP_FETCH_ADD, &[VA, 8, 5, 20_000, 0]);
            for engine in [0, 1] {
                let reply = guest.reply(engine);
                assert_eq!(reply.status, STATUS_OK);
                assert_eq!(result_pair(&reply).1, 20_000);
            }
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap()
    });
    assert_ne!(added, 0);
    assert_eq!(word(&guest, PAGES), added + 20 * 20_000 * (3 + 5));
}

#[test]
fn compare_swaps_of_engines_and_a_processor_each_succeed_once_a_value() {
    covers!("coax.dev.62");
    let mut guest = Guest::new();
    guest.open(0);
    guest.run(0, OP_FETCH_ADD, &[VA, 8, 0, 1, 0], &atomic);
    let memory = guest.mem.clone();
    let slice = memory.get_slice(GuestAddress(PAGES), 8).unwrap();
    let cpu = slice.get_atomic_ref::<AtomicU64>(0).unwrap();
    let stop = AtomicBool::new(false);
    let (by_engines, by_cpu) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut swapped = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let old = cpu.load(Ordering::Relaxed);
                let new = old.wrapping_add(1);
                let order = Ordering::Relaxed;
                swapped += u64::from(cpu.compare_exchange(old, new, order, order).is_ok());
                // A device whose commands go through queues would hardly ever be in time.
                std::thread::yield_now();
            }
            swapped
        });
        let mut swapped = 0u64;
        let mut expected = [0, 0];
        for _ in 0..2000 {
            for engine in [0, 1u16] {
                let value: u64 = expected[usize::from(engine)];
                guest.submit(engine, 0, OP_COMPARE_SWAP, &[VA, 8, value, value + 1]);
            }
            for engine in [0, 1u16] {
                let (before, _) = result_pair(&guest.reply(engine));
                let value = &mut expected[usize::from(engine)];
                swapped += u64::from(before == *value);
                *value = if before == *value { before + 1 } else { before };
            }
        }
        stop.store(true, Ordering::Relaxed);
        (swapped, thread.join().unwrap())
    });
    assert_eq!(word(&guest, PAGES), by_engines + by_cpu);
}

#[test]
fn page_that_is_taken_back_at_once_is_still_used() {
    covers!("coax.dev.49");
    let mut guest = Guest::new();
    guest.open(0);
    // Nothing but the order of messages: answer, then invalidation.
    for round in 0..300 {
        guest.submit(0, 0, OP_FETCH_ADD, &[VA, 8, 1, 1, 0]);
        let mut grants = 0;
        let reply = loop {
            if let Some(reply) = guest.poll_reply() {
                break reply;
            }
            if let Some(request) = guest.poll_request() {
                grants += 1;
                guest.complete(&request, &[(VA, PAGES, 1, ATOMIC)]);
                assert_eq!(guest.invalidate(0, VA, 1), STATUS_OK);
            }
        };
        assert_eq!(reply.status, STATUS_OK);
        assert!(grants <= 2, "{grants} grants in round {round}");
    }
    assert_eq!(word(&guest, PAGES), 300);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Telling the driver where commands use system memory.
//!
//! What is told is in the request queue before the command that it is about is answered, so these tests look and
//! need not wait.

use coax_abi::wire::*;
use coax_specification::covers;
use zerocopy::FromBytes;

use crate::front_end::{Guest, CONFIG, DEVICE_MEMORY, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;
const WINDOW: u64 = MAX_RANGE_PAGES as u64 * PAGE_SIZE;

/// A guest with an open context that has translations of two windows.
fn guest() -> Guest {
    let mut guest = Guest::new();
    guest.open(0);
    translate(&mut guest, 0);
    guest
}

fn translate(guest: &mut Guest, context: u32) {
    let generation = guest.generation(context);
    let all = MAX_RANGE_PAGES;
    let runs = [(VA, PAGES, all, RW), (VA + WINDOW, PAGES + WINDOW, all, RW)];
    guest.ahead(context, generation, &runs);
}

fn notify(guest: &mut Guest, context: u32, accesses: u64) -> u32 {
    guest.control(CONTROL_CONTEXT_NOTIFY, context, accesses, 0)
}

/// Has the device write a word so many times.
fn write(guest: &mut Guest, context: u32, va: u64, times: u32) {
    for _ in 0..times {
        guest.submit(0, context, OP_FILL, &[va, 8, 7]);
        assert_eq!(guest.reply(0).status, STATUS_OK);
    }
}

/// The windows of which it was told since the last look, by their first addresses.
fn told(guest: &mut Guest, context: u32) -> Vec<u64> {
    let queue = usize::from(QUEUE_REQUEST);
    let used = std::iter::from_fn(|| guest.queues[queue].poll());
    let messages: Vec<Vec<u8>> = used.map(|(_, bytes)| bytes).collect();
    let generation = guest.generation(context);
    let told = messages.iter().map(|bytes| {
        let message = DeviceRequest::read_from_bytes(bytes).unwrap();
        assert_eq!(message.kind, NOTIFY_ACCESS);
        assert_eq!(message.context, context);
        assert_eq!(message.generation, generation);
        assert_eq!((message.npages.get(), message.around.get()), (512, 512));
        assert_eq!((message.tag.get(), message.flags.get()), (0, 0));
        assert_eq!(message.reserved, 0);
        message.va.get()
    });
    told.collect()
}

#[test]
fn accesses_are_told_of_at_the_threshold_and_each_time_they_have_doubled() {
    covers!("coax.dev.80");
    covers!("coax.dev.81");
    let mut guest = guest();
    assert_eq!(notify(&mut guest, 0, 4), STATUS_OK);
    for n in 1..=16 {
        // Anywhere in the window.
        write(&mut guest, 0, VA + n * PAGE_SIZE, 1);
        let expected: &[u64] = if [4, 8, 16].contains(&n) { &[VA] } else { &[] };
        assert_eq!(told(&mut guest, 0), expected, "after {n} accesses");
    }
    write(&mut guest, 0, VA + WINDOW, 4);
    assert_eq!(told(&mut guest, 0), [VA + WINDOW]);
}

#[test]
fn each_page_of_an_access_counts_of_source_and_destination() {
    covers!("coax.dev.80");
    let mut guest = guest();
    let bytes = 64 * PAGE_SIZE;
    assert_eq!(notify(&mut guest, 0, 65), STATUS_OK);
    guest.submit(0, 0, OP_COPY, &[VA + WINDOW, VA, bytes]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert_eq!(told(&mut guest, 0), [0; 0]);
    write(&mut guest, 0, VA, 1);
    write(&mut guest, 0, VA + WINDOW, 1);
    assert_eq!(told(&mut guest, 0), [VA, VA + WINDOW]);
}

#[test]
fn nobody_is_told_who_has_not_asked() {
    covers!("coax.dev.80");
    let mut guest = guest();
    guest.open(1);
    translate(&mut guest, 1);
    assert_eq!(notify(&mut guest, 1, 1), STATUS_OK);
    write(&mut guest, 0, VA, 100);
    assert_eq!(told(&mut guest, 1), [0; 0]);
    write(&mut guest, 1, VA, 1);
    assert_eq!(told(&mut guest, 1), [VA]);
    assert_eq!(notify(&mut guest, 1, 0), STATUS_OK);
    write(&mut guest, 1, VA, 100);
    assert_eq!(told(&mut guest, 1), [0; 0]);
    // Nor by one who has asked under the number before.
    guest.control(CONTROL_CONTEXT_CLOSE, 1, 0, 0);
    guest.open(1);
    translate(&mut guest, 1);
    write(&mut guest, 1, VA, 100);
    assert_eq!(told(&mut guest, 1), [0; 0]);
}

#[test]
fn use_of_device_memory_is_not_told_of() {
    covers!("coax.dev.80");
    let mut guest = Guest::new();
    let status = guest.control(CONTROL_SET_DEVICE_MEMORY, 0, DEVICE_MEMORY, 16 << 20);
    assert_eq!(status, STATUS_OK);
    guest.open(0);
    assert_eq!(notify(&mut guest, 0, 1), STATUS_OK);
    let runs = [(VA, DEVICE_MEMORY, 1, RW), (VA + PAGE_SIZE, PAGES, 1, RW)];
    guest.ahead(0, guest.generation(0), &runs);
    write(&mut guest, 0, VA, 100);
    assert_eq!(told(&mut guest, 0), [0; 0]);
    write(&mut guest, 0, VA + PAGE_SIZE, 1);
    assert_eq!(told(&mut guest, 0), [VA]);
}

#[test]
fn what_is_invalidated_as_a_whole_is_counted_anew() {
    covers!("coax.dev.81");
    let mut guest = guest();
    assert_eq!(notify(&mut guest, 0, 4), STATUS_OK);
    write(&mut guest, 0, VA, 3);
    assert_eq!(guest.invalidate(0, VA, MAX_RANGE_PAGES.into()), STATUS_OK);
    translate(&mut guest, 0);
    write(&mut guest, 0, VA, 3);
    assert_eq!(told(&mut guest, 0), [0; 0]);
    write(&mut guest, 0, VA, 1);
    assert_eq!(told(&mut guest, 0), [VA]);
}

#[test]
fn what_finds_no_buffer_is_not_told_and_keeps_nothing_waiting() {
    covers!("coax.dev.82");
    let mut guest = Guest::cold(CONFIG);
    guest.start();
    guest.open(0);
    translate(&mut guest, 0);
    assert_eq!(notify(&mut guest, 0, 1), STATUS_OK);
    write(&mut guest, 0, VA, 1);
    guest.offer_request_buffers(1);
    // The buffer is for the next that is told, or asked.
    write(&mut guest, 0, VA + WINDOW, 1);
    assert_eq!(told(&mut guest, 0), [VA + WINDOW]);
    write(&mut guest, 0, VA, 1);
    guest.submit(0, 0, OP_FILL, &[VA + 2 * WINDOW, 8, 7]);
    guest.offer_request_buffers(1);
    let request = guest.request_keeping_buffer();
    assert_eq!(request.va, VA + 2 * WINDOW);
}

#[test]
fn notifications_are_for_contexts_that_are_open_and_numbers_that_make_sense() {
    covers!("coax.dev.83");
    let mut guest = guest();
    let most = u64::from(MAX_ACCESS_THRESHOLD);
    assert_eq!(notify(&mut guest, 0, most), STATUS_OK);
    assert_eq!(notify(&mut guest, 0, most + 1), STATUS_BAD_ARGUMENT);
    let status = guest.control(CONTROL_CONTEXT_NOTIFY, 0, 1, 1);
    assert_eq!(status, STATUS_BAD_MESSAGE);
    assert_eq!(notify(&mut guest, 1, 1), STATUS_BAD_CONTEXT);
    guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0);
    assert_eq!(notify(&mut guest, 0, 1), STATUS_BAD_CONTEXT);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bounds on outstanding requests.

use coax_abi::wire::*;
use coax_specification::covers;

use crate::front_end::{linear, Guest, CONFIG, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;

/// Starts fills of pages far apart.
fn start_fills(guest: &mut Guest, count: u64) {
    for n in 0..count {
        guest.submit(0, 0, OP_FILL, &[VA + (n << 21), 8, 7]);
    }
    // A last command that needs nothing shows that the engine has got there.
    let last = guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply_with_head(0).0, last);
}

#[test]
fn page_requests_stay_within_the_allocation() {
    covers!("coax.dev.30");
    let mut guest = Guest::new();
    guest.open(0);
    // Half of them are for one context.
    let status = guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, 4, 0);
    assert_eq!(status, STATUS_OK);
    start_fills(&mut guest, 5);
    let mut outstanding = vec![guest.request(), guest.request()];
    assert_eq!(guest.stats().requests_deferred, 3);
    assert!(guest.poll_request().is_none());
    for answered in 0..5 {
        let request = outstanding.remove(0);
        guest.respond(&request, RESPONSE_INVALID, &[]);
        assert_eq!(guest.reply(0).status, STATUS_FAULT);
        if answered < 3 {
            outstanding.push(guest.request());
        }
        assert!(guest.poll_request().is_none());
    }
    let stats = guest.stats();
    assert_eq!(stats.page_requests, 5);
    assert_eq!(stats.requests_deferred, 3);
}

#[test]
fn larger_allocation_lets_waiting_requests_go() {
    covers!("coax.dev.17");
    let mut guest = Guest::new();
    guest.open(0);
    guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, 1, 0);
    start_fills(&mut guest, 3);
    guest.request();
    assert!(guest.poll_request().is_none());
    guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, 6, 0);
    guest.request();
    guest.request();
}

#[test]
fn requests_of_a_copy_go_one_by_one_when_only_one_is_allowed() {
    covers!("coax.dev.30");
    let mut guest = Guest::new();
    guest.open(0);
    guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, 1, 0);
    guest.submit(0, 0, OP_COPY, &[VA + (1 << 21), VA, 8]);
    let request = guest.request();
    assert_eq!(request.flags, ACCESS_READ);
    assert!(guest.poll_request().is_none());
    guest.serve(&request, &linear);
    assert_eq!(guest.serve_until_reply(&linear).status, STATUS_OK);
    assert_eq!(guest.stats().commands_parked, 1);
}

#[test]
fn allocation_out_of_range_is_refused() {
    covers!("coax.dev.16");
    let mut guest = Guest::new();
    for requests in [0, u64::from(CONFIG.page_requests) + 1, u64::MAX] {
        let status = guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, requests, 0);
        assert_eq!(status, STATUS_BAD_ARGUMENT);
    }
}

#[test]
fn requests_wait_for_buffers_and_go_when_there_are_some() {
    covers!("coax.dev.32");
    let mut guest = Guest::cold(CONFIG);
    guest.start();
    guest.open(0);
    guest.submit(0, 0, OP_COPY, &[VA + (1 << 21), VA, 8]);
    let other = guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply_with_head(0).0, other);
    // One buffer at a time.
    guest.offer_request_buffers(1);
    let source = guest.request_keeping_buffer();
    assert_eq!(guest.stats().translation_requests, 1);
    guest.offer_request_buffers(1);
    let target = guest.request_keeping_buffer();
    guest.serve(&source, &linear);
    guest.respond(&target, RESPONSE_FAILURE, &[]);
    assert_eq!(guest.reply(0).status, STATUS_RESPONSE_FAILURE);
    assert_eq!(guest.stats().requests_deferred, 0);
}

#[test]
fn answers_with_unknown_tags_are_counted_and_ignored() {
    covers!("coax.dev.35");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    let errors = guest.stats().guest_errors.get();
    for bad in [
        DeviceRequest {
            tag: (request.tag.get() + 1).into(),
            ..request
        },
        DeviceRequest {
            tag: u32::MAX.into(),
            ..request
        },
        DeviceRequest {
            context: 1.into(),
            ..request
        },
        DeviceRequest {
            generation: (request.generation.get() + 1).into(),
            ..request
        },
        DeviceRequest {
            generation: 0.into(),
            ..request
        },
    ] {
        guest.complete(&bad, &[(VA, 0, 1, RW)]);
    }
    assert_eq!(guest.stats().guest_errors, errors + 5);
    assert!(guest.poll_reply().is_none());
    guest.serve(&request, &linear);
    assert_eq!(guest.serve_until_reply(&linear).status, STATUS_OK);
}

#[test]
fn more_parked_commands_than_requests_allowed_all_end() {
    let mut guest = Guest::new();
    guest.open(0);
    // As many as the queue holds with two descriptors each.
    for n in 0..128u64 {
        guest.submit(0, 0, OP_FILL, &[VA + n * PAGE_SIZE, 8, n]);
    }
    for _ in 0..128 {
        assert_eq!(guest.serve_until_reply(&linear).status, STATUS_OK);
    }
}

#[test]
fn context_whose_pages_never_come_leaves_others_untouched() {
    covers!("coax.dev.31");
    let mut guest = Guest::new();
    guest.open(0);
    guest.open(1);
    // More than there are requests in all.
    for n in 0..64 {
        guest.submit(0, 0, OP_FILL, &[VA + (n << 21), 8, 7]);
    }
    let unanswered: Vec<_> = (0..CONFIG.page_requests / 2)
        .map(|_| guest.request())
        .collect();
    assert!(unanswered.iter().all(|request| request.context == 0));
    for n in 0..12 {
        guest.submit(0, 1, OP_FILL, &[VA + (n << 21), 8, 7]);
        let request = guest.request();
        assert_eq!(request.context, 1);
        guest.serve(&request, &linear);
        assert_eq!(guest.serve_until_reply(&linear).status, STATUS_OK);
    }
}

#[test]
fn requests_survive_the_absence_of_their_queue() {
    covers!("coax.dev.32");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_NOP, &[]);
    guest.reply(0);
    // The request queue lies in no memory for a while; the other queues do.
    guest.hide_queue(QUEUE_REQUEST, true);
    let missing = guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let other = guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply_with_head(0).0, other);
    assert_eq!(guest.stats().translation_requests, 0);
    guest.hide_queue(QUEUE_REQUEST, false);
    guest.queues[usize::from(QUEUE_REQUEST)].kick();
    let request = guest.request();
    guest.serve(&request, &linear);
    let (head, reply) = guest.reply_with_head(0);
    assert_eq!((head, reply.status.get()), (missing, STATUS_OK));
}

#[test]
fn senseless_buffers_of_the_request_queue_are_passed_over() {
    let mut guest = Guest::cold(CONFIG);
    guest.start();
    guest.open(0);
    let queue = usize::from(QUEUE_REQUEST);
    guest.queues[queue].offer(4000);
    guest.offer_request_buffers(1);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request_keeping_buffer();
    guest.serve(&request, &linear);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert_ne!(guest.stats().guest_errors, 0);
}

#[test]
fn buffer_that_is_too_small_is_returned_empty() {
    covers!("coax.dev.32");
    let mut guest = Guest::cold(CONFIG);
    guest.start();
    guest.open(0);
    let queue = usize::from(QUEUE_REQUEST);
    let small = guest.queues[queue].add(&[], size_of::<DeviceRequest>() as u32 - 1);
    guest.offer_request_buffers(1);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.expect(QUEUE_REQUEST), (small, Vec::new()));
    let request = guest.request_keeping_buffer();
    guest.serve(&request, &linear);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

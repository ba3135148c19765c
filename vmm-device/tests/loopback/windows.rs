// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands that need many windows of 2 MiB: parked once, asked for ahead, answered in parts.

use coax_abi::wire::*;

use crate::commands::result_pair;
use crate::front_end::{linear, Guest, CONFIG, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;
const WINDOW: u64 = 2 << 20;

/// A window's pages, at the same distance from [`PAGES`] as the request from [`VA`].
fn window(request: &DeviceRequest) -> [(u64, u64, u32, u32); 1] {
    let va = request.va.get();
    [(va, PAGES + (va - VA), request.npages.get(), RW)]
}

/// Answers the next translation requests with nothing.
fn complete_with_nothing(guest: &mut Guest, count: u64) {
    for _ in 0..count {
        let request = guest.request();
        guest.complete(&request, &[]);
    }
}

fn places(requests: &[DeviceRequest]) -> Vec<(u64, u32)> {
    requests
        .iter()
        .map(|request| (request.va.get(), request.npages.get()))
        .collect()
}

#[test]
fn copy_over_present_windows_is_parked_once() {
    let mut guest = Guest::new();
    guest.open(0);
    let (src, dst) = (VA + 0x1000, VA + (8 << 20));
    guest.submit(0, 0, OP_COPY, &[dst, src, 2 * WINDOW]);
    let requests: Vec<_> = (0..5).map(|_| guest.request()).collect();
    // The windows of the misses first, those ahead in turn.
    let expected = [
        (src, 511),
        (dst, 512),
        (VA + WINDOW, 512),
        (dst + WINDOW, 512),
        (VA + 2 * WINDOW, 1),
    ];
    assert_eq!(places(&requests), expected);
    for request in &requests {
        assert_eq!(request.kind, REQUEST_TRANSLATION);
        guest.complete(request, &window(request));
    }
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(result_pair(&reply), (1, 1));
    let stats = guest.stats();
    assert_eq!(stats.commands_parked, 1);
    assert_eq!(stats.page_requests, 0);
}

#[test]
fn absent_windows_are_one_group_that_is_answered_in_parts() {
    let mut guest = Guest::new();
    guest.open(0);
    let dst = VA + (8 << 20);
    let bytes: Vec<u8> = (0..2 * WINDOW).map(|n| (n % 241) as u8).collect();
    guest.write(PAGES, &bytes);
    guest.submit(0, 0, OP_COPY, &[dst, VA, 2 * WINDOW]);
    complete_with_nothing(&mut guest, 4);
    let group: Vec<_> = (0..4).map(|_| guest.request()).collect();
    let expected = [VA, dst, VA + WINDOW, dst + WINDOW].map(|va| (va, 512));
    assert_eq!(places(&group), expected);
    let rights = [ACCESS_READ, ACCESS_WRITE, ACCESS_READ, ACCESS_WRITE];
    for (n, request) in group.iter().enumerate() {
        let last = if n == 3 { REQUEST_LAST } else { 0 };
        assert_eq!(request.flags, rights[n] | last);
        assert_eq!(request.tag, group[0].tag);
    }
    for request in &group[..3] {
        guest.part(request, &window(request));
    }
    assert!(guest.poll_reply().is_none());
    guest.respond(&group[3], RESPONSE_SUCCESS, &window(&group[3]));
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.page_requests, 4);
    assert!(guest.read(PAGES + (8 << 20), bytes.len()) == bytes);
    let stats = guest.stats();
    assert_eq!(stats.commands_parked, 1);
    assert_eq!(stats.responses_success, 1);
    assert_eq!(stats.guest_errors, 0);
}

#[test]
fn windows_that_lack_nothing_are_left_out_of_the_group() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 3 * WINDOW, 7]);
    for _ in 0..3 {
        let request = guest.request();
        let present = request.va != VA + WINDOW;
        guest.complete(
            &request,
            if present {
                &[]
            } else {
                &[(VA + WINDOW, PAGES + WINDOW, 512, RW)]
            },
        );
    }
    let group = [guest.request(), guest.request()];
    assert_eq!(places(&group), [(VA, 512), (VA + 2 * WINDOW, 512)]);
    guest.part(&group[0], &window(&group[0]));
    guest.respond(&group[1], RESPONSE_SUCCESS, &window(&group[1]));
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn translated_windows_ahead_are_not_asked_for() {
    let mut guest = Guest::new();
    guest.open(0);
    let fill = [VA, 4 * WINDOW, 7];
    assert_eq!(guest.run(0, OP_FILL, &fill, &linear).status, STATUS_OK);
    assert_eq!(guest.stats().translation_requests, 4);
    for va in [VA + PAGE_SIZE, VA + 2 * WINDOW] {
        assert_eq!(guest.invalidate(0, va, 1), STATUS_OK);
    }
    guest.submit(0, 0, OP_FILL, &fill);
    let requests = [guest.request(), guest.request()];
    assert_eq!(
        places(&requests),
        [(VA + PAGE_SIZE, 511), (VA + 2 * WINDOW, 512)]
    );
    for request in &requests {
        guest.complete(request, &window(request));
    }
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert!(guest.poll_request().is_none());
}

#[test]
fn invalid_window_ahead_ends_the_command_only_when_it_gets_there() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA + 8, 4 * WINDOW, u64::MAX]);
    complete_with_nothing(&mut guest, 5);
    let group: Vec<_> = (0..5).map(|_| guest.request()).collect();
    guest.respond(&group[4], RESPONSE_INVALID, &[]);
    // One by one: the window of the miss is there, the first one ahead is not. The command
    // cannot get to those behind it, which are not asked for.
    let single = guest.request();
    assert_eq!(single.va, VA);
    assert_eq!(single.flags, ACCESS_WRITE | REQUEST_LAST);
    guest.respond(&single, RESPONSE_SUCCESS, &window(&single));
    let single = guest.request();
    assert_eq!(single.va, VA + WINDOW);
    guest.respond(&single, RESPONSE_INVALID, &[]);
    // It gets there, and now the window is decisive.
    complete_with_nothing(&mut guest, 4);
    let group: Vec<_> = (0..4).map(|_| guest.request()).collect();
    assert_eq!(group[0].va, VA + WINDOW);
    guest.respond(&group[3], RESPONSE_INVALID, &[]);
    let single = guest.request();
    assert_eq!(single.va, VA + WINDOW);
    guest.respond(&single, RESPONSE_INVALID, &[]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, VA + WINDOW);
    assert_eq!(reply.bytes_done, WINDOW - 8);
}

#[test]
fn windows_ahead_are_dropped_once_page_requests_have_stopped() {
    let mut guest = Guest::new();
    guest.open(0);
    // Response Failure stops the page requests of the context, …
    guest.submit(0, 0, OP_FILL, &[VA + (30 << 20), 8, 7]);
    complete_with_nothing(&mut guest, 1);
    let request = guest.request();
    guest.respond(&request, RESPONSE_FAILURE, &[]);
    assert_eq!(guest.reply(0).status, STATUS_RESPONSE_FAILURE);
    // … so that a command goes as far as translations reach.
    guest.submit(0, 0, OP_FILL, &[VA, WINDOW + 8, 7]);
    let requests = [guest.request(), guest.request()];
    guest.complete(&requests[0], &window(&requests[0]));
    guest.complete(&requests[1], &[]);
    complete_with_nothing(&mut guest, 1);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_RESPONSE_FAILURE);
    assert_eq!(reply.fault_va, VA + WINDOW);
    assert_eq!(reply.bytes_done, WINDOW);
}

#[test]
fn sixteen_windows_are_asked_for_at_most_in_groups_within_the_allocation() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_SHA256, &[VA, 1 << 30]);
    complete_with_nothing(&mut guest, 16);
    for first in [0, 8] {
        let group: Vec<_> = (0..CONFIG.page_requests).map(|_| guest.request()).collect();
        for (n, request) in (0u64..).zip(&group) {
            assert_eq!(request.va, VA + (first + n) * WINDOW);
            let last = if n == 7 { REQUEST_LAST } else { 0 };
            assert_eq!(request.flags, ACCESS_READ | last);
        }
        assert!(guest.poll_request().is_none());
        guest.respond(&group[7], RESPONSE_SUCCESS, &[]);
    }
    assert_eq!(guest.request().kind, REQUEST_TRANSLATION);
    assert_eq!(guest.stats().commands_parked, 2);
}

#[test]
fn what_a_command_cannot_go_on_without_takes_what_is_left_of_the_allocation() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, 4, 0);
    guest.submit(0, 0, OP_FILL, &[VA + (30 << 20), 8, 7]);
    complete_with_nothing(&mut guest, 1);
    let other = guest.request();
    guest.submit(0, 0, OP_COPY, &[VA + (16 << 20), VA, 4 * WINDOW]);
    complete_with_nothing(&mut guest, 8);
    let group: Vec<_> = (0..3).map(|_| guest.request()).collect();
    assert_eq!(group[2].flags, ACCESS_READ | REQUEST_LAST);
    guest.stats();
    assert!(guest.poll_request().is_none());
    guest.respond(&other, RESPONSE_INVALID, &[]);
    guest.part(&group[0], &window(&group[0]));
    guest.part(&group[1], &window(&group[1]));
    guest.respond(&group[2], RESPONSE_SUCCESS, &window(&group[2]));
    let rest: Vec<_> = (0..4).map(|_| guest.request()).collect();
    assert_eq!(rest[0].va, VA + (16 << 20) + WINDOW);
    guest.respond(&rest[3], RESPONSE_SUCCESS, &[]);
}

#[test]
fn contending_command_asks_for_its_own_window_only() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 2 * WINDOW, 7]);
    let requests = [guest.request(), guest.request()];
    // The page is taken away before the command gets to it.
    guest.complete(&requests[1], &[]);
    guest.complete(&requests[0], &[]);
    let group = [guest.request(), guest.request()];
    guest.respond(&group[1], RESPONSE_SUCCESS, &[]);
    let again = guest.request();
    assert_eq!(places(&[again]), [(VA, 512)]);
    guest.complete(&again, &[]);
    let single = guest.request();
    assert_eq!(single.flags, ACCESS_WRITE | REQUEST_LAST);
}

#[test]
fn part_for_an_unknown_group_is_a_mistake_and_for_an_aborted_one_is_not() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, WINDOW + 1, 7]);
    complete_with_nothing(&mut guest, 2);
    let group = [guest.request(), guest.request()];
    for bad in [
        DeviceRequest {
            tag: (group[0].tag.get() + 1).into(),
            ..group[0]
        },
        DeviceRequest {
            tag: u32::MAX.into(),
            ..group[0]
        },
        DeviceRequest {
            context: 1.into(),
            ..group[0]
        },
    ] {
        guest.part(&bad, &window(&bad));
    }
    assert_eq!(guest.stats().guest_errors, 3);
    assert_eq!(guest.control(CONTROL_RESET, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    guest.part(&group[0], &window(&group[0]));
    guest.respond(&group[1], RESPONSE_SUCCESS, &[]);
    assert_eq!(guest.stats().guest_errors, 3);
    // The part of the aborted group was not taken.
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.request().kind, REQUEST_TRANSLATION);
    // After the response, parts are late.
    guest.part(&group[0], &window(&group[0]));
    assert_eq!(guest.stats().guest_errors, 4);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands that need many windows of 2 MiB: parked once, asked for ahead, answered in parts.

use coax_abi::wire::*;
use coax_specification::covers;

use crate::commands::result_pair;
use crate::front_end::{linear, Guest, CONFIG, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;
const WINDOW: u64 = 2 << 20;

/// A window's pages, at the same distance from [`PAGES`] as the request from [`VA`].
fn window(request: &DeviceRequest) -> [(u64, u64, u32, u32); 1] {
    let va = request.va.get();
    [(va, PAGES + (va - VA), request.npages.get(), RW)]
}

fn places(requests: &[DeviceRequest]) -> Vec<(u64, u32)> {
    requests
        .iter()
        .map(|request| (request.va.get(), request.npages.get()))
        .collect()
}

#[test]
fn copy_over_present_windows_is_parked_once() {
    covers!("coax.dev.27", "coax.dev.33");
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
fn absent_windows_are_answered_in_any_order() {
    covers!("coax.dev.41", "coax.dev.60");
    let mut guest = Guest::new();
    guest.open(0);
    let dst = VA + (8 << 20);
    let bytes: Vec<u8> = (0..2 * WINDOW).map(|n| (n % 241) as u8).collect();
    guest.write(PAGES, &bytes);
    guest.submit(0, 0, OP_COPY, &[dst, VA, 2 * WINDOW]);
    let requests: Vec<_> = (0..4).map(|_| guest.request()).collect();
    let expected = [VA, dst, VA + WINDOW, dst + WINDOW].map(|va| (va, 512));
    assert_eq!(places(&requests), expected);
    let rights = [ACCESS_READ, ACCESS_WRITE, ACCESS_READ, ACCESS_WRITE];
    for (request, access) in requests.iter().zip(rights) {
        assert_eq!(request.flags, access);
    }
    for n in [3, 0, 2] {
        guest.respond(&requests[n], RESPONSE_SUCCESS, &window(&requests[n]));
    }
    assert!(guest.poll_reply().is_none());
    guest.complete(&requests[1], &window(&requests[1]));
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.page_requests, 3);
    assert!(guest.read(PAGES + (8 << 20), bytes.len()) == bytes);
    let stats = guest.stats();
    assert_eq!(stats.commands_parked, 1);
    assert_eq!(stats.translation_requests, 4);
    assert_eq!(stats.responses_success, 3);
    assert_eq!(stats.guest_errors, 0);
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
    covers!("coax.dev.39");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA + 8, 4 * WINDOW, u64::MAX]);
    let requests: Vec<_> = (0..5).map(|_| guest.request()).collect();
    for request in requests[1..].iter().rev() {
        guest.respond(request, RESPONSE_INVALID, &[]);
    }
    assert!(guest.poll_reply().is_none());
    guest.respond(&requests[0], RESPONSE_SUCCESS, &window(&requests[0]));
    // It gets there, and now the window is decisive.
    let requests: Vec<_> = (0..4).map(|_| guest.request()).collect();
    assert_eq!(requests[0].va, VA + WINDOW);
    guest.respond(&requests[0], RESPONSE_INVALID, &[]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, VA + WINDOW);
    assert_eq!(reply.bytes_done, WINDOW - 8);
    // Those that nobody waits for any more are late, not wrong.
    for request in &requests[1..] {
        guest.complete(request, &window(request));
    }
    let stats = guest.stats();
    assert_eq!(stats.guest_errors, 0);
    assert_eq!(stats.responses_invalid, 5);
}

#[test]
fn response_failure_in_a_window_ahead_ends_the_command() {
    covers!("coax.dev.40");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, WINDOW + 8, 7]);
    let [_, ahead] = [guest.request(), guest.request()];
    guest.respond(&ahead, RESPONSE_FAILURE, &[]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_RESPONSE_FAILURE);
    assert_eq!(reply.fault_va, VA + WINDOW);
}

#[test]
fn sixteen_windows_are_asked_for_at_most_within_the_share() {
    covers!("coax.dev.27", "coax.dev.33");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_SHA256, &[VA, 1 << 30]);
    let mut requests: Vec<_> = (0..CONFIG.page_requests / 2)
        .map(|_| guest.request())
        .collect();
    for n in 0..16 {
        let request = requests.remove(0);
        assert_eq!(request.va, VA + n * WINDOW);
        assert!(guest.poll_request().is_none());
        guest.respond(&request, RESPONSE_SUCCESS, &[]);
        if requests.len() as u64 + n < 15 {
            requests.push(guest.request());
        }
    }
    // Nothing was gained, so the next time it asks for its own window only.
    assert_eq!(guest.request().va, VA);
    let stats = guest.stats();
    assert_eq!(stats.commands_parked, 2);
    assert_eq!(stats.requests_deferred, 8);
    assert!(guest.poll_request().is_none());
}

#[test]
fn contending_command_asks_for_its_own_window_only() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 2 * WINDOW, 7]);
    let requests = [guest.request(), guest.request()];
    // The page is taken away before the command gets to it.
    guest.complete(&requests[1], &[]);
    guest.respond(&requests[0], RESPONSE_SUCCESS, &[]);
    let again = guest.request();
    assert_eq!(places(&[again]), [(VA, 512)]);
    guest.complete(&again, &[]);
    assert_eq!(places(&[guest.request()]), [(VA, 512)]);
    assert!(guest.poll_request().is_none());
}

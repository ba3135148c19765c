// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Invalidations: what they drop, what they wait for.

use coax_abi::wire::*;
use coax_specification::covers;

use crate::front_end::{linear, Guest, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;

#[test]
fn invalidated_page_is_asked_for_again_and_its_neighbours_are_not() {
    covers!("coax.dev.46");
    let mut guest = Guest::new();
    guest.open(0);
    let fill = [VA, 3 * PAGE_SIZE, 1];
    assert_eq!(guest.run(0, OP_FILL, &fill, &linear).status, STATUS_OK);
    assert_eq!(guest.invalidate(0, VA + PAGE_SIZE, 1), STATUS_OK);
    guest.submit(0, 0, OP_FILL, &fill);
    let request = guest.request();
    assert_eq!(request.va, VA + PAGE_SIZE);
    // The page has moved in the meantime.
    let moved = PAGES + 0x10_0000;
    guest.complete(&request, &[(VA + PAGE_SIZE, moved, 1, RW)]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert_eq!(guest.read(moved, 1), [1]);
    assert!(guest.poll_request().is_none());
    assert_eq!(guest.stats().invalidations, 1);
}

#[test]
fn invalidation_is_answered_while_a_command_is_parked_on_the_range() {
    covers!("coax.dev.47");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 1]);
    let request = guest.request();
    assert_eq!(guest.invalidate(0, VA, 1), STATUS_OK);
    guest.respond(&request, RESPONSE_SUCCESS, &[(VA, PAGES, 1, RW)]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn invalidation_right_behind_a_completion_is_never_lost() {
    covers!("coax.dev.34", "coax.dev.46");
    let mut guest = Guest::new();
    guest.open(0);
    // Each round the page lies elsewhere; a write that went to the old place after the
    // invalidation was answered would show there.
    let mut place = PAGES;
    for round in 1..200u64 {
        guest.write(place, &0u64.to_le_bytes());
        guest.submit(0, 0, OP_FILL, &[VA, 8, round]);
        let request = guest.request();
        guest.complete(&request, &[(VA, place, 1, RW)]);
        guest.invalidate(0, VA, 1);
        let seen = guest.read(place, 8);
        let moved = PAGES + (round % 64) * PAGE_SIZE;
        guest.write(moved, &0u64.to_le_bytes());
        let reply = guest.serve_until_reply(&|_| Some((moved, RW)));
        assert_eq!(reply.status, STATUS_OK);
        let done_before = seen == round.to_le_bytes();
        let right_place = if done_before { place } else { moved };
        assert_eq!(guest.read(right_place, 8), round.to_le_bytes());
        if !done_before && place != moved {
            assert_eq!(guest.read(place, 8), seen, "write after invalidation");
        }
        guest.invalidate(0, VA, 1);
        place = moved;
    }
}

#[test]
fn invalidation_of_everything_and_of_nothing_is_answered() {
    covers!("coax.dev.48");
    let mut guest = Guest::new();
    guest.open(0);
    let reply = guest.run(0, OP_FILL, &[VA, 8, 1], &linear);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(guest.invalidate(0, VA, 0), STATUS_OK);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 1]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert_eq!(guest.invalidate(0, 0, u64::MAX), STATUS_OK);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 1]);
    assert_eq!(guest.request().va, VA);
}

#[test]
fn invalidation_of_a_closed_context_is_answered_with_an_error() {
    let mut guest = Guest::new();
    assert_eq!(guest.invalidate(3, 0, 1), STATUS_BAD_CONTEXT);
    assert_eq!(guest.invalidate(u32::MAX, 0, 1), STATUS_BAD_CONTEXT);
}

#[test]
fn invalidation_of_another_opening_touches_nothing() {
    covers!("coax.dev.20");
    let mut guest = Guest::new();
    guest.open(0);
    let old = guest.generation(0);
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
    guest.open(0);
    let fill = [VA, 8, 1];
    assert_eq!(guest.run(0, OP_FILL, &fill, &linear).status, STATUS_OK);
    for generation in [0, old, guest.generation(0) + 1] {
        let status = guest.invalidate_in(0, generation, VA, 1);
        assert_eq!(status, STATUS_BAD_CONTEXT);
    }
    guest.submit(0, 0, OP_FILL, &fill);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert!(guest.poll_request().is_none());
}

#[test]
fn invalidation_reaches_one_context_only() {
    covers!("coax.dev.21");
    let mut guest = Guest::new();
    guest.open(0);
    guest.open(1);
    for context in [0, 1] {
        let reply = guest.run(context, OP_FILL, &[VA, 8, 1], &linear);
        assert_eq!(reply.status, STATUS_OK);
    }
    assert_eq!(guest.invalidate(1, VA, 1), STATUS_OK);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 1]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    guest.submit(0, 1, OP_FILL, &[VA, 8, 1]);
    assert_eq!(guest.request().context, 1);
}

#[test]
fn invalidations_are_prompt_under_a_long_copy() {
    covers!("coax.dev.47");
    let mut guest = Guest::new();
    guest.open(0);
    let copy = [VA + (16 << 20), VA, 16 << 20];
    guest.submit(0, 0, OP_COPY, &copy);
    let mut rounds = 0;
    let reply = loop {
        if let Some(reply) = guest.poll_reply() {
            break reply;
        }
        if let Some(request) = guest.poll_request() {
            guest.serve(&request, &linear);
        }
        if rounds < 1000 {
            rounds += 1;
            // Pages all over the source.
            let page = rounds * 577 % 4096;
            assert_eq!(guest.invalidate(0, VA + page * PAGE_SIZE, 1), STATUS_OK);
        }
    };
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.bytes_done, 16 << 20);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opening, closing, resetting.

use coax_abi::wire::*;
use coax_specification::covers;

use crate::front_end::{linear, Guest, CONFIG, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;

#[test]
fn configuration_space_tells_the_sizes() {
    covers!("coax.dev.4");
    let mut guest = Guest::new();
    let config = guest.config_space();
    assert_eq!(config.magic, MAGIC);
    assert_eq!(config.abi_version, ABI_VERSION);
    assert_eq!(config.max_contexts, CONFIG.contexts);
    assert_eq!(config.command_queues, u32::from(CONFIG.engines));
    assert_eq!(config.page_request_capacity, CONFIG.page_requests);
    assert_eq!(config.services, SERVICE_VIRTQUEUE);
}

#[test]
fn context_numbers_are_checked() {
    covers!("coax.dev.19");
    let mut guest = Guest::new();
    guest.open(63);
    for (opcode, context) in [
        (CONTROL_CONTEXT_OPEN, 63),
        (CONTROL_CONTEXT_OPEN, 64),
        (CONTROL_CONTEXT_OPEN, u32::MAX),
        (CONTROL_CONTEXT_CLOSE, 0),
        (CONTROL_CONTEXT_CLOSE, 64),
    ] {
        assert_eq!(guest.control(opcode, context, 0, 0), STATUS_BAD_CONTEXT);
    }
    guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(0).status, STATUS_BAD_CONTEXT);
}

#[test]
fn close_aborts_parked_commands_and_late_answers_are_ignored() {
    covers!("coax.dev.20", "coax.dev.22", "coax.dev.35");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let first = guest.request();
    guest.submit(0, 0, OP_FILL, &[VA + PAGE_SIZE, 8, 7]);
    let second = guest.request();
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    // The driver had these messages under way: no mistake, and no effect on the next owner.
    guest.open(0);
    let run = [(VA, PAGES, 1, RW)];
    guest.complete(&first, &run);
    guest.respond(&second, RESPONSE_SUCCESS, &run);
    guest.ahead(0, first.generation.get(), &run);
    assert_eq!(guest.stats().guest_errors, 0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    assert_eq!(request.va, VA);
    // What names no opening that ever was is a mistake.
    guest.ahead(0, request.generation.get() + 1, &run);
    guest.ahead(0, 0, &run);
    assert_eq!(guest.stats().guest_errors, 2);
}

#[test]
fn old_tags_reach_nobody_after_the_number_is_opened_again() {
    covers!("coax.dev.19", "coax.dev.20", "coax.dev.29", "coax.dev.35");
    let mut guest = Guest::new();
    let mut old = Vec::new();
    // More than there are tags, none of them answered.
    for _ in 0..40 {
        guest.open(0);
        for n in 0..4 {
            guest.submit(0, 0, OP_FILL, &[VA + n * PAGE_SIZE, 8, 7]);
        }
        old.extend((0..4).map(|_| guest.request()));
        assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
        for _ in 0..4 {
            assert_eq!(guest.reply(0).status, STATUS_ABORTED);
        }
    }
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    for old in old {
        guest.complete(&old, &[(VA, PAGES, 1, RW)]);
        // Nor with the generation of the new owner, which is a mistake.
        let forged = DeviceRequest {
            generation: request.generation,
            ..old
        };
        guest.complete(&forged, &[(VA, PAGES, 1, RW)]);
    }
    assert!(guest.poll_reply().is_none());
    assert_eq!(guest.stats().guest_errors, 160);
    guest.complete(&request, &[(VA, PAGES + PAGE_SIZE, 1, RW)]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert_eq!(guest.read(PAGES, 1), [0]);
    assert_eq!(guest.read(PAGES + PAGE_SIZE, 1), [7]);
}

#[test]
fn commands_of_another_opening_are_refused() {
    covers!("coax.dev.20");
    let mut guest = Guest::new();
    guest.open(0);
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
    guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(0).status, STATUS_BAD_CONTEXT);
    let status = guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0);
    assert_eq!(status, STATUS_BAD_CONTEXT);
    guest.open(0);
    guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn requests_are_outstanding_until_answered_or_their_context_is_closed() {
    covers!("coax.dev.25");
    let mut guest = Guest::new();
    guest.open(0);
    guest.open(1);
    guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, 1, 0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    // The command is gone, the driver still has its request.
    assert_eq!(guest.control(CONTROL_RESET, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    guest.submit(0, 1, OP_FILL, &[VA, 8, 7]);
    guest.stats();
    assert!(guest.poll_request().is_none());
    guest.respond(&request, RESPONSE_SUCCESS, &[]);
    assert_eq!(guest.request().context, 1);
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 1, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.request().context, 0);
    assert_eq!(guest.stats().guest_errors, 0);
}

#[test]
fn close_ends_a_walk_of_a_circular_list() {
    covers!("coax.dev.22");
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES, &VA.to_le_bytes());
    guest.submit(0, 0, OP_LIST_SUM, &[VA, 0, 8, u64::MAX]);
    let request = guest.request();
    guest.complete(&request, &[(VA, PAGES, 1, RW)]);
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
}

#[test]
fn nothing_is_written_for_a_closed_context() {
    covers!("coax.dev.23");
    let mut guest = Guest::new();
    for _ in 0..20 {
        guest.open(0);
        guest.submit(0, 0, OP_FILL, &[VA, 16 << 20, u64::MAX]);
        for _ in 0..3 {
            let request = guest.request();
            guest.serve(&request, &linear);
        }
        assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
        guest.write(PAGES, &vec![0; 16 << 20]);
        while guest.poll_request().is_some() {}
        assert_eq!(guest.reply(0).status, STATUS_ABORTED);
        assert!(guest.read(PAGES, 16 << 20).iter().all(|&b| b == 0));
    }
}

#[test]
fn reset_aborts_all_commands_and_keeps_contexts_open() {
    covers!("coax.dev.24");
    let mut guest = Guest::new();
    for context in [0, 1] {
        guest.open(context);
        let reply = guest.run(context, OP_FILL, &[VA, 8, 1], &linear);
        assert_eq!(reply.status, STATUS_OK);
        guest.submit(0, context, OP_FILL, &[VA + PAGE_SIZE, 8, 7]);
        guest.request();
    }
    assert_eq!(guest.control(CONTROL_RESET, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    // The translations are gone as well.
    guest.submit(0, 1, OP_FILL, &[VA, 8, 1]);
    let request = guest.request();
    assert_eq!((request.context.get(), request.va.get()), (1, VA));
    guest.serve(&request, &linear);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn reset_aborts_commands_that_no_engine_has_taken() {
    covers!("coax.dev.24");
    let mut guest = Guest::new();
    guest.open(0);
    // A race between the engine and the reset: often enough that both orders occur.
    for _ in 0..200 {
        guest.submit(0, 0, OP_FILL, &[VA + PAGE_SIZE, 8, 7]);
        assert_eq!(guest.control(CONTROL_RESET, 0, 0, 0), STATUS_OK);
        assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    }
}

#[test]
fn close_aborts_commands_that_no_engine_has_taken() {
    covers!("coax.dev.22");
    let mut guest = Guest::new();
    for _ in 0..200 {
        guest.open(0);
        guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
        assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
        assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    }
    assert_eq!(guest.stats().guest_errors, 0);
}

#[test]
fn sixty_four_contexts_with_the_same_addresses_do_not_mix() {
    covers!("coax.dev.21");
    let mut guest = Guest::new();
    for context in 0..64 {
        guest.open(context);
        guest.submit(
            (context % 2) as u16,
            context,
            OP_FILL,
            &[VA, PAGE_SIZE, u64::from(context)],
        );
    }
    // Each context's page lies elsewhere.
    for _ in 0..64 {
        let request = guest.request();
        let place = PAGES + u64::from(request.context.get()) * PAGE_SIZE;
        guest.complete(&request, &[(VA, place, 1, RW)]);
    }
    for n in 0..64 {
        assert_eq!(guest.reply(n % 2).status, STATUS_OK);
    }
    for context in 0..64u64 {
        let bytes = guest.read(PAGES + context * PAGE_SIZE, 4096);
        assert!(bytes.chunks(8).all(|word| word == context.to_le_bytes()));
    }
}

#[test]
fn all_of_a_context_is_in_the_rings_when_its_closing_is_answered() {
    covers!("coax.dev.23");
    let mut guest = Guest::new();
    for _ in 0..100 {
        guest.open(0);
        for n in 0..6u64 {
            guest.submit((n % 2) as u16, 0, OP_FILL, &[VA + (n << 21), 8, 7]);
        }
        assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
        // Without waiting for any.
        for engine in [0, 1] {
            let queue = &mut guest.queues[usize::from(QUEUE_COMMAND + engine)];
            let answered = std::iter::from_fn(|| queue.poll()).count();
            assert_eq!(answered, 3);
        }
        while guest.poll_request().is_some() {}
        guest.stats();
        assert!(guest.poll_request().is_none());
    }
}

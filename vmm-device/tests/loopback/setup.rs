// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver finds and sets: features, configuration, the first control requests.

use coax_abi::wire::*;
use coax_specification::covers;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::VhostUserFrontend;
use vhost::VhostBackend;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::front_end::{Guest, CONFIG, PAGES, VA};
use crate::vring::SIZE;

const RW: u32 = ACCESS_READ | ACCESS_WRITE;
/// VirtIO 1.3 §6.
const VERSION_1: u64 = 1 << 32;
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const RING_PACKED: u64 = 1 << 34;
/// `VHOST_USER_F_PROTOCOL_FEATURES`, which the guest does not see.
const PROTOCOL: u64 = 1 << 30;

#[test]
fn features_are_offered_that_the_device_has_and_no_others() {
    covers!("coax.dev.2");
    let mut guest = Guest::cold(CONFIG);
    let offered = guest.front_end.as_mut().unwrap().get_features().unwrap();
    let own = 1 << F_ATOMIC | 1 << F_TRANSLATION_AHEAD | 1 << F_ACCESS_NOTIFICATION;
    let transport = VERSION_1 | INDIRECT_DESC | EVENT_IDX | PROTOCOL;
    assert_eq!(offered, transport | own);
    assert_eq!(offered & RING_PACKED, 0);
}

#[test]
fn what_belongs_to_a_feature_that_was_not_agreed_on_is_unknown() {
    covers!("coax.dev.3");
    let mut guest = Guest::cold(CONFIG);
    guest.negotiate_with(0);
    guest.start_queues();
    guest.offer_request_buffers(SIZE.into());
    guest.open(0);
    for (opcode, args) in [
        (OP_FETCH_ADD, &[VA, 8, 1, 1, 0][..]),
        (OP_COMPARE_SWAP, &[VA, 8, 0, 1]),
    ] {
        guest.submit(0, 0, opcode, args);
        assert_eq!(guest.reply(0).status, STATUS_UNKNOWN_OPCODE);
    }
    guest.ahead(0, guest.generation(0), &[(VA, PAGES, 1, RW)]);
    let message = TranslationMessage {
        kind: MSG_TRANSLATION_AHEAD.into(),
        generation: guest.generation(0).into(),
        ..TranslationMessage::new_zeroed()
    };
    guest.queues[usize::from(QUEUE_TRANSLATION)].add(message.as_bytes(), 8);
    let (_, bytes) = guest.expect(QUEUE_TRANSLATION);
    assert_eq!(bytes[..4], STATUS_UNKNOWN_OPCODE.to_le_bytes());
    let status = guest.control(CONTROL_CONTEXT_NOTIFY, 0, 1, 0);
    assert_eq!(status, STATUS_UNKNOWN_OPCODE);
    // It was not used either.
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.request().va, VA);
    // The next driver agrees.
    guest.reset();
    guest.start();
    guest.offer_request_buffers(SIZE.into());
    guest.open(0);
    guest.ahead(0, guest.generation(0), &[(VA, PAGES, 1, RW)]);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    guest.submit(0, 0, OP_FETCH_ADD, &[VA, 8, 1, 1, 0]);
    assert_eq!(guest.request().flags, RW | ACCESS_ATOMIC);
}

#[test]
fn configuration_space_cannot_be_written() {
    covers!("coax.dev.5");
    let mut guest = Guest::new();
    let before = guest.config_space();
    let front_end = guest.front_end.as_mut().unwrap();
    let ones = [0xff; size_of::<Config>()];
    // Whether it is told of that is the front end's affair.
    let _ = front_end.set_config(0, VhostUserConfigFlags::WRITABLE, &ones);
    assert_eq!(guest.config_space().as_bytes(), before.as_bytes());
    guest.open(0);
}

#[test]
fn control_requests_are_done_in_order() {
    covers!("coax.dev.14");
    let mut guest = Guest::new();
    for round in 0..20 {
        let number = round % 32;
        let started = [
            (CONTROL_CONTEXT_OPEN, number, 0, STATUS_OK),
            (CONTROL_CONTEXT_OPEN, number, 0, STATUS_BAD_CONTEXT),
            // Which closes it.
            (CONTROL_SET_DEVICE_MEMORY, 0, PAGES, STATUS_OK),
            (CONTROL_CONTEXT_OPEN, number, 0, STATUS_OK),
            (
                CONTROL_SET_PAGE_REQUEST_ALLOCATION,
                0,
                0,
                STATUS_BAD_ARGUMENT,
            ),
            (CONTROL_SET_DEVICE_MEMORY, 0, PAGES, STATUS_OK),
        ]
        .map(|(opcode, context, arg0, status)| {
            (guest.start_control(opcode, context, arg0, 0, 8), status)
        });
        for (head, status) in started {
            let (answered, bytes) = guest.expect(QUEUE_CONTROL);
            let reply = ControlReply::read_from_bytes(&bytes).unwrap();
            assert_eq!((answered, reply.status.get()), (head, status));
        }
    }
}

#[test]
fn device_memory_that_wraps_around_is_refused() {
    covers!("coax.dev.15");
    let mut guest = Guest::new();
    guest.open(0);
    let status = guest.control(CONTROL_SET_DEVICE_MEMORY, 0, u64::MAX, 2);
    assert_eq!(status, STATUS_BAD_ARGUMENT);
    guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

/// Starts fills of pages far apart, from the `first` on.
fn start_fills(guest: &mut Guest, first: u64, count: u64) {
    for n in first..first + count {
        guest.submit(0, 0, OP_FILL, &[VA + (n << 21), 8, 7]);
    }
}

#[test]
fn allocation_is_the_capacity_after_a_reset_and_what_is_refused_changes_nothing() {
    covers!("coax.dev.16", "coax.dev.65");
    let mut guest = Guest::new();
    let set = |guest: &mut Guest, requests| {
        guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, requests, 0)
    };
    guest.open(0);
    assert_eq!(set(&mut guest, 1), STATUS_OK);
    let beyond = u64::from(CONFIG.page_requests) + 1;
    assert_eq!(set(&mut guest, beyond), STATUS_BAD_ARGUMENT);
    start_fills(&mut guest, 0, 2);
    guest.request();
    guest.stats();
    assert!(guest.poll_request().is_none());
    guest.reset();
    guest.start();
    guest.offer_request_buffers(SIZE.into());
    guest.open(0);
    let half = u64::from(CONFIG.page_requests) / 2;
    start_fills(&mut guest, 0, half);
    for _ in 0..half {
        guest.request();
    }
}

#[test]
fn smaller_allocation_lets_none_go_until_there_are_fewer() {
    covers!("coax.dev.17", "coax.dev.30");
    let mut guest = Guest::new();
    guest.open(0);
    start_fills(&mut guest, 0, 6);
    let requests: Vec<_> = (0..6).map(|_| guest.request()).collect();
    guest.control(CONTROL_SET_PAGE_REQUEST_ALLOCATION, 0, 2, 0);
    start_fills(&mut guest, 6, 1);
    for (answered, request) in requests.iter().enumerate() {
        if answered <= 4 {
            guest.stats();
            assert!(guest.poll_request().is_none(), "{answered} answered");
        }
        guest.respond(request, RESPONSE_INVALID, &[]);
        assert_eq!(guest.reply(0).status, STATUS_FAULT);
    }
    assert_eq!(guest.request().va, VA + (6 << 21));
}

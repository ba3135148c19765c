// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages that are whole and say what they must not.

use coax_abi::wire::*;
use coax_specification::covers;
use zerocopy::{FromZeros, IntoBytes};

use crate::front_end::{linear, Guest, DEVICE_MEMORY, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;

/// Sends a message; returns the status that it is answered with.
fn status_of(guest: &mut Guest, queue: u16, message: &[u8], room: usize) -> u32 {
    guest.queues[usize::from(queue)].add(message, room as u32);
    let (_, bytes) = guest.expect(queue);
    assert_eq!(bytes.len(), room);
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

#[test]
fn reserved_and_unused_fields_have_to_be_zero() {
    covers!("coax.dev.9");
    let mut guest = Guest::new();
    guest.open(0);
    let open = ControlRequest {
        opcode: CONTROL_CONTEXT_OPEN.into(),
        context: 1.into(),
        ..ControlRequest::new_zeroed()
    };
    let one = 1.into();
    for bad in [
        ControlRequest {
            reserved: one,
            ..open
        },
        ControlRequest {
            generation: one,
            ..open
        },
        ControlRequest {
            arg0: 1.into(),
            ..open
        },
        ControlRequest {
            arg1: 1.into(),
            ..open
        },
    ] {
        let room = size_of::<ControlReply>();
        let status = status_of(&mut guest, QUEUE_CONTROL, bad.as_bytes(), room);
        assert_eq!(status, STATUS_BAD_MESSAGE);
    }
    // None of them opened it.
    guest.open(1);

    let fill = Command {
        opcode: OP_FILL.into(),
        generation: guest.generation(0).into(),
        ..Command::new_zeroed()
    };
    let mut unused = fill;
    unused.arg[3] = 1.into();
    let reserved = Command {
        reserved: one,
        ..fill
    };
    for bad in [unused, reserved] {
        let room = size_of::<CommandReply>();
        let status = status_of(&mut guest, QUEUE_COMMAND, bad.as_bytes(), room);
        assert_eq!(status, STATUS_BAD_MESSAGE);
    }

    let header = CopyHeader {
        count: one,
        reserved: 0.into(),
    };
    let entry = CopyEntry {
        src_gpa: PAGES.into(),
        dst_gpa: DEVICE_MEMORY.into(),
        npages: one,
        flags: 0.into(),
    };
    guest.write(PAGES, &[1]);
    for (header, entry) in [
        (
            CopyHeader {
                reserved: one,
                ..header
            },
            entry,
        ),
        (
            header,
            CopyEntry {
                flags: 2.into(),
                ..entry
            },
        ),
    ] {
        let message = [header.as_bytes(), entry.as_bytes()].concat();
        let room = size_of::<CopyReply>();
        assert_eq!(
            status_of(&mut guest, QUEUE_COPY, &message, room),
            STATUS_BAD_MESSAGE
        );
    }
    assert_eq!(guest.read(DEVICE_MEMORY, 1), [0]);

    let reply = guest.run(0, OP_FILL, &[VA, 8, 7], &linear);
    assert_eq!(reply.status, STATUS_OK);
    let invalidate = TranslationMessage {
        kind: MSG_INVALIDATE.into(),
        generation: guest.generation(0).into(),
        va: VA.into(),
        npages: 1.into(),
        ..TranslationMessage::new_zeroed()
    };
    for bad in [
        TranslationMessage {
            tag: one,
            ..invalidate
        },
        TranslationMessage {
            code: one,
            ..invalidate
        },
    ] {
        let room = size_of::<InvalidateReply>();
        let status = status_of(&mut guest, QUEUE_TRANSLATION, bad.as_bytes(), room);
        assert_eq!(status, STATUS_BAD_MESSAGE);
    }
    // The page is still translated.
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn answer_with_an_entry_that_makes_no_sense_answers_nothing() {
    covers!("coax.dev.42");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    let good = (VA, PAGES, 1, RW);
    let bad = [
        (VA, PAGES, 1, 0),
        (VA, PAGES, 1, RW | 1 << 2),
        (VA, PAGES, 1, ACCESS_READ | ACCESS_ATOMIC),
        (VA + 1, PAGES, 1, RW),
        (VA, PAGES + 8, 1, RW),
        (VA, PAGES, 0, RW),
        (VA, PAGES, MAX_RANGE_PAGES + 1, RW),
        (u64::MAX - 0xfff, PAGES, 2, RW),
        (VA, u64::MAX - 0xfff, 2, RW),
    ];
    for entry in bad {
        guest.complete(&request, &[good, entry]);
        guest.respond(&request, RESPONSE_SUCCESS, &[good, entry]);
        guest.ahead(0, guest.generation(0), &[good, entry]);
    }
    // A code that is none.
    guest.respond(&request, 2, &[good]);
    assert_eq!(guest.stats().guest_errors, 3 * bad.len() as u64 + 1);
    assert!(guest.poll_reply().is_none());
    guest.submit(0, 0, OP_FILL, &[VA, 8, 8]);
    let other = guest.request();
    guest.complete(&request, &[good]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    guest.complete(&other, &[]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn invalidation_from_within_a_page_is_refused() {
    covers!("coax.dev.48");
    let mut guest = Guest::new();
    guest.open(0);
    let fill = [VA, 8, 7];
    assert_eq!(guest.run(0, OP_FILL, &fill, &linear).status, STATUS_OK);
    assert_eq!(guest.invalidate(0, VA + 8, 1), STATUS_BAD_ARGUMENT);
    guest.submit(0, 0, OP_FILL, &fill);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert!(guest.poll_request().is_none());
}

#[test]
fn translations_ahead_are_used_and_invalidated_like_others() {
    covers!("coax.dev.44");
    let mut guest = Guest::new();
    guest.open(0);
    guest.ahead(0, guest.generation(0), &[(VA, PAGES, 2, RW)]);
    guest.submit(0, 0, OP_FILL, &[VA, 2 * PAGE_SIZE, 7]);
    let reply = guest.reply(0);
    assert_eq!(
        (reply.status.get(), reply.page_requests.get()),
        (STATUS_OK, 0)
    );
    assert_eq!(guest.read(PAGES + PAGE_SIZE, 1), [7]);
    assert_eq!(guest.invalidate(0, VA + PAGE_SIZE, 1), STATUS_OK);
    guest.submit(0, 0, OP_FILL, &[VA, 2 * PAGE_SIZE, 8]);
    assert_eq!(guest.request().va, VA + PAGE_SIZE);
}

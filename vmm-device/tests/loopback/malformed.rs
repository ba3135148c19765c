// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Chains and messages that make no sense: an error where there is room for one, and a device
//! that lives on.

use coax_abi::wire::*;
use zerocopy::IntoBytes;

use crate::front_end::{Guest, PAGES};
use crate::vring::{Desc, INDIRECT, NEXT, WRITE};

const ENGINE: usize = QUEUE_COMMAND as usize;

fn nop() -> Command {
    Command {
        opcode: OP_NOP.into(),
        context: 0.into(),
        generation: 1.into(),
        reserved: 0.into(),
        arg: [0u64; COMMAND_ARGS].map(Into::into),
    }
}

fn assert_alive(guest: &mut Guest) {
    guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

fn guest() -> Guest {
    let mut guest = Guest::new();
    guest.open(0);
    guest
}

#[test]
fn command_of_wrong_length_is_refused() {
    let mut guest = guest();
    let long = [nop().as_bytes(), &[0; 4096]].concat();
    for message in [&nop().as_bytes()[..111], &long[..113], &long] {
        guest.queues[ENGINE].add(message, size_of::<CommandReply>() as u32);
        assert_eq!(guest.reply(0).status, STATUS_BAD_MESSAGE);
    }
    assert_eq!(guest.stats().guest_errors, 3);
    assert_alive(&mut guest);
}

#[test]
fn unknown_opcodes_are_told_on_every_queue() {
    let mut guest = guest();
    guest.submit(0, 0, 0xdead, &[]);
    assert_eq!(guest.reply(0).status, STATUS_UNKNOWN_OPCODE);
    assert_eq!(guest.control(0xdead, 0, 0, 0), STATUS_UNKNOWN_OPCODE);
    let message = TranslationMessage {
        kind: 0xdead.into(),
        context: 0.into(),
        generation: 0.into(),
        tag: 0.into(),
        code: 0.into(),
        count: 0.into(),
        va: 0.into(),
        npages: 0.into(),
    };
    guest.queues[usize::from(QUEUE_TRANSLATION)].add(message.as_bytes(), 8);
    let (_, bytes) = guest.expect(QUEUE_TRANSLATION);
    assert_eq!(bytes[..4], STATUS_UNKNOWN_OPCODE.to_le_bytes());
    assert_eq!(guest.stats().guest_errors, 3);
}

#[test]
fn chain_without_room_for_the_reply_is_answered_with_length_0() {
    let mut guest = guest();
    for room in [0, 1, 63] {
        guest.queues[ENGINE].add(nop().as_bytes(), room);
        let (_, written) = guest.expect(QUEUE_COMMAND);
        assert!(written.is_empty());
    }
    guest.start_control(CONTROL_STATS, 0, 0, 0, 8);
    assert!(guest.expect(QUEUE_CONTROL).1.is_empty());
    assert_alive(&mut guest);
}

#[test]
fn chain_without_a_readable_part_is_refused() {
    let mut guest = guest();
    guest.queues[ENGINE].add(&[], 64);
    assert_eq!(guest.reply(0).status, STATUS_BAD_MESSAGE);
    assert_alive(&mut guest);
}

#[test]
fn command_and_reply_may_be_split_anywhere() {
    let mut guest = guest();
    let message = PAGES;
    guest.write(message, nop().as_bytes());
    let reply = PAGES + 0x1000;
    let parts = [
        (message, 1, 0),
        (message + 1, 0, 0),
        (message + 1, 108, 0),
        (message + 109, 3, 0),
        (reply, 7, WRITE),
        (reply + 7, 0, WRITE),
        (reply + 7, 50, WRITE),
        (reply + 57, 3, WRITE),
        (reply + 60, 100, WRITE),
    ];
    for (n, &(addr, len, flags)) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        let desc = Desc {
            addr,
            len,
            flags: flags | if last { 0 } else { NEXT },
            next: n as u16 + 1,
        };
        guest.queues[ENGINE].write_desc(n as u16, desc);
    }
    guest.write(reply, &[0xff; 64]);
    guest.queues[ENGINE].add_raw(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let (_, written) = guest.expect(QUEUE_COMMAND);
    assert_eq!(written.len(), 64);
    assert_eq!(guest.read(reply, 64), [0; 64]);
}

#[test]
fn indirect_chain_is_served() {
    let mut guest = guest();
    let (table, message, reply) = (PAGES, PAGES + 0x1000, PAGES + 0x2000);
    guest.write(message, nop().as_bytes());
    guest.write(reply, &[0xff; 64]);
    let descs = [
        Desc {
            addr: message,
            len: 112,
            flags: NEXT,
            next: 1,
        },
        Desc {
            addr: reply,
            len: 64,
            flags: WRITE,
            next: 0,
        },
    ];
    guest.write(table, &descs.map(Desc::bytes).concat());
    let queue = &mut guest.queues[ENGINE];
    queue.write_desc(
        9,
        Desc {
            addr: table,
            len: 32,
            flags: INDIRECT,
            next: 0,
        },
    );
    queue.add_raw(&[9]);
    assert_eq!(guest.expect(QUEUE_COMMAND).1.len(), 64);
    assert_eq!(guest.read(reply, 64), [0; 64]);
}

#[test]
fn senseless_descriptors_end_in_the_used_ring() {
    let mut guest = guest();
    let cases: [&[Desc]; 6] = [
        // A loop.
        &[Desc {
            addr: PAGES,
            len: 4,
            flags: NEXT,
            next: 0,
        }],
        // A next descriptor outside the table.
        &[Desc {
            addr: PAGES,
            len: 112,
            flags: NEXT,
            next: 9999,
        }],
        // No memory there.
        &[Desc {
            addr: 1 << 45,
            len: 112,
            flags: 0,
            next: 0,
        }],
        // Reply part where there is no memory.
        &[
            Desc {
                addr: PAGES,
                len: 112,
                flags: NEXT,
                next: 1,
            },
            Desc {
                addr: u64::MAX - 3,
                len: 64,
                flags: WRITE,
                next: 0,
            },
        ],
        // An indirect table of a length that is no multiple of a descriptor's.
        &[Desc {
            addr: PAGES,
            len: 17,
            flags: INDIRECT,
            next: 0,
        }],
        // Readable after writable.
        &[
            Desc {
                addr: PAGES,
                len: 64,
                flags: WRITE | NEXT,
                next: 1,
            },
            Desc {
                addr: PAGES + 0x1000,
                len: 112,
                flags: 0,
                next: 0,
            },
        ],
    ];
    for descs in cases {
        let queue = &mut guest.queues[ENGINE];
        let indices: Vec<u16> = (0..descs.len() as u16).collect();
        for (&index, &desc) in indices.iter().zip(descs) {
            queue.write_desc(index, desc);
        }
        queue.add_raw(&indices);
        guest.expect(QUEUE_COMMAND);
        assert_alive(&mut guest);
    }
}

#[test]
fn head_outside_the_table_is_ignored() {
    let mut guest = guest();
    guest.queues[ENGINE].offer(4000);
    guest.queues[ENGINE].kick();
    assert_alive(&mut guest);
    assert_ne!(guest.stats().guest_errors, 0);
}

#[test]
fn available_index_that_jumps_stops_the_queue_until_it_is_right_again() {
    let mut guest = guest();
    guest.queues[ENGINE].publish(5000);
    guest.queues[ENGINE].kick();
    // Other queues are not affected.
    guest.open(1);
    guest.queues[ENGINE].publish(0);
    assert_alive(&mut guest);
}

#[test]
fn flood_of_bad_commands_is_answered_one_by_one() {
    let mut guest = guest();
    for _ in 0..500 {
        guest.submit(0, 0, 0xffff, &[]);
        assert_eq!(guest.reply(0).status, STATUS_UNKNOWN_OPCODE);
    }
    let stats = guest.stats();
    assert_eq!(stats.guest_errors, 500);
    assert_eq!(stats.commands_failed, 500);
    assert_eq!(stats.commands, 500);
}

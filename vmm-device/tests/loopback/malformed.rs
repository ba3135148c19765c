// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Chains and messages that make no sense: an error where there is room for one, and a device
//! that lives on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use coax_abi::wire::*;
use coax_specification::covers;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use crate::front_end::{Guest, LIMIT, PAGES, VA};
use crate::vring::{Desc, INDIRECT, NEXT, SIZE, WRITE};

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
    covers!("coax.dev.8");
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
    covers!("coax.dev.10");
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
    covers!("coax.dev.11");
    let mut guest = guest();
    for room in [0, 1, 63] {
        guest.queues[ENGINE].add(nop().as_bytes(), room);
        let (_, written) = guest.expect(QUEUE_COMMAND);
        assert!(written.is_empty());
    }
    guest.start_control(CONTROL_STATS, 0, 0, 0, 7);
    assert!(guest.expect(QUEUE_CONTROL).1.is_empty());
    assert_alive(&mut guest);
}

#[test]
fn what_has_no_room_for_its_answer_is_not_done() {
    covers!("coax.dev.11");
    let mut guest = guest();
    let refused = |guest: &mut Guest, queue| assert!(guest.expect(queue).1.is_empty());
    let control = |guest: &mut Guest, opcode, context, arg0| {
        guest.start_control(opcode, context, arg0, 0, 7);
        refused(guest, QUEUE_CONTROL);
    };
    // A context that nobody knows of would be lost.
    control(&mut guest, CONTROL_CONTEXT_OPEN, 1, 0);
    guest.open(1);
    control(&mut guest, CONTROL_CONTEXT_CLOSE, 0, 0);
    control(&mut guest, CONTROL_SET_DEVICE_MEMORY, 0, PAGES);
    assert_alive(&mut guest);

    guest.ahead(0, guest.generation(0), &[(VA, PAGES, 1, 3)]);
    let fill = Command {
        opcode: OP_FILL.into(),
        generation: guest.generation(0).into(),
        arg: [VA, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0].map(Into::into),
        ..nop()
    };
    guest.queues[ENGINE].add(fill.as_bytes(), 63);
    refused(&mut guest, QUEUE_COMMAND);
    assert_eq!(guest.read(PAGES, 8), [0; 8]);

    guest.write(PAGES + 0x1000, &[5; 8]);
    let header = CopyHeader {
        count: 1.into(),
        reserved: 0.into(),
    };
    let entry = CopyEntry {
        src_gpa: (PAGES + 0x1000).into(),
        dst_gpa: PAGES.into(),
        npages: 1.into(),
        flags: 0.into(),
    };
    let copy = [header.as_bytes(), entry.as_bytes()].concat();
    guest.queues[usize::from(QUEUE_COPY)].add(&copy, 7);
    refused(&mut guest, QUEUE_COPY);
    assert_eq!(guest.read(PAGES, 8), [0; 8]);

    let invalidate = TranslationMessage {
        kind: MSG_INVALIDATE.into(),
        context: 0.into(),
        generation: guest.generation(0).into(),
        tag: 0.into(),
        code: 0.into(),
        count: 0.into(),
        va: VA.into(),
        npages: 1.into(),
    };
    guest.queues[usize::from(QUEUE_TRANSLATION)].add(invalidate.as_bytes(), 7);
    refused(&mut guest, QUEUE_TRANSLATION);
    // Its translation is there still.
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn room_that_is_no_memory_is_none() {
    covers!("coax.dev.11");
    let mut guest = guest();
    let open = ControlRequest {
        opcode: CONTROL_CONTEXT_OPEN.into(),
        context: 1.into(),
        generation: 0.into(),
        reserved: 0.into(),
        arg0: 0.into(),
        arg1: 0.into(),
    };
    guest.write(PAGES, open.as_bytes());
    let request = Desc {
        addr: PAGES,
        len: size_of::<ControlRequest>() as u32,
        flags: NEXT,
        next: 1,
    };
    let queue = &mut guest.queues[usize::from(QUEUE_CONTROL)];
    queue.write_desc(0, request);
    queue.write_desc(
        1,
        Desc {
            addr: 1 << 45,
            len: 8,
            flags: WRITE,
            next: 0,
        },
    );
    queue.add_raw(&[0, 1]);
    assert!(guest.expect(QUEUE_CONTROL).1.is_empty());
    guest.open(1);
}

#[test]
fn driver_that_knows_fewer_counters_gets_those() {
    covers!("coax.dev.18");
    let mut guest = guest();
    let all = guest.control_with(CONTROL_STATS, 0, 0, 0, 8 + 19 * 8).1;
    assert_eq!(all.len(), 19 * 8);
    for (room, counters) in [(8, 0), (16, 1), (8 + 7 * 8 + 3, 7)] {
        let (status, some) = guest.control_with(CONTROL_STATS, 0, 0, 0, room);
        assert_eq!(status, STATUS_OK);
        assert_eq!(some, all[..counters * 8]);
    }
}

#[test]
fn chain_without_a_readable_part_is_refused() {
    covers!("coax.dev.8");
    let mut guest = guest();
    guest.queues[ENGINE].add(&[], 64);
    assert_eq!(guest.reply(0).status, STATUS_BAD_MESSAGE);
    assert_alive(&mut guest);
}

#[test]
fn command_and_reply_may_be_split_anywhere() {
    covers!("coax.dev.7");
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
    covers!("coax.dev.7");
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
    covers!("coax.dev.6", "coax.dev.8");
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
    covers!("coax.dev.13");
    let mut guest = guest();
    guest.queues[ENGINE].offer(4000);
    guest.queues[ENGINE].kick();
    assert_alive(&mut guest);
    assert_ne!(guest.stats().guest_errors, 0);
}

#[test]
fn available_index_that_jumps_stops_the_queue_until_it_is_right_again() {
    covers!("coax.dev.13");
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
    covers!("coax.dev.6", "coax.dev.12");
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

#[test]
fn entry_of_the_ring_that_cannot_be_read_is_told_and_read_later() {
    covers!("coax.dev.13");
    let mut guest = guest();
    let entries = guest.queues[ENGINE].avail_entries();
    guest.send_memory_table_without(entries..entries + PAGE_SIZE);
    let errors = guest.stats().guest_errors.get();
    let head = guest.submit(0, 0, OP_NOP, &[]);
    // Looked at when the bell rings, and not over and over again.
    while guest.stats().guest_errors == errors {}
    for _ in 0..100 {
        assert!(guest.stats().guest_errors.get() <= errors + 2);
    }
    guest.send_memory_table();
    assert_eq!(guest.reply_with_head(0).0, head);
}

#[test]
fn flood_of_bad_commands_delays_neither_others_nor_a_close() {
    covers!("coax.dev.12");
    let mut guest = guest();
    guest.ahead(0, guest.generation(0), &[(VA, PAGES, 512, 3)]);
    // A driver that never lets the queue become empty: all of its entries name the same chain.
    let bad = Command {
        opcode: 0xdead.into(),
        ..nop()
    };
    let queue = &mut guest.queues[ENGINE];
    let place = queue.buffer(200);
    queue.write_desc(
        200,
        Desc {
            addr: place,
            len: size_of::<Command>() as u32,
            flags: 0,
            next: 0,
        },
    );
    guest.write(place, bad.as_bytes());
    guest.submit(0, 0, OP_FILL, &[VA, 1 << 20, u64::MAX]);
    let queue = &guest.queues[ENGINE];
    let (avail, entries, used) = (queue.avail(), queue.avail_entries(), queue.used());
    for slot in 1..u64::from(SIZE) {
        guest.write(entries + slot * 2, &200u16.to_le_bytes());
    }
    let stop = AtomicBool::new(false);
    let memory = guest.mem.clone();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let used: u16 = memory
                    .load(GuestAddress(used + 2), Ordering::Acquire)
                    .unwrap();
                if used > 0 {
                    memory.write_obj(200u16, GuestAddress(entries)).unwrap();
                }
                memory
                    .store(
                        used.wrapping_add(SIZE - 1),
                        GuestAddress(avail + 2),
                        Ordering::Release,
                    )
                    .unwrap();
            }
        });
        guest.queues[ENGINE].kick();
        let deadline = Instant::now() + LIMIT;
        while guest.read(PAGES + (1 << 20) - 1, 1) != [0xff] {
            assert!(Instant::now() < deadline, "the command gets no step");
        }
        let status = guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0);
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        assert_eq!(status, STATUS_OK);
    });
}

#[test]
fn command_gets_its_turn_while_bad_ones_are_taken() {
    covers!("coax.dev.12");
    let mut guest = guest();
    guest.ahead(0, guest.generation(0), &[(VA, PAGES, 512, 3)]);
    // All of them are there when the queue is started.
    let base = guest.stop_queue(ENGINE);
    let good = guest.submit(0, 0, OP_FILL, &[VA, 64, 7]);
    for _ in 0..120 {
        guest.submit(0, 0, 0xffff, &[]);
    }
    guest.resume_queue(ENGINE, base);
    let place = (0..=120).position(|_| guest.reply_with_head(0).0 == good);
    assert!(place.is_some_and(|place| place <= 64), "{place:?}");
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Start, restart, disconnection and the end of the program.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use coax_abi::wire::*;
use coax_specification::covers;
use vhost::vhost_user::VhostUserFrontend;
use vhost_device_coax::server;
use vhost_device_coax::socket::{Error, Socket};
use zerocopy::IntoBytes;

use crate::front_end::{linear, Guest, CONFIG, DEVICE_MEMORY, ENGINES, LIMIT, PAGES, VA};
use crate::vring::{Vring, SIZE};

/// Brings a device into a state with a parked, an endless and an unread command.
fn busy() -> Guest {
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES, &VA.to_le_bytes());
    guest.submit(0, 0, OP_LIST_SUM, &[VA, 0, 8, u64::MAX]);
    let request = guest.request();
    guest.serve(&request, &linear);
    guest.submit(1, 0, OP_FILL, &[VA + (1 << 21), 8, 7]);
    guest.request();
    guest
}

fn assert_fresh(guest: &mut Guest) {
    guest.offer_request_buffers(SIZE.into());
    guest.open(0);
    let reply = guest.run(0, OP_FILL, &[VA, 8, 7], &linear);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.page_requests, 0);
}

#[test]
fn driver_that_is_loaded_again_finds_a_device_at_power_on() {
    covers!("coax.dev.19", "coax.dev.65");
    let mut guest = busy();
    for _ in 0..3 {
        guest.reset();
        guest.start();
        assert_fresh(&mut guest);
    }
}

#[test]
fn device_is_at_power_on_after_queues_were_stopped_and_then_reset() {
    covers!("coax.dev.65");
    let mut guest = busy();
    guest.stop_queues();
    guest.front_end.as_mut().unwrap().reset_device().unwrap();
    guest.start();
    assert_fresh(&mut guest);
}

#[test]
fn commands_go_on_after_a_pause() {
    let mut guest = Guest::new();
    guest.open(0);
    // A list of two million nodes: one node that is its own successor, counted.
    let nodes = 2_000_000;
    guest.write(PAGES, &VA.to_le_bytes());
    guest.submit(0, 0, OP_LIST_SUM, &[VA, 0, 8, nodes]);
    let request = guest.request();
    guest.serve(&request, &linear);
    guest.submit(1, 0, OP_FILL, &[VA + (1 << 21), 8, 7]);
    let parked = guest.request();
    for _ in 0..20 {
        let bases = guest.stop_queues();
        guest.resume_queues(&bases);
    }
    guest.serve(&parked, &linear);
    assert_eq!(guest.reply(1).status, STATUS_OK);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_BAD_DATA);
    assert_eq!(reply.result[8..16], nodes.to_le_bytes());
    // Nothing was forgotten: the contexts are open, translations are known.
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn queues_are_served_after_any_number_of_pauses_with_new_kicks() {
    let mut guest = Guest::new();
    guest.open(0);
    // Engines that are always in the middle of something, and a parked command to resume.
    guest.write(PAGES, &VA.to_le_bytes());
    guest.submit(0, 0, OP_LIST_SUM, &[VA, 0, 8, u64::MAX]);
    let request = guest.request();
    guest.serve(&request, &linear);
    for _ in 0..200 {
        guest.submit(0, 0, OP_FILL, &[VA + (1 << 21), 8, 7]);
        let bases = guest.stop_queues();
        guest.queues.iter_mut().for_each(Vring::renew_kick);
        guest.resume_queues(&bases);
        guest.submit(1, 0, OP_NOP, &[]);
        assert_eq!(guest.reply(1).status, STATUS_OK);
        while let Some(request) = guest.poll_request() {
            guest.serve(&request, &linear);
        }
        while guest.poll_reply().is_some() {}
    }
    // Every queue is served: control, command, translation and request, copy.
    guest.open(1);
    guest.submit(1, 1, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.invalidate(1, VA, 1), STATUS_OK);
    let header = CopyHeader {
        count: 0.into(),
        reserved: 0.into(),
    };
    guest.queues[usize::from(QUEUE_COPY)].add(header.as_bytes(), 8);
    guest.expect(QUEUE_COPY);
    for engine in 0..ENGINES {
        let nop = guest.submit(engine, 0, OP_NOP, &[]);
        while guest.reply_with_head(engine).0 != nop {}
    }
    guest.stop_server().unwrap();
}

#[test]
fn no_memory_is_written_while_the_vm_is_paused() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 16 << 20, u64::MAX]);
    for _ in 0..4 {
        let request = guest.request();
        guest.serve(&request, &linear);
    }
    let bases = guest.stop_queues();
    let before = guest.read(PAGES, 16 << 20);
    // Time for a step that would not have waited: a thousand page comparisons.
    for _ in 0..4 {
        assert!(guest.read(PAGES, 16 << 20) == before);
    }
    guest.resume_queues(&bases);
    assert_eq!(guest.serve_until_reply(&linear).status, STATUS_OK);
}

#[test]
fn no_memory_is_written_through_a_queue_that_was_disabled() {
    let mut guest = Guest::new();
    guest.open(0);
    let bytes = 4 << 20;
    let queue = usize::from(QUEUE_COMMAND);
    for round in 1..=40u64 {
        guest.submit(0, 0, OP_FILL, &[VA, bytes, round]);
        if round == 1 {
            for _ in 0..2 {
                let request = guest.request();
                guest.serve(&request, &linear);
            }
        }
        // It has taken its first step.
        let begin = Instant::now();
        while guest.read(PAGES, 8) != round.to_le_bytes() {
            assert!(begin.elapsed() < LIMIT, "round {round}");
        }
        guest.enable_queue(queue, false);
        let before = guest.read(PAGES, bytes as usize);
        for _ in 0..4 {
            assert!(guest.read(PAGES, bytes as usize) == before, "{round}");
        }
        guest.enable_queue(queue, true);
        assert_eq!(guest.reply(0).status, STATUS_OK);
    }
}

#[test]
fn new_memory_table_is_used_at_once() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    guest.send_memory_table();
    guest.serve(&request, &linear);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn disconnection_in_the_middle_of_commands_ends_the_server() {
    let guest = busy();
    let socket = guest.directory.path().join("socket");
    let _keep = guest.mem.clone();
    assert!(socket.exists());
    guest.disconnect().unwrap();
}

#[test]
fn server_removes_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Socket::listen(&path).unwrap();
    let (stop, other) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || server::serve(CONFIG, listener, None, other));
    drop(UnixStream::connect(&path).unwrap());
    thread.join().unwrap().unwrap();
    assert!(!path.exists());
    drop(stop);
}

#[test]
fn stop_ends_the_server_before_and_after_the_connection() {
    busy().stop_server().unwrap();
    Guest::cold(CONFIG).stop_server().unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Socket::listen(&path).unwrap();
    let (mut stop, other) = UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut stop, &[0]).unwrap();
    server::serve(CONFIG, listener, None, other).unwrap();
    assert!(!path.exists());
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "data").unwrap();
    assert!(matches!(Socket::listen(&file), Err(Error::NotASocket(_))));
    assert_eq!(std::fs::read(&file).unwrap(), b"data");

    let used = directory.path().join("used");
    let owner = UnixListener::bind(&used).unwrap();
    assert!(matches!(Socket::listen(&used), Err(Error::InUse(_))));
    drop(owner);
    assert!(Socket::listen(&used).is_ok());

    let nowhere = directory.path().join("none").join("socket");
    assert!(matches!(Socket::listen(&nowhere), Err(Error::Lock { .. })));
}

/// A device with a command of the second engine that waits, and its queue stopped; tells where.
fn with_stopped_queue() -> (Guest, usize, u16) {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(1, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(1).status, STATUS_OK);
    guest.submit(1, 0, OP_FILL, &[VA, 8, 7]);
    guest.request();
    let queue = usize::from(QUEUE_COMMAND + 1);
    let base = guest.stop_queue(queue);
    assert_eq!(base, 2);
    // The command ends, and its answer is owed.
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
    assert!(guest.queues[queue].poll().is_none());
    (guest, queue, base)
}

#[test]
fn answers_that_are_owed_are_given_when_the_queue_goes_on() {
    let (mut guest, queue, base) = with_stopped_queue();
    guest.resume_queue(queue, base);
    assert_eq!(guest.reply(1).status, STATUS_ABORTED);
}

#[test]
fn answers_of_before_do_not_reach_a_queue_that_was_made_anew() {
    let (mut guest, queue, _) = with_stopped_queue();
    guest.renew_queue(queue);
    guest.open(0);
    let head = guest.submit(1, 0, OP_NOP, &[]);
    // The first that the new driver sees, and the only one.
    let (answered, reply) = guest.reply_with_head(1);
    assert_eq!((answered, reply.status.get()), (head, STATUS_OK));
    guest.stats();
    assert!(guest.queues[queue].poll().is_none());
}

#[test]
fn answers_that_are_owed_do_not_survive_a_reset() {
    covers!("coax.dev.65");
    let (mut guest, queue, base) = with_stopped_queue();
    guest.front_end.as_mut().unwrap().reset_device().unwrap();
    guest.negotiate();
    // In the same place, as a driver never does.
    for n in 0..=queue {
        let base = if n == queue {
            base
        } else {
            guest.stop_queue(n)
        };
        guest.resume_queue(n, base);
    }
    guest.open(0);
    let head = guest.submit(1, 0, OP_NOP, &[]);
    let (answered, reply) = guest.reply_with_head(1);
    assert_eq!((answered, reply.status.get()), (head, STATUS_OK));
    assert!(guest.queues[queue].poll().is_none());
}

#[test]
fn a_driver_that_comes_without_a_reset_finds_no_context_open() {
    covers!("coax.dev.15");
    let mut guest = Guest::new();
    for context in 0..2 {
        guest.open(context);
    }
    // One that waits, of the driver that leaves without a word.
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    guest.request();
    guest.stop_queues();
    guest.start_queues();
    let reply = guest.control(CONTROL_SET_DEVICE_MEMORY, 0, DEVICE_MEMORY, 16 << 20);
    assert_eq!(reply, STATUS_OK);
    for context in 0..2 {
        guest.open(context);
        guest.submit(0, context, OP_NOP, &[]);
        assert_eq!(guest.reply(0).status, STATUS_OK);
    }
}

#[test]
fn commands_of_before_do_not_go_on_in_queues_that_were_made_anew() {
    let mut guest = Guest::new();
    guest.open(0);
    // One that waits, one that runs, one that nobody has looked at.
    guest.submit(0, 0, OP_FILL, &[VA + (1 << 21), 8, 7]);
    let old = guest.request();
    guest.write(PAGES, &VA.to_le_bytes());
    guest.submit(0, 0, OP_LIST_SUM, &[VA, 0, 8, u64::MAX]);
    let request = guest.request();
    guest.serve(&request, &linear);
    guest.stop_queues();
    guest.start_queues();
    guest.offer_request_buffers(SIZE.into());
    let first = guest.submit(0, 0, OP_NOP, &[]);
    let (head, reply) = guest.reply_with_head(0);
    assert_eq!((head, reply.status.get()), (first, STATUS_OK));
    guest.complete(&old, &[(old.va.get(), PAGES + (1 << 21), 1, 3)]);
    let last = guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply_with_head(0).0, last);
    assert!(guest.poll_reply().is_none());
    assert_eq!(guest.read(PAGES + (1 << 21), 1), [0]);
}

#[test]
fn nothing_that_was_under_way_happens_after_a_reset() {
    covers!("coax.dev.65");
    let mut guest = Guest::new();
    for _ in 0..100 {
        for context in 0..4 {
            guest.start_control(CONTROL_CONTEXT_OPEN, context, 0, 0, 8);
        }
        guest.reset();
        guest.start();
        for context in 0..4 {
            guest.open(context);
        }
        guest.reset();
        guest.start();
    }
}

#[test]
fn memory_that_was_taken_away_is_not_written_any_more() {
    let mut guest = Guest::new();
    guest.open(0);
    let device_memory = |va| {
        let (gpa, access) = linear(va)?;
        Some((gpa - PAGES + DEVICE_MEMORY, access))
    };
    for round in 1..20u64 {
        guest.submit(0, 0, OP_FILL, &[VA, 8 << 20, round]);
        while guest.stats().engine_ns == 0 {}
        while let Some(request) = guest.poll_request() {
            guest.serve(&request, &device_memory);
        }
        guest.send_memory_table_without(DEVICE_MEMORY..DEVICE_MEMORY + (16 << 20));
        let before = guest.read(DEVICE_MEMORY, 8 << 20);
        for _ in 0..4 {
            assert!(guest.read(DEVICE_MEMORY, 8 << 20) == before);
        }
        guest.send_memory_table();
        let reply = guest.serve_until_reply(&device_memory);
        let status = reply.status.get();
        assert!([STATUS_OK, STATUS_BAD_GPA].contains(&status), "{status}");
    }
}

#[test]
fn device_memory_keeps_its_contents_whatever_ends() {
    covers!("coax.dev.64");
    let mut guest = Guest::new();
    let contents: Vec<u8> = (0..16u32 << 20).map(|n| (n % 239) as u8).collect();
    guest.write(DEVICE_MEMORY, &contents);
    guest.control(CONTROL_SET_DEVICE_MEMORY, 0, DEVICE_MEMORY, 16 << 20);
    guest.open(0);
    assert_eq!(guest.control(CONTROL_RESET, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
    guest.reset();
    guest.start();
    guest.control(CONTROL_SET_DEVICE_MEMORY, 0, DEVICE_MEMORY, 16 << 20);
    guest.open(0);
    assert!(guest.read(DEVICE_MEMORY, contents.len()) == contents);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The connection is what the front end knows the device by: when it ends, nothing is written
//! any more, neither by engines nor by the copy queue.

use std::io::{Read as _, Write as _};

use coax_abi::wire::*;
use coax_specification::covers;
use vhost_device_coax::server::Error;
use zerocopy::IntoBytes;

use crate::front_end::{linear, Guest, ENGINES, LIMIT, PAGES, VA};

/// Bytes that each engine writes again and again: four steps.
const BYTES: u64 = 1 << 20;
/// Where the copy queue writes: behind what the engines do.
const COPIES: u64 = PAGES + ENGINES as u64 * BYTES;
/// Pages of one message of the copy queue.
const COPY_PAGES: u32 = 512;
/// Commands of each engine and messages to the copy queue; they take much longer than the end.
const COMMANDS: u64 = 120;
/// Times that each end is tried: the window between two steps is short.
const ROUNDS: usize = 8;

/// A guest whose device writes memory without a pause.
fn writing() -> Guest {
    let mut guest = Guest::new();
    guest.open(0);
    for engine in 0..ENGINES {
        let va = VA + u64::from(engine) * BYTES;
        let reply = guest.run(0, OP_FILL, &[va, BYTES, 0], &linear);
        assert_eq!(reply.status, STATUS_OK);
    }
    for value in 1..=COMMANDS {
        for engine in 0..ENGINES {
            let va = VA + u64::from(engine) * BYTES;
            guest.submit(engine, 0, OP_FILL, &[va, BYTES, value]);
        }
        let header = CopyHeader {
            count: 1.into(),
            reserved: 0.into(),
        };
        let entry = CopyEntry {
            src_gpa: PAGES.into(),
            dst_gpa: COPIES.into(),
            npages: COPY_PAGES.into(),
            flags: 0.into(),
        };
        let message = [header.as_bytes(), entry.as_bytes()].concat();
        guest.queues[usize::from(QUEUE_COPY)].add(&message, 8);
    }
    guest
}

/// All that the device was told to write.
fn written(guest: &Guest) -> Vec<u8> {
    let len = COPIES - PAGES + u64::from(COPY_PAGES) * PAGE_SIZE;
    guest.read(PAGES, len as usize)
}

/// Has the server end, and checks that memory is at rest when the connection ends.
fn nothing_is_written_after(end: impl Fn(&mut Guest), expected: fn(Result<(), Error>) -> bool) {
    for round in 0..ROUNDS {
        let mut guest = writing();
        end(&mut guest);
        let mut connection = guest.connection.try_clone().unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        // Whatever is answered before comes first.
        while connection.read(&mut [0; 64]).unwrap() > 0 {}
        let before = written(&guest);
        assert!(expected(guest.wait_for_server()));
        assert!(written(&guest) == before, "written after, round {round}");
    }
}

#[test]
fn nothing_is_written_after_the_connection_ends_on_a_signal() {
    covers!("coax.dev.66");
    nothing_is_written_after(Guest::ask_to_stop, |result| result.is_ok());
}

#[test]
fn nothing_is_written_after_the_connection_ends_on_a_bad_message() {
    covers!("coax.dev.66");
    let bad = |guest: &mut Guest| guest.connection.write_all(&[0xff; 12]).unwrap();
    nothing_is_written_after(bad, |result| matches!(result, Err(Error::Daemon(_))));
}

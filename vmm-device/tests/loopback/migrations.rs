// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that move under running commands, by the protocol that drivers follow: invalidate,
//! copy, answer with the new place.

use std::cell::RefCell;
use std::collections::HashMap;

use coax_abi::wire::*;
use coax_specification::covers;
use sha2::{Digest, Sha256};
use zerocopy::{FromBytes, IntoBytes};

use crate::front_end::{Guest, DEVICE_MEMORY, PAGES, VA};

/// Pages of the buffer that is worked on.
const BUFFER: u64 = 256;
/// Places for pages, more than pages: half in system memory, half in device memory.
const PLACES: u64 = 1024;

/// Where each page of the buffer lies, and which places are free.
struct PageTable {
    place_of: HashMap<u64, u64>,
    free: Vec<u64>,
    random: u64,
}

impl PageTable {
    fn new() -> Self {
        let places = (0..PLACES).map(|n| match n % 2 {
            0 => PAGES + n * PAGE_SIZE,
            _ => DEVICE_MEMORY + n * PAGE_SIZE,
        });
        let mut free: Vec<u64> = places.collect();
        let place_of = (0..2 * BUFFER)
            .map(|page| (VA + page * PAGE_SIZE, free.remove(0)))
            .collect();
        Self {
            place_of,
            free,
            random: 1,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % below
    }

    /// Moves a page to another place.
    fn migrate(&mut self, guest: &mut Guest) {
        let va = VA + self.random(2 * BUFFER) * PAGE_SIZE;
        assert_eq!(guest.invalidate(0, va, 1), STATUS_OK);
        let chosen = self.random(self.free.len() as u64) as usize;
        let target = self.free.remove(chosen);
        let source = self.place_of.insert(va, target).unwrap();
        copy_page(guest, source, target);
        // What still used the old place would show.
        guest.write(source, &[0xee; PAGE_SIZE as usize]);
        self.free.push(source);
    }
}

fn copy_page(guest: &mut Guest, src: u64, dst: u64) {
    let header = CopyHeader {
        count: 1.into(),
        reserved: 0.into(),
    };
    let entry = CopyEntry {
        src_gpa: src.into(),
        dst_gpa: dst.into(),
        npages: 1.into(),
        flags: 0.into(),
    };
    let message = [header.as_bytes(), entry.as_bytes()].concat();
    guest.queues[usize::from(QUEUE_COPY)].add(&message, 8);
    let (_, bytes) = guest.expect(QUEUE_COPY);
    let reply = CopyReply::read_from_bytes(&bytes).unwrap();
    assert_eq!(reply.status, STATUS_OK);
}

/// Runs a command while pages move, and returns its reply.
fn run(guest: &mut Guest, table: &RefCell<PageTable>, opcode: u32, args: &[u64]) -> CommandReply {
    guest.submit(0, 0, opcode, args);
    loop {
        if let Some(reply) = guest.poll_reply() {
            return reply;
        }
        table.borrow_mut().migrate(guest);
        while let Some(request) = guest.poll_request() {
            guest.serve(&request, &|va| {
                let place = table.borrow().place_of.get(&va).copied();
                place.map(|gpa| (gpa, ACCESS_READ | ACCESS_WRITE))
            });
        }
    }
}

fn contents(guest: &Guest, table: &PageTable, first: u64) -> Vec<u8> {
    (first..first + BUFFER)
        .flat_map(|page| guest.read(table.place_of[&(VA + page * PAGE_SIZE)], 4096))
        .collect()
}

#[test]
fn data_is_right_while_pages_move_under_commands() {
    covers!("coax.dev.26", "coax.dev.46", "coax.dev.53");
    let mut guest = Guest::new();
    guest.open(0);
    let table = RefCell::new(PageTable::new());
    let len = BUFFER * PAGE_SIZE;
    let (source, target) = (VA, VA + len);
    for round in 1..30u64 {
        let pattern = round.wrapping_mul(0x0123_4567_89ab_cdef);
        let fill = [source + round, len - round, pattern];
        let reply = run(&mut guest, &table, OP_FILL, &fill);
        assert_eq!(reply.status, STATUS_OK);
        let reply = run(&mut guest, &table, OP_COPY, &[target, source, len]);
        assert_eq!(reply.status, STATUS_OK);
        let expected = contents(&guest, &table.borrow(), 0);
        let filled = pattern.to_le_bytes();
        assert!(expected[round as usize..]
            .iter()
            .enumerate()
            .all(|(n, &byte)| byte == filled[n % 8]));
        assert!(contents(&guest, &table.borrow(), BUFFER) == expected);
        let reply = run(&mut guest, &table, OP_SHA256, &[target, len]);
        assert_eq!(reply.result[..], Sha256::digest(&expected)[..]);
    }
    let stats = guest.stats();
    assert_ne!(stats.invalidations, 0);
    assert_eq!(stats.guest_errors, 0);
}

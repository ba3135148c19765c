// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands over memory whose pages the driver translates on request.

use coax_abi::wire::*;
use coax_specification::covers;

use crate::front_end::{linear, Guest, DEVICE_MEMORY, PAGES, VA};

pub fn result_pair(reply: &CommandReply) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(reply.result[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

/// Bytes that repeat with a period that is no power of two.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn nop_is_answered_without_requests() {
    covers!("coax.dev.55");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert!(guest.poll_request().is_none());
}

#[test]
fn both_engines_answer_on_their_own_queues() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_NOP, &[]);
    guest.submit(1, 0, OP_NOP, &[]);
    assert_eq!(guest.reply(1).status, STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn copy_moves_unaligned_bytes_and_nothing_else() {
    covers!("coax.dev.55", "coax.dev.59");
    let mut guest = Guest::new();
    guest.open(0);
    // Over two 2 MiB borders, at offsets that differ in their page.
    let (src, dst, len) = (0x1003, 0x80_0f01, 5_000_001);
    let bytes = pattern(len);
    guest.write(PAGES + src, &bytes);
    guest.write(PAGES + dst - 1, &[0xaa]);
    guest.write(PAGES + dst + len as u64, &[0xbb]);
    let reply = guest.run(0, OP_COPY, &[VA + dst, VA + src, len as u64], &linear);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.bytes_done, len as u64);
    assert!(guest.read(PAGES + dst, len) == bytes);
    assert_eq!(guest.read(PAGES + dst - 1, 1), [0xaa]);
    assert_eq!(guest.read(PAGES + dst + len as u64, 1), [0xbb]);
}

#[test]
fn copy_of_nothing_succeeds_at_any_address() {
    covers!("coax.dev.56");
    let mut guest = Guest::new();
    guest.open(0);
    let reply = guest.run(0, OP_COPY, &[0, u64::MAX, 0], &|_| None);
    assert_eq!(reply.status, STATUS_OK);
}

#[test]
fn copy_of_rows_moves_a_block_and_leaves_what_lies_between_its_rows() {
    covers!("coax.dev.55", "coax.dev.59");
    let mut guest = Guest::new();
    guest.open(0);
    // 300 rows of 1001 bytes, out of rows of 9000 and into rows of 1003.
    let (src, dst, row, rows) = (0x1003, 0x80_0f01, 1001u64, 300u64);
    let strides = (1003u64, 9000u64);
    let source = pattern(((rows - 1) * strides.1 + row) as usize);
    let extent = ((rows - 1) * strides.0 + row + 1) as usize;
    guest.write(PAGES + src, &source);
    let mut expected = vec![0xaa; extent];
    guest.write(PAGES + dst, &expected);
    let args = [VA + dst, VA + src, row, rows, strides.0, strides.1];
    let reply = guest.run(0, OP_COPY_ROWS, &args, &linear);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.bytes_done, row * rows);
    for n in 0..rows {
        let from = (n * strides.1) as usize;
        let to = (n * strides.0) as usize;
        expected[to..to + row as usize].copy_from_slice(&source[from..from + row as usize]);
    }
    assert!(guest.read(PAGES + dst, extent) == expected);
}

#[test]
fn copy_of_rows_without_bytes_touches_nothing() {
    covers!("coax.dev.56");
    let mut guest = Guest::new();
    guest.open(0);
    for (row, rows) in [(0, 5), (5, 0), (0, 0)] {
        let args = [0, u64::MAX, row, rows, 0, 0];
        let reply = guest.run(0, OP_COPY_ROWS, &args, &|_| None);
        assert_eq!(reply.status, STATUS_OK);
        assert_eq!(reply.bytes_done, 0);
    }
}

#[test]
fn overlapping_and_wrapping_ranges_are_refused() {
    covers!("coax.dev.57");
    let mut guest = Guest::new();
    guest.open(0);
    for (opcode, args) in [
        (OP_COPY, vec![VA, VA + 99, 100]),
        (OP_COPY, vec![VA, u64::MAX - 5, 100]),
        (OP_COPY, vec![u64::MAX - 5, VA, 100]),
        (OP_COPY_ROWS, vec![VA, VA + 299, 100, 3, 100, 100]),
        (OP_COPY_ROWS, vec![VA, VA + 0x1000, 100, 3, 99, 100]),
        (OP_COPY_ROWS, vec![VA, VA + 0x1000, 100, 3, 100, 99]),
        (OP_COPY_ROWS, vec![VA, VA + 0x1000, 100, 2, u64::MAX, 100]),
        (
            OP_COPY_ROWS,
            vec![VA, VA + 0x1000, 1 << 32, 1 << 32, 1 << 32, 1 << 32],
        ),
        (OP_FILL, vec![u64::MAX, 2, 0]),
        (OP_SHA256, vec![VA, u64::MAX]),
        (OP_HISTOGRAM, vec![VA, 1, u64::MAX - 2046]),
    ] {
        let reply = guest.run(0, opcode, &args, &linear);
        assert_eq!(reply.status, STATUS_BAD_ARGUMENT, "{opcode} {args:x?}");
    }
}

#[test]
fn fill_repeats_its_pattern_from_the_first_byte_on() {
    covers!("coax.dev.55", "coax.dev.59");
    let mut guest = Guest::new();
    guest.open(0);
    let len = 1_000_003;
    let reply = guest.run(0, OP_FILL, &[VA + 5, len, 0x0807_0605_0403_0201], &linear);
    assert_eq!(reply.status, STATUS_OK);
    let bytes = guest.read(PAGES + 5, len as usize + 1);
    assert!(bytes[..len as usize]
        .iter()
        .enumerate()
        .all(|(n, &byte)| usize::from(byte) == n % 8 + 1));
    assert_eq!(bytes[len as usize], 0);
}

#[test]
fn sha256_gives_the_known_digests() {
    covers!("coax.dev.55");
    // FIPS 180-2, appendix B: "abc", and one million times "a".
    type Ends = [[u8; 4]; 2];
    let vectors: [(&[u8], Ends); 3] = [
        (b"", [[0xe3, 0xb0, 0xc4, 0x42], [0x78, 0x52, 0xb8, 0x55]]),
        (b"abc", [[0xba, 0x78, 0x16, 0xbf], [0xf2, 0x00, 0x15, 0xad]]),
        (
            &[b'a'; 1_000_000],
            [[0xcd, 0xc7, 0x6e, 0x5c], [0xc7, 0x11, 0x2c, 0xd0]],
        ),
    ];
    let mut guest = Guest::new();
    guest.open(0);
    for (bytes, [first, last]) in vectors {
        let len = bytes.len() as u64;
        guest.write(PAGES + 77, bytes);
        let reply = guest.run(0, OP_SHA256, &[VA + 77, len], &linear);
        assert_eq!(reply.status, STATUS_OK);
        assert_eq!(reply.bytes_done, len);
        assert_eq!(reply.result[..4], first);
        assert_eq!(reply.result[28..], last);
    }
}

#[test]
fn histogram_counts_every_byte_once() {
    covers!("coax.dev.55");
    let mut guest = Guest::new();
    guest.open(0);
    let bytes = pattern(1_234_567);
    guest.write(PAGES + 0x10_0001, &bytes);
    let args = [VA + 0x10_0001, bytes.len() as u64, VA + 0xf80];
    let reply = guest.run(0, OP_HISTOGRAM, &args, &linear);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.bytes_done, 2048);
    let mut expected = [0u64; 256];
    bytes.iter().for_each(|&b| expected[usize::from(b)] += 1);
    let counts: Vec<u64> = guest
        .read(PAGES + 0xf80, 2048)
        .chunks(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert_eq!(counts, expected);
}

/// A list whose nodes lie in an order unlike that of their addresses; some of their fields
/// cross a page border.
fn build_list(guest: &Guest, nodes: u64) -> (u64, u64) {
    let place = |n: u64| (n * 7919 % nodes) * 4093 + 12;
    for n in 0..nodes {
        let next = if n + 1 == nodes { 0 } else { VA + place(n + 1) };
        guest.write(PAGES + place(n), &next.to_le_bytes());
        guest.write(PAGES + place(n) + 16, &(n * 3).to_le_bytes());
    }
    (VA + place(0), (0..nodes).map(|n| n * 3).sum())
}

#[test]
fn list_sum_follows_scattered_nodes() {
    covers!("coax.dev.55");
    let mut guest = Guest::new();
    guest.open(0);
    let nodes = 6007;
    let (head, sum) = build_list(&guest, nodes);
    let reply = guest.run(0, OP_LIST_SUM, &[head, 0, 16, nodes], &linear);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(result_pair(&reply), (sum, nodes));
}

#[test]
fn list_that_is_longer_than_allowed_is_bad_data() {
    covers!("coax.dev.58");
    let mut guest = Guest::new();
    guest.open(0);
    let (head, _) = build_list(&guest, 101);
    let reply = guest.run(0, OP_LIST_SUM, &[head, 0, 16, 100], &linear);
    assert_eq!(reply.status, STATUS_BAD_DATA);
    assert_eq!(result_pair(&reply).1, 100);
}

#[test]
fn empty_list_and_empty_tree_need_no_memory() {
    covers!("coax.dev.56");
    let mut guest = Guest::new();
    guest.open(0);
    let reply = guest.run(0, OP_LIST_SUM, &[0, 0, 8, 0], &|_| None);
    assert_eq!(
        (reply.status.get(), result_pair(&reply)),
        (STATUS_OK, (0, 0))
    );
    let reply = guest.run(0, OP_TREE_SEARCH, &[0, 5, 0, 8, 16, 0], &|_| None);
    assert_eq!(
        (reply.status.get(), result_pair(&reply)),
        (STATUS_OK, (0, 0))
    );
}

#[test]
fn pointer_that_wraps_around_is_bad_data() {
    covers!("coax.dev.58");
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES, &u64::MAX.to_le_bytes());
    let reply = guest.run(0, OP_LIST_SUM, &[VA, 0, 8, 10], &linear);
    assert_eq!(reply.status, STATUS_BAD_DATA);
    assert_eq!(result_pair(&reply).1, 1);
}

#[test]
fn tree_search_finds_keys_and_their_absence() {
    covers!("coax.dev.55", "coax.dev.58");
    let mut guest = Guest::new();
    guest.open(0);
    // A balanced tree of the keys 0, 10, … 2540 in the order of their ranks, 1000 bytes apart.
    let place = |rank: u64| rank * 1000 + 4;
    fn build(guest: &Guest, place: &dyn Fn(u64) -> u64, low: u64, high: u64) -> u64 {
        if low >= high {
            return 0;
        }
        let middle = (low + high) / 2;
        let left = build(guest, place, low, middle);
        let right = build(guest, place, middle + 1, high);
        for (offset, value) in [(0, left), (8, middle * 10), (24, right)] {
            guest.write(PAGES + place(middle) + offset, &value.to_le_bytes());
        }
        VA + place(middle)
    }
    let root = build(&guest, &place, 0, 255);
    let mut search = |key, levels| {
        let reply = guest.run(0, OP_TREE_SEARCH, &[root, key, 8, 0, 24, levels], &linear);
        (reply.status.get(), result_pair(&reply))
    };
    assert_eq!(search(1270, 8), (STATUS_OK, (VA + place(127), 1)));
    assert_eq!(search(0, 8), (STATUS_OK, (VA + place(0), 8)));
    assert_eq!(search(2540, 8), (STATUS_OK, (VA + place(254), 8)));
    assert_eq!(search(1275, 8), (STATUS_OK, (0, 8)));
    assert_eq!(search(0, 7).0, STATUS_BAD_DATA);
}

#[test]
fn bytes_are_counted_by_the_memory_they_lie_in() {
    let mut guest = Guest::new();
    let status = guest.control(CONTROL_SET_DEVICE_MEMORY, 0, DEVICE_MEMORY, 16 << 20);
    assert_eq!(status, STATUS_OK);
    guest.open(0);
    // Destination in device memory, source in system memory.
    let translate = |va: u64| {
        let gpa = if va < VA + 0x10_0000 {
            PAGES + (va - VA)
        } else {
            DEVICE_MEMORY + (va - VA - 0x10_0000)
        };
        Some((gpa, ACCESS_READ | ACCESS_WRITE))
    };
    guest.write(PAGES, &pattern(10_000));
    let reply = guest.run(0, OP_COPY, &[VA + 0x10_0000, VA, 10_000], &translate);
    assert_eq!(reply.status, STATUS_OK);
    assert!(guest.read(DEVICE_MEMORY, 10_000) == pattern(10_000));
    let stats = guest.stats();
    assert_eq!(stats.system_bytes, 10_000);
    assert_eq!(stats.device_bytes, 10_000);
}

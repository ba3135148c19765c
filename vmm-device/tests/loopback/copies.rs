// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The copy queue.

use coax_abi::wire::*;
use coax_specification::covers;
use zerocopy::{FromBytes, IntoBytes};

use crate::front_end::{Guest, DEVICE_MEMORY, PAGES, VA};

fn copy(guest: &mut Guest, entries: &[(u64, u64, u32, u32)]) -> (u32, u32) {
    let header = CopyHeader {
        count: (entries.len() as u32).into(),
        reserved: 0.into(),
    };
    let mut message = header.as_bytes().to_vec();
    for &(src, dst, npages, flags) in entries {
        let entry = CopyEntry {
            src_gpa: src.into(),
            dst_gpa: dst.into(),
            npages: npages.into(),
            flags: flags.into(),
        };
        message.extend_from_slice(entry.as_bytes());
    }
    guest.queues[usize::from(QUEUE_COPY)].add(&message, 8);
    let (_, bytes) = guest.expect(QUEUE_COPY);
    let reply = CopyReply::read_from_bytes(&bytes).unwrap();
    (reply.status.get(), reply.done.get())
}

#[test]
fn pages_move_to_device_memory_and_back() {
    covers!("coax.dev.53");
    let mut guest = Guest::new();
    let bytes: Vec<u8> = (0..512 * 4096).map(|n| (n % 253) as u8).collect();
    guest.write(PAGES, &bytes);
    assert_eq!(
        copy(&mut guest, &[(PAGES, DEVICE_MEMORY, 512, 0)]),
        (STATUS_OK, 1)
    );
    assert!(guest.read(DEVICE_MEMORY, bytes.len()) == bytes);
    let back = PAGES + (8 << 20);
    let entries: Vec<_> = (0..512)
        .map(|n| (DEVICE_MEMORY + n * 4096, back + n * 4096, 1, 0))
        .collect();
    assert_eq!(copy(&mut guest, &entries), (STATUS_OK, 512));
    assert!(guest.read(back, bytes.len()) == bytes);
    assert_eq!(guest.stats().copied_bytes, 2 * bytes.len() as u64);
}

#[test]
fn pages_are_cleared_whatever_the_source_says() {
    covers!("coax.dev.52");
    let mut guest = Guest::new();
    guest.write(PAGES, &[0xff; 3 * 4096]);
    let entry = (u64::MAX, PAGES, 2, COPY_ZERO);
    assert_eq!(copy(&mut guest, &[entry]), (STATUS_OK, 1));
    let bytes = guest.read(PAGES, 3 * 4096);
    assert!(bytes[..2 * 4096].iter().all(|&b| b == 0));
    assert!(bytes[2 * 4096..].iter().all(|&b| b == 0xff));
}

#[test]
fn entries_before_a_bad_one_are_done() {
    covers!("coax.dev.50", "coax.dev.51");
    let mut guest = Guest::new();
    guest.write(PAGES, &[1; 4096]);
    let outside = 1 << 45;
    for bad in [
        (outside, PAGES + 0x3000, 1, 0),
        (PAGES, outside, 1, 0),
        // The last page of device memory and one beyond.
        (PAGES, DEVICE_MEMORY + (16 << 20) - 4096, 2, 0),
    ] {
        let good = (PAGES, PAGES + 0x1000, 1, 0);
        let never = (PAGES, PAGES + 0x2000, 1, 0);
        let result = copy(&mut guest, &[good, bad, never]);
        assert_eq!(result, (STATUS_BAD_GPA, 1));
        assert_eq!(guest.read(PAGES + 0x1000, 1), [1]);
        assert_eq!(guest.read(PAGES + 0x2000, 1), [0]);
    }
    let wraps = (PAGES, u64::MAX - 0xfff, 512, 0);
    assert_eq!(copy(&mut guest, &[wraps]), (STATUS_BAD_GPA, 0));
    let overlapping = (PAGES, PAGES + 0x1000, 2, 0);
    assert_eq!(copy(&mut guest, &[overlapping]), (STATUS_BAD_ARGUMENT, 0));
}

#[test]
fn copies_are_done_while_a_command_is_parked() {
    covers!("coax.dev.54");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    guest.request();
    assert_eq!(
        copy(&mut guest, &[(PAGES, DEVICE_MEMORY, 1, 0)]),
        (STATUS_OK, 1)
    );
}

#[test]
fn entries_that_are_no_ranges_of_pages_are_refused() {
    covers!("coax.dev.50", "coax.dev.51");
    let mut guest = Guest::new();
    guest.write(PAGES, &[1; 4096]);
    for bad in [
        (PAGES + 8, DEVICE_MEMORY, 1, 0),
        (PAGES, DEVICE_MEMORY + 8, 1, 0),
        (PAGES, DEVICE_MEMORY, 0, 0),
        (PAGES, DEVICE_MEMORY, MAX_RANGE_PAGES + 1, 0),
        (PAGES, PAGES, 1, 0),
    ] {
        let good = (PAGES, PAGES + 0x1000, 1, 0);
        assert_eq!(copy(&mut guest, &[good, bad]), (STATUS_BAD_ARGUMENT, 1));
        assert_eq!(guest.read(DEVICE_MEMORY, 1), [0]);
    }
}

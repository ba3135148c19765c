// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Decoding of what the driver sends on each queue.
#![no_main]

use coax_abi::wire::{COPY_ZERO, MAX_COPY_ENTRIES, MAX_RANGE_PAGES, PAGE_SIZE};
use libfuzzer_sys::fuzz_target;
use vhost_device_coax::atc::Translation;
use vhost_device_coax::command::Request;
use vhost_device_coax::message::{copy_entries, copy_range, Control, Translations};

fuzz_target!(|input: (u8, &[u8])| {
    let (queue, bytes) = input;
    match queue % 4 {
        // What is decoded is checked by the target `engine`.
        0 => drop(Request::decode(bytes)),
        1 => drop(Control::decode(bytes)),
        2 => copy(bytes),
        _ => translation(bytes),
    }
});

fn copy(bytes: &[u8]) {
    let Ok(entries) = copy_entries(bytes) else {
        return;
    };
    assert!((1..=MAX_COPY_ENTRIES as usize).contains(&entries.len()));
    for entry in entries {
        let Ok(range) = copy_range(entry) else {
            continue;
        };
        assert!((1..=u64::from(MAX_RANGE_PAGES)).contains(&(range.len / PAGE_SIZE)));
        assert_eq!(range.len % PAGE_SIZE, 0);
        assert_eq!(range.dst % PAGE_SIZE, 0);
        match range.src {
            Some(src) => {
                assert_eq!(src % PAGE_SIZE, 0);
                assert!(
                    src.abs_diff(range.dst) >= range.len,
                    "source and destination overlap"
                );
            }
            None => assert_ne!(entry.flags.get() & COPY_ZERO, 0),
        }
    }
}

fn translation(bytes: &[u8]) {
    match Translations::decode(bytes) {
        Ok(
            Translations::Answer { entries, .. } | Translations::Ahead { entries, .. },
        ) => entries.iter().for_each(sound),
        Ok(Translations::Invalidate { vpn, .. }) => assert!(vpn <= u64::MAX / PAGE_SIZE),
        Err(_) => {}
    }
}

/// The run is what the cache may be filled with.
fn sound(run: &Translation) {
    assert!((1..=u64::from(MAX_RANGE_PAGES)).contains(&run.npages));
    assert!(!run.access.is_empty() && run.access.is_sound());
    assert_eq!(run.gpa % PAGE_SIZE, 0);
    let bytes = run.npages * PAGE_SIZE;
    assert!(run.gpa.checked_add(bytes - 1).is_some());
    assert!(run.vpn + run.npages - 1 <= u64::MAX / PAGE_SIZE);
}

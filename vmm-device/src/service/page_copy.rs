// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The copy queue: page copies of the driver's migrations, by guest physical address.
//!
//! It has a thread of its own, so that user commands cannot delay a migration that a fault
//! waits for. Bytes go from page to page at once, with no buffer in between.
#![forbid(unsafe_code)]

use std::time::Duration;

use coax_abi::wire::{
    CopyEntry, CopyHeader, CopyReply, MAX_COPY_ENTRIES, PAGE_SIZE, STATUS_BAD_GPA,
    STATUS_BAD_MESSAGE, STATUS_OK,
};
use vm_memory::{GuestMemoryMmap, VolatileSlice};
use zerocopy::IntoBytes;

use super::{serve, Limits};
use crate::device::Device;
use crate::dma::{map_around, regions, slice_at, Region};
use crate::message::{copy_entries, copy_range, CopyRange};
use crate::queue::Ring;

/// How long the copy after this one is looked for: a migration of many pages sends one every half a
/// millisecond or sooner, and a doorbell is an exit of the guest and the wake-up of a thread.
const LINGER: Duration = Duration::from_micros(500);
/// Zeros to clear pages with.
static ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// Serves the copy queue.
pub fn run(device: &Device, ring: &Ring) {
    let limits = Limits {
        name: "copy",
        max_request: size_of::<CopyHeader>() + MAX_COPY_ENTRIES as usize * size_of::<CopyEntry>(),
        max_reply: size_of::<CopyReply>(),
        linger: LINGER,
    };
    serve(device, ring, &limits, |memory, request, _| {
        let (status, done) = copy_all(device, memory, request);
        if status != STATUS_OK {
            device.guest_error(format_args!("copy entry {done} refused, status {status}"));
        }
        CopyReply {
            status: status.into(),
            done: done.into(),
        }
        .as_bytes()
        .to_vec()
    });
}

/// Copies entries in order; returns the status and how many were done.
fn copy_all(device: &Device, memory: &GuestMemoryMmap, request: Option<&[u8]>) -> (u32, u32) {
    let entries = match request.ok_or(STATUS_BAD_MESSAGE).and_then(copy_entries) {
        Ok(entries) => entries,
        Err(status) => return (status, 0),
    };
    let regions = regions(memory);
    let (mut status, mut done, mut bytes) = (STATUS_OK, 0, 0);
    for entry in entries {
        match copy_range(entry).and_then(|range| copy(&regions, &range)) {
            Ok(copied) => bytes += copied,
            Err(refused) => {
                status = refused;
                break;
            }
        }
        done += 1;
    }
    device.stats.copied_bytes.add(bytes);
    (status, done)
}

/// Copies or clears one range, none of it if part of it is no memory; returns its bytes.
fn copy(regions: &[Region<'_>], range: &CopyRange) -> Result<u64, u32> {
    let slice = |gpa| slice_at(regions, gpa, range.len).ok_or(STATUS_BAD_GPA);
    let dst = slice(range.dst)?;
    let src = range.src.map(slice).transpose()?;
    map_around(&dst);
    match src {
        Some(src) => src.copy_to_volatile_slice(dst),
        None => clear(&dst),
    }
    Ok(range.len)
}

fn clear(slice: &VolatileSlice<'_>) {
    for at in (0..slice.len()).step_by(ZEROS.len()) {
        if let Ok(page) = slice.offset(at) {
            page.copy_from(&ZEROS);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The copy queue: page copies of the driver's migrations, by guest physical address.
//!
//! It has a thread of its own, so that user commands cannot delay a migration that a fault
//! waits for. Bytes go from page to page at once, with no buffer in between.
#![forbid(unsafe_code)]

use coax_abi::wire::{
    CopyEntry, CopyHeader, CopyReply, MAX_COPY_ENTRIES, PAGE_SIZE, QUEUE_COPY, STATUS_BAD_GPA,
    STATUS_BAD_MESSAGE, STATUS_OK,
};
use vm_memory::{GuestAddressSpace, GuestMemoryMmap, VolatileSlice};
use zerocopy::IntoBytes;

use crate::device::Device;
use crate::dma::{map_around, regions, slice_at, Region};
use crate::message::{copy_entries, copy_range, CopyRange};
use crate::transport::port::Sizes;
use crate::transport::serve::Served;

/// Zeros to clear pages with.
static ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// Serves the copy queue.
pub fn run(device: &Device) {
    let shell = &device.machine.outside;
    let served = Served {
        device,
        queue: QUEUE_COPY,
        name: "copy",
        sizes: Sizes {
            request: size_of::<CopyHeader>() + MAX_COPY_ENTRIES as usize * size_of::<CopyEntry>(),
            reply: size_of::<CopyReply>(),
        },
        linger: Some(&device.copy_linger),
    };
    served.run(|request, room| {
        let request = request.filter(|_| room >= size_of::<CopyReply>());
        let (status, done) = copy_all(device, &shell.memory.memory(), request);
        if status != STATUS_OK {
            shell.guest_error(format_args!("copy entry {done} refused, status {status}"));
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
    device.machine.outside.stats.copied_bytes.add(bytes);
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the kernel's own `/proc/PID/pagemap` says a page is: the witness that does not depend
//! on the driver (`Documentation/admin-guide/mm/pagemap.rst`).
//!
//! | bits | meaning |
//! |---|---|
//! | 0–54 | page frame if present; if swapped: type in bits 0–4, offset in 5–54 |
//! | 55 | written since `/proc/PID/clear_refs` was told to look (soft-dirty) |
//! | 62 | swapped, which is how pages in device-private memory are shown |
//! | 63 | present |
//!
//! The offset of a device-private entry is the page frame (`include/linux/swapops.h`).

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context, Result};
use coax_abi::uapi::Info;

use super::memory::{Mapping, PAGE};

const ENTRY_BYTES: usize = 8;
const FRAME_MASK: u64 = (1 << 55) - 1;
const SWAP_TYPE_BITS: u32 = 5;
const SOFT_DIRTY: u64 = 1 << 55;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// Where a page is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Neither in memory nor on a swap device.
    Nowhere,
    /// In system memory.
    System,
    /// In the memory of the device that was asked about.
    Device,
    /// On a swap device, or in flight.
    Swapped,
}

impl Place {
    fn of(entry: u64, info: &Info) -> Place {
        let frame = entry & FRAME_MASK;
        let device = info.first_pfn..info.first_pfn + info.device_pages;
        if entry & PRESENT != 0 {
            if device.contains(&frame) {
                Place::Device
            } else {
                Place::System
            }
        } else if entry & SWAPPED == 0 {
            Place::Nowhere
        } else if device.contains(&(frame >> SWAP_TYPE_BITS)) {
            Place::Device
        } else {
            Place::Swapped
        }
    }
}

/// The place of each page of the mapping.
pub fn places(info: &Info, mapping: &Mapping) -> Result<Vec<Place>> {
    ensure!(
        info.first_pfn != 0,
        "The driver hides page frames from this process"
    );
    let entries = entries(mapping)?;
    Ok(entries.map(|entry| Place::of(entry, info)).collect())
}

/// Has the kernel look for writes of this process, from now on (`Documentation/admin-guide/mm/soft-dirty.rst`).
pub fn watch_writes() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "4").context("/proc/self/clear_refs")
}

/// Which pages of the mapping were written since [`watch_writes`].
pub fn written(mapping: &Mapping) -> Result<Vec<bool>> {
    let entries = entries(mapping)?;
    Ok(entries.map(|entry| entry & SOFT_DIRTY != 0).collect())
}

fn entries(mapping: &Mapping) -> Result<impl Iterator<Item = u64>> {
    let file = File::open("/proc/self/pagemap").context("/proc/self/pagemap")?;
    let mut bytes = vec![0; mapping.len() / PAGE * ENTRY_BYTES];
    file.read_exact_at(
        &mut bytes,
        mapping.address() / PAGE as u64 * ENTRY_BYTES as u64,
    )
    .context("Reading pagemap")?;
    let words: Vec<u64> = bytes
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| {
            let mut word = [0; ENTRY_BYTES];
            word.copy_from_slice(entry);
            u64::from_ne_bytes(word)
        })
        .collect();
    Ok(words.into_iter())
}

/// Number of the mapping's pages at the place.
pub fn count(info: &Info, mapping: &Mapping, place: Place) -> Result<u64> {
    Ok(places(info, mapping)?
        .into_iter()
        .filter(|other| *other == place)
        .count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_pages_are_known_by_their_frame_in_both_forms() {
        let info = Info {
            first_pfn: 0x100,
            device_pages: 0x10,
            ..Info::default()
        };
        assert_eq!(Place::of(PRESENT | 0x10f, &info), Place::Device);
        assert_eq!(Place::of(PRESENT | 0x110, &info), Place::System);
        assert_eq!(Place::of(SWAPPED | (0x100 << 5) | 30, &info), Place::Device);
        assert_eq!(Place::of(SWAPPED | (0x99 << 5), &info), Place::Swapped);
        assert_eq!(Place::of(0, &info), Place::Nowhere);
    }
}

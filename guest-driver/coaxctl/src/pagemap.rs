// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `/proc/PID/pagemap`: where each page of a process is, without touching it.
//!
//! Format: Documentation/admin-guide/mm/pagemap.rst and `pte_to_pagemap_entry` in
//! fs/proc/task_mmu.c. A device-coherent page is a present page whose frame lies in the
//! device's memory. A device-private page is a swap entry of a device type whose offset is the
//! frame.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, Result};
use coax::abi::wire::PAGE_SIZE;
use coax::{Info, PageRange, Residency};

/// `PM_PRESENT`.
const PRESENT: u64 = 1 << 63;
/// `PM_SWAP`.
const SWAP: u64 = 1 << 62;
/// `PM_FILE`: file-backed or shared.
const FILE: u64 = 1 << 61;
/// `PM_PFRAME_MASK`: frame number, or swap type and offset.
const FRAME_MASK: u64 = (1 << 55) - 1;
/// `MAX_SWAPFILES_SHIFT`: the low bits of a swap entry's frame field are its type.
const SWAP_TYPE_BITS: u32 = 5;
/// `SWP_DEVICE_WRITE` and `SWP_DEVICE_READ`. They stand before `SWP_DEVICE_EXCLUSIVE` and
/// `SWP_PTE_MARKER`, the last of the 32 types, whatever else the kernel is configured with.
const SWAP_TYPES_DEVICE: Range<u64> = 28..30;
/// Entries read at once: 32 KiB.
const BATCH: u64 = 4096;

/// Frames of the device's memory.
#[derive(Clone, Debug)]
pub struct DeviceFrames(Range<u64>);

impl DeviceFrames {
    /// The frames that the driver reports; `None` if it does not tell this user.
    pub fn new(info: &Info) -> Option<Self> {
        let end = info.first_pfn.checked_add(info.device_pages)?;
        (info.first_pfn != 0).then_some(Self(info.first_pfn..end))
    }

    /// Adds the page behind a pagemap entry to the count of where it is.
    fn count(&self, entry: u64, residency: &mut Residency) {
        let frame = entry & FRAME_MASK;
        if entry & PRESENT != 0 {
            if self.0.contains(&frame) {
                residency.device += 1;
            } else if entry & FILE != 0 {
                residency.file += 1;
            } else {
                residency.system += 1;
            }
        } else if entry & SWAP != 0 && self.is_private(frame) {
            residency.device += 1;
        } else {
            residency.none += 1;
        }
    }

    /// Whether the frame field of a swap entry means a page of this device.
    fn is_private(&self, frame: u64) -> bool {
        let kind = frame & ((1 << SWAP_TYPE_BITS) - 1);
        SWAP_TYPES_DEVICE.contains(&kind) && self.0.contains(&(frame >> SWAP_TYPE_BITS))
    }
}

/// The pagemap of a process.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    path: String,
}

impl Pagemap {
    /// Opens it.
    pub fn open(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/pagemap");
        let file = File::open(&path).with_context(|| format!("Cannot open {path}"))?;
        Ok(Self { file, path })
    }

    /// Counts the pages of a range by where they are. What was never touched is counted as a whole.
    pub fn residency(&self, range: PageRange, device: &DeviceFrames) -> Result<Residency> {
        let mut residency = Residency::default();
        let mut looked_at = 0;
        for run in coax::populated(&self.file, range) {
            let run = run.with_context(|| format!("Cannot scan {}", self.path))?;
            self.count(run, device, &mut residency)?;
            looked_at += run.pages();
        }
        residency.none += range.pages().saturating_sub(looked_at);
        Ok(residency)
    }

    /// Adds the pages of a run, one by one.
    fn count(
        &self,
        range: PageRange,
        device: &DeviceFrames,
        residency: &mut Residency,
    ) -> Result<()> {
        let mut bytes = vec![0; BATCH.min(range.pages()) as usize * size_of::<u64>()];
        let first = range.addr / PAGE_SIZE;
        let mut done = 0;
        while done < range.pages() {
            let wanted = (range.pages() - done).min(BATCH) as usize * size_of::<u64>();
            let read = self.read(
                &mut bytes[..wanted],
                (first + done) * size_of::<u64>() as u64,
            )?;
            let entries = bytes[..read].chunks_exact(size_of::<u64>());
            if entries.len() == 0 {
                // The mapping went away, or the process did.
                residency.none += range.pages() - done;
                break;
            }
            done += entries.len() as u64;
            for bytes in entries {
                let mut entry = [0; size_of::<u64>()];
                entry.copy_from_slice(bytes);
                device.count(u64::from_ne_bytes(entry), residency);
            }
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<usize> {
        loop {
            match self.file.read_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.with_context(|| format!("Cannot read {}", self.path)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames 0x100000 … 0x100fff.
    fn device() -> DeviceFrames {
        let info = Info {
            first_pfn: 0x10_0000,
            device_pages: 0x1000,
            ..Default::default()
        };
        DeviceFrames::new(&info).expect("frames are known")
    }

    fn counted(entry: u64) -> Residency {
        let mut residency = Residency::default();
        device().count(entry, &mut residency);
        residency
    }

    #[test]
    fn absent_and_swapped_pages_are_nowhere() {
        let nowhere = Residency {
            none: 1,
            ..Default::default()
        };
        assert_eq!(counted(0), nowhere);
        // Swap file 3 at an offset that would be a frame of the device.
        assert_eq!(counted(SWAP | (0x10_0001 << SWAP_TYPE_BITS) | 3), nowhere);
    }

    #[test]
    fn present_pages_are_told_apart_by_frame_and_flag() {
        assert_eq!(
            counted(PRESENT | 0x1234),
            Residency {
                system: 1,
                ..Default::default()
            }
        );
        assert_eq!(
            counted(PRESENT | FILE | 0x1234),
            Residency {
                file: 1,
                ..Default::default()
            }
        );
    }

    #[test]
    fn coherent_pages_are_present_frames_of_the_device() {
        let on_device = Residency {
            device: 1,
            ..Default::default()
        };
        assert_eq!(counted(PRESENT | 0x10_0000), on_device);
        assert_eq!(counted(PRESENT | 0x10_0fff), on_device);
        assert_eq!(
            counted(PRESENT | 0x10_1000),
            Residency {
                system: 1,
                ..Default::default()
            }
        );
    }

    #[test]
    fn private_pages_are_device_entries_of_its_frames() {
        let on_device = Residency {
            device: 1,
            ..Default::default()
        };
        for kind in SWAP_TYPES_DEVICE {
            assert_eq!(
                counted(SWAP | (0x10_0001 << SWAP_TYPE_BITS) | kind),
                on_device
            );
        }
        // Another device's page, and a page lent for exclusive access.
        let nowhere = Residency {
            none: 1,
            ..Default::default()
        };
        assert_eq!(counted(SWAP | (0x20_0000 << SWAP_TYPE_BITS) | 28), nowhere);
        assert_eq!(counted(SWAP | (0x10_0001 << SWAP_TYPE_BITS) | 30), nowhere);
    }

    #[test]
    fn without_privilege_the_frames_are_unknown() {
        let info = Info {
            first_pfn: 0,
            device_pages: 0x1000,
            ..Default::default()
        };
        assert!(DeviceFrames::new(&info).is_none());
    }

    #[test]
    fn a_whole_address_space_takes_no_longer_than_what_is_touched_of_it() {
        let everything = PageRange::new(0, (1 << 47) - PAGE_SIZE);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let pagemap = Pagemap::open(std::process::id()).expect("/proc is mounted");
            // Nobody listens any more if it took too long.
            let _ = sender.send(pagemap.residency(everything, &device()));
        });
        let residency = receiver
            .recv_timeout(std::time::Duration::from_secs(20))
            .expect("128 TiB, nearly all of it a hole")
            .expect("own pagemap");
        let Residency {
            none,
            system,
            device,
            file,
        } = residency;
        assert_eq!(none + system + device + file, everything.pages());
        assert!(system > 0 && file > 0, "{residency:?}");
    }

    #[test]
    fn touched_memory_of_this_process_is_in_system_memory() {
        // Written, so that the pages exist.
        let memory = vec![1u8; 3 * PAGE_SIZE as usize];
        let pagemap = Pagemap::open(std::process::id()).expect("/proc is mounted");
        let residency = pagemap
            .residency(PageRange::of(&memory), &device())
            .expect("own pagemap");
        assert_eq!(residency.none + residency.file + residency.device, 0);
        assert!(residency.system >= 3);
    }
}

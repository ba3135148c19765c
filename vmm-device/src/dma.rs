// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Access of the engine to a context's memory, through its translations.
//!
//! [`Window`] is the [`DmaMemory`] of one engine step: it borrows the context's ATC and the
//! table of guest memory, both fixed for the step, and keeps the last page and leaf it used.
#![forbid(unsafe_code)]

use std::time::Instant;

use coax_abi::wire::PAGE_SIZE;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

use crate::access::Access;
use crate::engine::memory::{DmaMemory, Pair, PairStop, Stop};
use crate::mmu::atc::{Atc, Leaf, LEAF_PAGES};
use crate::stats::Stats;
use crate::sync::{AtomicU32, Ordering};

/// Longest piece: who waits for the step to end waits for one piece, some ten microseconds.
const PIECE_BYTES: u64 = 64 * 1024;
/// Leaves whose place a window remembers; a power of two.
const LEAF_SLOTS: usize = 16;
/// Most windows of 2 MiB that a step tells of; how often others are used is told of when that has doubled.
const MAX_HOT: usize = 16;

/// Region of guest memory, mapped here.
#[derive(Debug)]
pub struct Region<'m> {
    start: u64,
    len: u64,
    bytes: VolatileSlice<'m>,
}

/// The mapped regions of the memory table.
pub fn regions(memory: &GuestMemoryMmap) -> Vec<Region<'_>> {
    memory
        .iter()
        .filter_map(|region| {
            Some(Region {
                start: region.start_addr().raw_value(),
                len: region.len(),
                bytes: region.as_volatile_slice().ok()?,
            })
        })
        .collect()
}

/// The bytes `gpa` … `gpa + len` if they lie in one region.
pub fn slice_at<'m>(regions: &[Region<'m>], gpa: u64, len: u64) -> Option<VolatileSlice<'m>> {
    regions.iter().find_map(|region| region.slice(gpa, len))
}

impl<'m> Region<'m> {
    fn slice(&self, gpa: u64, len: u64) -> Option<VolatileSlice<'m>> {
        let offset = gpa.checked_sub(self.start)?;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        self.bytes.subslice(offset as usize, len as usize).ok()
    }
}

/// Bytes that one read fault maps around itself: `fault_around_bytes` of Linux at its default.
const FAULT_AROUND: usize = 64 * 1024;

/// Has the kernel map memory that is to be written, many pages at a time.
///
/// A write to a page that this process has not used yet maps the one page, a read maps its
/// neighbours with it, and shared memory is mapped writable in either case.
pub fn map_around(bytes: &VolatileSlice<'_>) {
    for at in (0..bytes.len()).step_by(FAULT_AROUND) {
        if let Ok(piece) = bytes.offset(at) {
            piece.copy_to(&mut [0u8]);
        }
    }
}

/// Range of guest physical addresses that is device memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceMemory {
    /// First address.
    pub gpa: u64,
    /// Bytes; 0 until the driver has told.
    pub len: u64,
}

impl DeviceMemory {
    fn contains(self, gpa: u64) -> bool {
        gpa.wrapping_sub(self.gpa) < self.len
    }
}

/// A page that was looked up, with the bytes behind it.
#[derive(Clone, Copy, Debug)]
struct CachedPage<'m> {
    vpn: u64,
    access: Access,
    on_device: bool,
    bytes: VolatileSlice<'m>,
}

/// Bytes in one piece, and whether they lie in device memory.
type Found<'m> = (VolatileSlice<'m>, bool);

/// Memory of a context during one engine step.
#[derive(Debug)]
pub struct Window<'m> {
    atc: &'m Atc,
    regions: &'m [Region<'m>],
    device_memory: DeviceMemory,
    /// How many wait for the step to end.
    waiting: Option<&'m AtomicU32>,
    /// When the step has to end.
    deadline: Option<Instant>,
    leaves: [(u64, Option<&'m Leaf>); LEAF_SLOTS],
    last_page: Option<CachedPage<'m>>,
    hits: u64,
    misses: u64,
    system_bytes: u64,
    device_bytes: u64,
    /// Accesses to 2 MiB of system memory after which that is told; 0 for never, and nothing is counted.
    threshold: u32,
    /// Where accesses were counted last, and how many are not in the leaf yet.
    counted: (u64, u32),
    hot: Vec<u64>,
}

impl<'m> Window<'m> {
    /// Opens a window for one step.
    pub fn new(atc: &'m Atc, regions: &'m [Region<'m>], device_memory: DeviceMemory) -> Self {
        Self {
            atc,
            regions,
            device_memory,
            waiting: None,
            deadline: None,
            leaves: [(0, None); LEAF_SLOTS],
            last_page: None,
            hits: 0,
            misses: 0,
            system_bytes: 0,
            device_bytes: 0,
            threshold: 0,
            counted: (0, 0),
            hot: Vec::new(),
        }
    }

    /// Counts accesses to pages of system memory, for those to be told of that are `threshold` in 2 MiB; 0 counts
    /// none.
    pub fn counting(mut self, threshold: u32) -> Self {
        self.threshold = threshold;
        self
    }

    /// Has the step end when somebody waits for it, or at `deadline`.
    pub fn interrupted_by(mut self, waiting: &'m AtomicU32, deadline: Option<Instant>) -> Self {
        self.waiting = Some(waiting);
        self.deadline = deadline;
        self
    }

    /// Adds what the step did to the statistics, and returns the windows of 2 MiB to be told of, each by the
    /// number of its first page.
    pub fn count(mut self, stats: &Stats) -> Vec<u64> {
        self.count_in_leaf();
        stats.atc_hits.add(self.hits);
        stats.atc_misses.add(self.misses);
        stats.system_bytes.add(self.system_bytes);
        stats.device_bytes.add(self.device_bytes);
        self.hot
    }

    /// Counts an access to each page of a piece.
    fn touched(&mut self, va: u64, bytes: usize, on_device: bool) {
        if self.threshold == 0 || on_device {
            return;
        }
        let key = va / PAGE_SIZE / LEAF_PAGES;
        if self.counted.0 != key {
            self.count_in_leaf();
            self.counted.0 = key;
        }
        // A piece is 64 KiB at most, and a step some hundred of them.
        let pages = (va % PAGE_SIZE + bytes as u64).div_ceil(PAGE_SIZE) as u32;
        self.counted.1 = self.counted.1.saturating_add(pages);
    }

    /// Adds accesses to where all steps have theirs.
    fn count_in_leaf(&mut self) {
        let (key, accesses) = std::mem::take(&mut self.counted);
        if accesses == 0 {
            return;
        }
        let vpn = key * LEAF_PAGES;
        let leaf = self.leaf(vpn);
        let told = leaf.is_some_and(|leaf| leaf.count(accesses, self.threshold));
        if told && self.hot.len() < MAX_HOT && !self.hot.contains(&vpn) {
            self.hot.push(vpn);
        }
    }

    fn leaf(&mut self, vpn: u64) -> Option<&'m Leaf> {
        let key = vpn / LEAF_PAGES;
        let slot = &mut self.leaves[key as usize % LEAF_SLOTS];
        if slot.0 != key || slot.1.is_none() {
            *slot = (key, self.atc.leaf(vpn));
        }
        slot.1
    }

    fn account(&mut self, on_device: bool, bytes: usize) {
        if on_device {
            self.device_bytes += bytes as u64;
        } else {
            self.system_bytes += bytes as u64;
        }
    }

    /// Finds the piece at an address, and whether it lies in device memory.
    fn find(&mut self, va: u64, len: u64, access: Access) -> Result<Found<'m>, Stop> {
        let offset = va % PAGE_SIZE;
        if let Some(page) = self.last_page {
            if page.vpn == va / PAGE_SIZE
                && len <= PAGE_SIZE - offset
                && page.access.contains(access)
            {
                if let Ok(bytes) = page.bytes.subslice(offset as usize, len as usize) {
                    self.hits += 1;
                    return Ok((bytes, page.on_device));
                }
            }
        }
        self.look_up(va, len, access)
    }

    fn look_up(&mut self, va: u64, len: u64, access: Access) -> Result<Found<'m>, Stop> {
        let len = len.min(PIECE_BYTES);
        let vpn = va / PAGE_SIZE;
        let offset = va % PAGE_SIZE;
        let found = self.leaf(vpn).and_then(|leaf| {
            let page = leaf.page(vpn)?;
            page.access.contains(access).then_some((leaf, page))
        });
        let Some((leaf, page)) = found else {
            self.misses += 1;
            return Err(Stop::Miss(va));
        };
        self.hits += 1;
        // Pages that follow without a gap in guest physical memory come along.
        let mut end = PAGE_SIZE;
        let mut next = vpn + 1;
        while end - offset < len && next % LEAF_PAGES != 0 {
            match leaf.page(next) {
                Some(p)
                    if Some(p.gpa) == page.gpa.checked_add(end) && p.access.contains(access) =>
                {
                    end += PAGE_SIZE;
                    next += 1;
                }
                _ => break,
            }
        }
        let run = slice_at(self.regions, page.gpa, end)
            .or_else(|| {
                // The run crosses a border of regions: the first page alone does not.
                end = PAGE_SIZE;
                slice_at(self.regions, page.gpa, end)
            })
            .ok_or(Stop::BadGpa(va))?;
        if access.contains(Access::WRITE) {
            map_around(&run);
        }
        let on_device = self.device_memory.contains(page.gpa);
        let bytes = len.min(end - offset);
        self.last_page = run
            .subslice(0, PAGE_SIZE as usize)
            .ok()
            .map(|bytes| CachedPage {
                vpn,
                access: page.access,
                on_device,
                bytes,
            });
        run.subslice(offset as usize, bytes as usize)
            .map(|bytes| (bytes, on_device))
            .map_err(|error| {
                log::error!("slice of a checked page: {error}");
                Stop::BadGpa(va)
            })
    }
}

impl<'m> DmaMemory<'m> for Window<'m> {
    fn interrupted(&self) -> bool {
        self.waiting
            .is_some_and(|waiting| waiting.load(Ordering::Relaxed) > 0)
            || self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn piece(&mut self, va: u64, len: u64, access: Access) -> Result<VolatileSlice<'m>, Stop> {
        let (bytes, on_device) = self.find(va, len, access)?;
        self.account(on_device, bytes.len());
        self.touched(va, bytes.len(), on_device);
        Ok(bytes)
    }

    fn pair(&mut self, src: u64, dst: u64, len: u64) -> Result<Pair<'m>, PairStop> {
        let (src_va, dst_va) = (src, dst);
        let src = self.find(src, len, Access::READ);
        let dst = self.find(dst, len, Access::WRITE);
        let ((src, src_on_device), (dst, dst_on_device)) = match (src, dst) {
            (Ok(src), Ok(dst)) => (src, dst),
            (src, dst) => {
                return Err(PairStop {
                    src: src.err(),
                    dst: dst.err(),
                });
            }
        };
        let common = src.len().min(dst.len());
        self.account(src_on_device, common);
        self.account(dst_on_device, common);
        self.touched(src_va, common, src_on_device);
        self.touched(dst_va, common, dst_on_device);
        // Both are at least as long, so neither is changed by what cannot fail.
        let cut = |bytes: VolatileSlice<'m>| bytes.subslice(0, common).unwrap_or(bytes);
        Ok((cut(src), cut(dst)))
    }
}

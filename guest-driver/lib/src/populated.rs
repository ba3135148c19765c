// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which pages of a process there are at all, found without looking at each.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use crate::memory::PageRange;
use crate::sys::{self, PageRegion};

/// Runs that one call asks for: 12 KiB.
const BATCH: usize = 512;

/// The runs of pages of `range` that are in memory, on a device or swapped out; `pagemap` is
/// `/proc/PID/pagemap` of the process. What lies between was never touched or is not mapped, and costs nothing,
/// however large it is.
///
/// Runs are in order and do not touch each other. On a kernel that cannot tell (before Linux 6.7) all of
/// `range` is one run.
///
/// Each item may be an error: that of the call, which is the last item.
pub fn populated(pagemap: &File, range: PageRange) -> Populated<'_> {
    Populated {
        pagemap,
        at: range.addr,
        end: range.addr.saturating_add(range.len),
        found: Vec::new().into_iter(),
    }
}

/// The iterator of [`populated`].
#[derive(Debug)]
pub struct Populated<'a> {
    pagemap: &'a File,
    /// What lies before was asked about.
    at: u64,
    end: u64,
    found: std::vec::IntoIter<PageRegion>,
}

impl Populated<'_> {
    /// Asks for the next runs.
    fn ask(&mut self) -> io::Result<()> {
        let mut regions = vec![PageRegion::default(); BATCH];
        let asked = self.at..self.end;
        let (count, next) = match sys::pagemap_scan(self.pagemap.as_fd(), asked, &mut regions) {
            Ok(found) => found,
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                (regions[0].start, regions[0].end) = (self.at, self.end);
                (1, self.end)
            }
            Err(error) => return Err(error),
        };
        regions.truncate(count);
        self.found = regions.into_iter();
        self.at = next;
        Ok(())
    }
}

impl Iterator for Populated<'_> {
    type Item = io::Result<PageRange>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(region) = self.found.next() {
                return Some(Ok(PageRange::new(region.start, region.end - region.start)));
            }
            if self.at >= self.end {
                return None;
            }
            match self.ask() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.at = self.end;
                    return Some(Err(error));
                }
                Ok(()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coax_abi::wire::PAGE_SIZE;

    /// All addresses that a process can have with four levels of page tables.
    const EVERYTHING: PageRange = PageRange {
        addr: 0,
        len: (1 << 47) - PAGE_SIZE,
    };

    #[test]
    fn runs_are_in_order_and_hold_what_was_touched() {
        let memory = vec![1u8; 16 * PAGE_SIZE as usize];
        let touched = PageRange::of(&memory);
        let pagemap = File::open("/proc/self/pagemap").expect("/proc is mounted");
        let mut end = 0;
        let mut holds = false;
        for run in populated(&pagemap, EVERYTHING) {
            let run = run.expect("own pagemap");
            assert!(run.addr >= end && run.len > 0, "{run} before {end:x}");
            end = run.addr + run.len;
            holds |= run.addr <= touched.addr && end >= touched.addr + touched.len;
        }
        assert!(holds, "{touched} is in no run");
    }

    #[test]
    fn more_runs_than_one_call_returns_are_all_found() {
        // Every other page of fresh memory is written: of the zero page that a large allocation begins
        // with nothing is populated.
        let pages = 4 * BATCH;
        let mut memory = vec![0u8; (pages + 1) * PAGE_SIZE as usize];
        let skip = memory.as_ptr().align_offset(PAGE_SIZE as usize);
        for page in (0..pages).step_by(2) {
            memory[skip + page * PAGE_SIZE as usize] = 1;
        }
        let start = PageRange::of(&memory[skip..]).addr;
        let range = PageRange::new(start, pages as u64 * PAGE_SIZE);
        let pagemap = File::open("/proc/self/pagemap").expect("/proc is mounted");
        let found: u64 = populated(&pagemap, range)
            .map(|run| run.expect("own pagemap").pages())
            .sum();
        // The kernel may have taken 2 MiB at once.
        assert!(found >= pages as u64 / 2, "{found} of {pages}");
        assert_eq!(
            memory.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
            pages as u64 / 2
        );
    }

    #[test]
    fn what_is_no_pagemap_ends_with_the_error_or_is_one_run() {
        let file = File::open("/proc/self/status").expect("/proc is mounted");
        let runs: Vec<_> = populated(&file, PageRange::new(0, PAGE_SIZE)).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
    }
}

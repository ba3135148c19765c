// SPDX-License-Identifier: GPL-2.0

//! The windows of a range, which several threads take in turn.

use super::{PAGE_SIZE, WINDOW_PAGES};
use crate::kapi::mm;
use core::ops::Range;
use kernel::{
    error::Error,
    mm::virt::VmaRef,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

const WINDOW_BYTES: usize = WINDOW_PAGES * PAGE_SIZE;

/// Smallest range that is worth several threads, 2 MiB: threads on one page table wait for its lock.
pub(super) const MIN_SHARED: usize = WINDOW_BYTES;

/// Smallest turn, 512 KiB: many times what it costs to wake a thread.
pub(super) const MIN_TURN: usize = WINDOW_BYTES / 4;

/// Turns that threads should find in a range, so that they end at about the same time.
const TURNS: usize = 4;

/// What is left of a range, and what went wrong.
pub(super) struct Turns {
    next: Atomic<usize>,
    end: usize,
    /// Bytes of a window of small pages, a power of two.
    step: usize,
    /// The first error, negative, or 0.
    error: Atomic<i32>,
}

impl Turns {
    /// All of `range`; in windows small enough for several threads if it is `shared`.
    pub(super) fn new(range: &Range<usize>, shared: bool) -> Self {
        let part = (range.len() / TURNS).next_power_of_two();
        Turns {
            next: Atomic::new(range.start),
            end: range.end,
            step: if shared {
                part.clamp(MIN_TURN, WINDOW_BYTES)
            } else {
                WINDOW_BYTES
            },
            error: Atomic::new(0),
        }
    }

    /// The next window in `vma`; none after the last, or after an error.
    pub(super) fn take(&self, vma: &VmaRef) -> Option<Range<usize>> {
        let mut at = self.next.load(Relaxed);
        while at < self.end && self.error.load(Relaxed) == 0 {
            // What one entry maps as a whole stays whole.
            let step = if mm::has_page_table(vma, at) {
                self.step
            } else {
                WINDOW_BYTES
            };
            // Windows end at multiples of their size, as page tables do.
            let end = (at - at % step + step).min(self.end);
            match self.next.cmpxchg(at, end, Relaxed) {
                Ok(_) => return Some(at..end),
                Err(now) => at = now,
            }
        }
        None
    }

    /// Ends the turns of all threads.
    pub(super) fn fail(&self, error: Error) {
        // The first error counts.
        let _ = self.error.cmpxchg(0, error.to_errno(), Relaxed);
    }

    /// The first error.
    pub(super) fn result(&self) -> Result {
        match self.error.load(Relaxed) {
            0 => Ok(()),
            error => Err(Error::from_errno(error)),
        }
    }

    /// Bytes that nobody took.
    pub(super) fn left(&self) -> usize {
        self.end.saturating_sub(self.next.load(Relaxed))
    }
}

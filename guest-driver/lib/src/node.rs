// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moving pages to and from device memory that is a memory node, by the kernel's `move_pages(2)`.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;

use coax_abi::wire::PAGE_SIZE;

use crate::context::refused;
use crate::error::Error;
use crate::memory::{Direction, Migrated, PageRange};
use crate::populated::populated;
use crate::sys;

/// `MPOL_MF_MOVE`: pages that only this process maps.
const MOVE: i32 = 1 << 1;
/// `MPOL_MF_MOVE_ALL`: all pages; needs `CAP_SYS_NICE`.
const MOVE_ALL: i32 = 1 << 2;

/// Bytes that a call spans, 64 MiB: the kernel prepares all CPUs for each call, and the arrays stay
/// small. Calls end at multiples of it, so that no huge page is in two of them.
const CHUNK_BYTES: u64 = 64 << 20;
/// Bytes that a call after one that gave up spans, so that a huge page that cannot move keeps no other
/// from moving.
const WINDOW_BYTES: usize = 2 << 20;

/// Moves the pages of a range of process `pid` (0: this one) to `node`, or from it to the node of the
/// CPU that this thread runs on. The range is one that the driver found good.
///
/// # Errors
///
/// [`Error::Call`]; `EFAULT` if part of the range is not mapped (the rest was moved).
pub(crate) fn migrate(
    node: u32,
    pid: u32,
    range: PageRange,
    direction: Direction,
) -> Result<Migrated, Error> {
    let target = match direction {
        Direction::ToDevice => node,
        Direction::ToSystem => sys::current_node().map_err(refused("getcpu"))?,
    };
    let mut sum = Migrated::default();
    if direction == Direction::ToDevice {
        // Less those that are found there.
        sum.left = range.pages();
    }
    let mut full = false;
    let pagemap = match pid {
        0 => File::open("/proc/self/pagemap"),
        pid => File::open(format!("/proc/{pid}/pagemap")),
    };
    // Where `/proc` does not tell, each page is looked at.
    let runs: Box<dyn Iterator<Item = io::Result<PageRange>>> = match &pagemap {
        Ok(pagemap) => Box::new(populated(pagemap, range)),
        Err(_) => Box::new(std::iter::once(Ok(range))),
    };
    for pages in chunks(runs) {
        let mut chunk = Chunk::new(pid, node, pages.map_err(refused("PAGEMAP_SCAN"))?)?;
        let before = chunk.there(direction);
        if !full {
            full = chunk.move_to(target, direction)?;
        }
        let there = chunk.there(direction);
        let moved = there.saturating_sub(before);
        sum.moved += moved;
        sum.already += there - moved;
        match direction {
            Direction::ToDevice => sum.left -= there,
            Direction::ToSystem => sum.left += chunk.there(Direction::ToDevice),
        }
    }
    // Of another process the caller has read the mappings.
    let whole = pid != 0
        || sys::is_mapped(range.addr as usize, range.len as usize).map_err(refused("msync"))?;
    if whole {
        return Ok(sum);
    }
    let source = io::Error::from_raw_os_error(libc::EFAULT);
    Err(refused("move_pages")(source))
}

/// The pages of runs, by the multiples of [`CHUNK_BYTES`] that they lie in. The error of a run ends it.
fn chunks(
    runs: impl IntoIterator<Item = io::Result<PageRange>>,
) -> impl Iterator<Item = io::Result<Vec<usize>>> {
    let mut runs = runs.into_iter();
    // What is left of the run before.
    let mut rest: Option<PageRange> = None;
    std::iter::from_fn(move || {
        let mut pages: Vec<usize> = Vec::new();
        let mut limit = None;
        loop {
            let run = match rest.take().map(Ok).or_else(|| runs.next()) {
                Some(Ok(run)) => run,
                Some(Err(error)) => return Some(Err(error)),
                None => return (!pages.is_empty()).then_some(Ok(pages)),
            };
            let (start, end) = (run.addr, run.addr + run.len);
            let limit = *limit.get_or_insert(start - start % CHUNK_BYTES + CHUNK_BYTES);
            let until = end.min(limit);
            pages.extend(
                (start..until)
                    .step_by(PAGE_SIZE as usize)
                    .map(|page| page as usize),
            );
            if end > limit {
                let from = start.max(limit);
                rest = Some(PageRange::new(from, end - from));
                return Some(Ok(pages));
            }
        }
    })
}

/// Pages and where they are.
struct Chunk {
    pid: u32,
    node: u32,
    pages: Vec<usize>,
    status: Vec<i32>,
}

impl Chunk {
    fn new(pid: u32, node: u32, pages: Vec<usize>) -> Result<Self, Error> {
        let mut chunk = Self {
            pid,
            node,
            status: vec![0; pages.len()],
            pages,
        };
        chunk.look()?;
        Ok(chunk)
    }

    fn look(&mut self) -> Result<(), Error> {
        sys::move_pages(self.pid, &self.pages, None, &mut self.status, 0)
            .map(drop)
            .map_err(refused("move_pages"))
    }

    /// Whether a status says that the page is where `direction` leads.
    fn is_there(&self, status: i32, direction: Direction) -> bool {
        // Negative numbers are errors.
        u32::try_from(status).is_ok_and(|on| match direction {
            Direction::ToDevice => on == self.node,
            Direction::ToSystem => on != self.node,
        })
    }

    fn there(&self, direction: Direction) -> u64 {
        let statuses = self.status.iter();
        statuses
            .filter(|status| self.is_there(**status, direction))
            .count() as u64
    }

    /// Pages that are in memory and not where `direction` leads.
    fn others(&self, direction: Direction) -> Vec<usize> {
        let entries = self.pages.iter().zip(&self.status);
        entries
            .filter(|(_, status)| **status >= 0 && !self.is_there(**status, direction))
            .map(|(page, _)| *page)
            .collect()
    }

    /// Moves what is not there: first all of it, and if the kernel gives that up, 2 MiB by 2 MiB as long
    /// as something moves. Returns whether the target is full, where trying on takes long and moves
    /// nothing.
    fn move_to(&mut self, target: u32, direction: Direction) -> Result<bool, Error> {
        let others = self.others(direction);
        if others.is_empty() {
            return Ok(false);
        }
        let mut asked = self.ask(&others, target)?;
        self.look()?;
        while asked == Asked::GivenUp {
            let others = self.others(direction);
            asked = Asked::Done;
            for window in windows(&others) {
                asked = asked.max(self.ask(window, target)?);
                if asked == Asked::Full {
                    break;
                }
            }
            self.look()?;
            if self.others(direction).len() >= others.len() {
                break;
            }
        }
        Ok(asked == Asked::Full)
    }

    /// Asks the kernel to move pages.
    fn ask(&self, pages: &[usize], target: u32) -> Result<Asked, Error> {
        let mut status = vec![0; pages.len()];
        let mut call = |flags| sys::move_pages(self.pid, pages, Some(target), &mut status, flags);
        let asked = match call(MOVE_ALL) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => call(MOVE),
            result => result,
        };
        match asked {
            Ok(0) => Ok(Asked::Done),
            Ok(_) => Ok(Asked::GivenUp),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Ok(Asked::Full),
            Err(error) => Err(refused("move_pages")(error)),
        }
    }
}

/// What the kernel made of pages to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    /// It went through all of them.
    Done,
    /// It stopped at pages that cannot move.
    GivenUp,
    /// It stopped because the target has no memory left.
    Full,
}

/// Cuts pages where a huge page may begin.
fn windows(pages: &[usize]) -> impl Iterator<Item = &[usize]> {
    pages.chunk_by(|a, b| a / WINDOW_BYTES == b / WINDOW_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = PAGE_SIZE as usize;

    #[test]
    fn pages_are_cut_where_huge_pages_begin() {
        let pages: Vec<usize> = (510..1026).map(|page| page * PAGE).collect();
        let lengths: Vec<usize> = windows(&pages).map(<[_]>::len).collect();
        assert_eq!(lengths, [2, 512, 2]);
    }

    #[test]
    fn pages_that_are_there_are_counted_and_not_asked_for() {
        let chunk = Chunk {
            pid: 0,
            node: 1,
            pages: vec![PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE],
            status: vec![1, 0, -libc::ENOENT, 2],
        };
        assert_eq!(chunk.there(Direction::ToDevice), 1);
        assert_eq!(chunk.there(Direction::ToSystem), 2);
        assert_eq!(chunk.others(Direction::ToDevice), [2 * PAGE, 4 * PAGE]);
        assert_eq!(chunk.others(Direction::ToSystem), [PAGE]);
    }

    #[test]
    fn runs_are_joined_and_cut_at_multiples_of_a_chunk() {
        let run = |first: u64, pages: u64| Ok(PageRange::new(first * PAGE_SIZE, pages * PAGE_SIZE));
        let of = CHUNK_BYTES / PAGE_SIZE;
        let runs = [run(1, 1), run(3, 2), run(of - 1, 2 + of), run(5 * of, 1)];
        let found: Vec<_> = chunks(runs)
            .map(|pages| pages.expect("no error among them"))
            .map(|pages| (pages.len() as u64, pages[0] / PAGE))
            .collect();
        let of = of as usize;
        assert_eq!(found, [(4, 1), (of as u64, of), (1, 2 * of), (1, 5 * of)]);
    }

    #[test]
    fn what_is_on_this_node_already_stays() {
        let memory = vec![1u8; 64 * PAGE];
        let here = sys::current_node().expect("getcpu");
        let migrated = migrate(here, 0, PageRange::of(&memory), Direction::ToDevice);
        // Sandboxes forbid the call.
        if let Ok(migrated) = migrated {
            assert!(
                migrated.already >= 64 && migrated.moved + migrated.left == 0,
                "{migrated:?}"
            );
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pulls random ranges of processes over to device memory and back.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coax::abi::wire::PAGE_SIZE;
use coax::{Context, Direction, Error, PageRange};
use fastrand::Rng;

use super::descendants::Descendants;
use super::tally::Tally;
use crate::maps::{self, Mapping};

/// How often new processes are looked for: a look costs as much as some pulls.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a storm without anything to pull waits.
pub const IDLE: Duration = Duration::from_millis(1);
/// Pulls out of one picture of a process's mappings.
const PULLS_A_PICTURE: u32 = 64;
/// Of so many pulls one is out of a mapping in which nothing ought to move.
const OTHER_MAPPING: u32 = 8;

/// The mappings of a process.
struct Picture {
    /// In which pages of the process's own can be.
    movable: Vec<Mapping>,
    others: Vec<Mapping>,
    pulls_left: u32,
}

/// Pulls, and counts.
pub struct Puller<'a> {
    context: &'a Context,
    most_pages: u64,
    rng: Rng,
    descendants: Descendants,
    processes: Vec<u32>,
    pictures: BTreeMap<u32, Picture>,
    next_look: Instant,
    /// What came of it.
    pub tally: Tally,
}

impl<'a> Puller<'a> {
    /// Pulls at most `most_pages` at a time out of the descendants of this process; equal seeds make
    /// equal choices where there is the same to choose from.
    pub fn new(context: &'a Context, most_pages: u64, seed: u64) -> Self {
        Puller {
            context,
            most_pages,
            rng: Rng::with_seed(seed),
            descendants: Descendants::default(),
            processes: Vec::new(),
            pictures: BTreeMap::new(),
            next_look: Instant::now(),
            tally: Tally::default(),
        }
    }

    /// Pulls one range; returns whether there was one.
    ///
    /// # Errors
    ///
    /// The device does not move pages any more.
    pub fn pull(&mut self) -> Result<bool, Error> {
        if Instant::now() >= self.next_look {
            self.look();
        }
        let Some(pid) = self.rng.choice(self.processes.iter().copied()) else {
            return Ok(false);
        };
        let Some(range) = self.choose(pid) else {
            return Ok(false);
        };
        let direction = if self.rng.bool() {
            Direction::ToDevice
        } else {
            Direction::ToSystem
        };
        match self.context.migrate_process(pid, range, direction) {
            Ok(migrated) => self.tally.add(direction, migrated),
            Err(error) => self.lost(pid, error)?,
        }
        Ok(true)
    }

    /// Takes note of new processes and forgets those that have ended.
    fn look(&mut self) {
        self.processes = self.descendants.look();
        let processes = &self.processes;
        self.pictures.retain(|pid, _| processes.contains(pid));
        self.tally.saw(processes);
        self.next_look = Instant::now() + LOOK_INTERVAL;
    }

    /// A range of the process, anywhere in one of its mappings. Half of the ranges are of less than
    /// 32 pages, whatever the limit, since small ones meet more borders.
    fn choose(&mut self, pid: u32) -> Option<PageRange> {
        let picture = match self.pictures.get_mut(&pid) {
            Some(picture) if picture.pulls_left > 0 => picture,
            _ => {
                // It may have ended.
                let picture = Picture::take(pid)?;
                self.pictures.insert(pid, picture);
                self.pictures.get_mut(&pid)?
            }
        };
        picture.pulls_left -= 1;
        let rng = &mut self.rng;
        let Picture {
            movable, others, ..
        } = picture;
        let other = !others.is_empty() && (movable.is_empty() || rng.u32(..OTHER_MAPPING) == 0);
        let mapping = rng.choice(if other { others } else { movable })?;
        Some(range_in(mapping.range, self.most_pages, rng))
    }

    /// What became of a pull that was refused.
    fn lost(&mut self, pid: u32, error: Error) -> Result<(), Error> {
        match error.errno() {
            // The program goes on and unmaps what was mapped when the picture was taken.
            libc::EFAULT | libc::EINVAL => {
                self.tally.vanished += 1;
                self.pictures.remove(&pid);
            }
            libc::ESRCH => self.processes.retain(|other| *other != pid),
            libc::ENOMEM => self.tally.no_memory += 1,
            // Its cpuset lacks the node, or it is one that not even root may look at; that says nothing of
            // the others.
            libc::EACCES | libc::EPERM => {
                self.tally.forbidden += 1;
                self.processes.retain(|other| *other != pid);
            }
            _ => return Err(error),
        }
        Ok(())
    }
}

impl Picture {
    fn take(pid: u32) -> Option<Self> {
        let mappings = maps::read(pid).ok()?;
        let (movable, others) = mappings
            .into_iter()
            .partition(Mapping::is_private_and_writable);
        Some(Picture {
            movable,
            others,
            pulls_left: PULLS_A_PICTURE,
        })
    }
}

/// Some pages out of `range`, at most `most`: as often from one to two as from 512 to 1024.
fn range_in(range: PageRange, most: u64, rng: &mut Rng) -> PageRange {
    let most = most.min(range.pages()).max(1);
    let scale = 1u64 << rng.u32(..=most.ilog2());
    let count = rng.u64(scale..=(2 * scale - 1).min(most));
    let first = rng.u64(..=range.pages().saturating_sub(count));
    PageRange::new(range.addr + first * PAGE_SIZE, count * PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_in_their_mapping_and_keep_the_limit() {
        let mut rng = Rng::with_seed(1);
        let mapping = PageRange::new(0x10000, 100 * PAGE_SIZE);
        let mut whole = false;
        for most in [1, 2, 100, 1024] {
            for _ in 0..1000 {
                let range = range_in(mapping, most, &mut rng);
                assert!(range.pages() >= 1 && range.pages() <= most.min(100));
                assert!(range.addr >= mapping.addr);
                assert!(range.addr + range.len <= mapping.addr + mapping.len);
                whole |= range == mapping;
            }
        }
        assert!(whole, "no range was the whole mapping");
    }

    #[test]
    fn equal_seeds_choose_alike() {
        let mapping = PageRange::new(0, 1000 * PAGE_SIZE);
        let choices = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50)
                .map(|_| range_in(mapping, 512, &mut rng).addr)
                .collect::<Vec<_>>()
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that conductor and workers share: counts, and what workers are asked for.

use anyhow::Result;

use crate::guest::memory::{Mapping, PAGE};
use crate::trial::event::Counts;

/// Workers, each with a place on the board.
pub const WORKERS: usize = 4;

/// What a worker counts; each has a word of its own in its place.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// Commands done.
    Commands,
    /// Pages moved on request.
    Moved,
    /// Refusals.
    Refused,
    /// Bytes compared.
    Verified,
    /// Bytes that were not what they have to be.
    Lost,
    /// Bytes that were not zero in fresh memory.
    Foreign,
    /// Programs begun.
    Programs,
    /// Times that the device was found gone and all memory right without it.
    Gone,
    /// The last epoch in which all memory was compared.
    Seen,
}

/// Bytes of a worker's place: no two share a cache line.
const PLACE: usize = 128;
/// The number of the epoch.
const EPOCH: usize = WORKERS * PLACE;
/// Not zero when workers are to end.
const END: usize = EPOCH + 64;
/// How far the victim is.
const VICTIM: usize = END + 64;

/// The board; it is the same in parent and children.
#[derive(Debug)]
pub struct Board(Mapping);

impl Board {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Board(Mapping::shared(PAGE)?))
    }

    /// Adds to a count of a worker.
    pub fn add(&self, worker: usize, count: Count, number: u64) {
        self.0.add(worker * PLACE + count as usize * 8, number);
    }

    /// A count of a worker.
    pub fn get(&self, worker: usize, count: Count) -> u64 {
        self.0.load(worker * PLACE + count as usize * 8)
    }

    /// Notes that the worker has compared all its memory in this epoch.
    pub fn set_seen(&self, worker: usize, epoch: u64) {
        self.0
            .store(worker * PLACE + Count::Seen as usize * 8, epoch);
    }

    /// The epoch: in each new one, workers compare all memory.
    pub fn epoch(&self) -> u64 {
        self.0.load(EPOCH)
    }

    /// Begins a new epoch.
    pub fn begin_epoch(&self) -> u64 {
        self.0.add(EPOCH, 1);
        self.epoch()
    }

    /// Whether workers are to end.
    pub fn has_ended(&self) -> bool {
        self.0.load(END) != 0
    }

    /// Has workers end, or lets new ones work.
    pub fn set_ended(&self, ended: bool) {
        self.0.store(END, ended.into());
    }

    /// How far the victim is; the numbers are the victim's.
    pub fn victim(&self) -> u64 {
        self.0.load(VICTIM)
    }

    /// Says how far the victim is, or is to be.
    pub fn set_victim(&self, step: u64) {
        self.0.store(VICTIM, step);
    }

    /// All workers' counts.
    pub fn sums(&self) -> Counts {
        let sum = |count| (0..WORKERS).map(|worker| self.get(worker, count)).sum();
        Counts {
            commands: sum(Count::Commands),
            moved: sum(Count::Moved),
            refused: sum(Count::Refused),
            verified: sum(Count::Verified),
            lost: sum(Count::Lost),
            foreign: sum(Count::Foreign),
            programs: sum(Count::Programs),
        }
    }
}

/// What was counted between two looks.
pub fn since(before: Counts, now: Counts) -> Counts {
    Counts {
        commands: now.commands - before.commands,
        moved: now.moved - before.moved,
        refused: now.refused - before.refused,
        verified: now.verified - before.verified,
        lost: now.lost - before.lost,
        foreign: now.foreign - before.foreign,
        programs: now.programs - before.programs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_workers_are_apart_and_are_summed() -> Result<()> {
        let board = Board::new()?;
        board.add(0, Count::Lost, 3);
        board.add(WORKERS - 1, Count::Lost, 4);
        board.add(1, Count::Foreign, 5);
        assert_eq!(board.get(0, Count::Lost), 3);
        let before = board.sums();
        assert_eq!((before.lost, before.foreign), (7, 5));
        board.add(1, Count::Lost, 1);
        assert_eq!(since(before, board.sums()).lost, 1);
        assert_eq!(board.begin_epoch(), 1);
        board.set_seen(2, 1);
        assert_eq!(
            (board.get(2, Count::Seen), board.get(1, Count::Seen)),
            (1, 0)
        );
        assert!(!board.has_ended());
        Ok(())
    }
}

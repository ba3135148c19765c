// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The workers: as soon as one has ended, by itself or by force, another takes its place.

use std::time::Duration;

use anyhow::{ensure, Result};

use super::board::{Board, Count, WORKERS};
use super::{while_storming, worker};
use crate::guest::process::{fork, Child};
use crate::guest::wait::on_this_kernel;
use crate::trial::rng::Rng;

/// Longest until each worker has compared all its memory, the device being well.
const EPOCH_LIMIT: Duration = Duration::from_secs(60);
/// Longest until each worker has had its error and has compared all its memory.
const GONE_LIMIT: Duration = Duration::from_secs(60);

/// The workers and what they have counted.
pub struct Crew {
    /// Counts.
    pub board: Board,
    workers: Vec<Option<Child>>,
    /// Killed, and not collected yet.
    leaving: Vec<Child>,
    rng: Rng,
    /// What went wrong since it was asked.
    problems: Vec<String>,
}

impl Crew {
    /// A crew at work.
    pub fn new(seed: u64) -> Result<Self> {
        let mut crew = Crew {
            board: Board::new()?,
            workers: (0..WORKERS).map(|_| None).collect(),
            leaving: Vec::new(),
            rng: Rng::new(seed, u64::MAX),
            problems: Vec::new(),
        };
        crew.tend()?;
        Ok(crew)
    }

    /// Collects those that have ended and starts others in their places.
    pub fn tend(&mut self) -> Result<()> {
        for place in 0..WORKERS {
            if let Some(worker) = self.workers[place].take() {
                if !worker.has_ended()? {
                    self.workers[place] = Some(worker);
                    continue;
                }
                if let Err(error) = worker.succeeds() {
                    self.problems.push(format!("worker {place}: {error:#}"));
                }
            }
            let (board, seed) = (&self.board, self.rng.next());
            self.workers[place] = Some(fork(|| worker::run(board, place, seed))?);
        }
        let mut left = Vec::new();
        for child in self.leaving.drain(..) {
            if child.has_ended()? {
                drop(child);
            } else {
                left.push(child);
            }
        }
        self.leaving = left;
        Ok(())
    }

    /// Kills a worker; it need not go at once.
    pub fn kill_one(&mut self) -> Result<()> {
        let place = self.rng.within(0..WORKERS);
        if let Some(worker) = self.workers[place].take() {
            worker.send_kill()?;
            self.leaving.push(worker);
        }
        self.tend()
    }

    /// Has every worker compare all its memory.
    pub fn verify(&mut self) -> Result<()> {
        let epoch = self.board.begin_epoch();
        let limit = on_this_kernel(EPOCH_LIMIT);
        let done = while_storming(self, limit, |crew| {
            let seen = |worker| crew.board.get(worker, Count::Seen) >= epoch;
            Ok((0..WORKERS).all(seen))
        })?;
        if !done {
            let behind = (0..WORKERS).filter(|w| self.board.get(*w, Count::Seen) < epoch);
            let behind: Vec<usize> = behind.collect();
            self.problems.push(format!(
                "workers {behind:?} have not come to compare their memory within {limit:?}"
            ));
        }
        Ok(())
    }

    /// How often each worker has found the device gone and its memory right.
    pub fn losses(&self) -> [u64; WORKERS] {
        std::array::from_fn(|worker| self.board.get(worker, Count::Gone))
    }

    /// Waits until each worker has done so since `before`.
    pub fn bear_loss(&mut self, before: [u64; WORKERS]) -> Result<()> {
        let limit = on_this_kernel(GONE_LIMIT);
        let done = while_storming(self, limit, |crew| {
            let losses = crew.losses();
            Ok(losses.iter().zip(&before).all(|(now, before)| now > before))
        })?;
        if !done {
            let losses = self.losses();
            self.problems.push(format!(
                "a worker has not had an error within {limit:?} of the device's going: {before:?} errors \
                 before, {losses:?} now"
            ));
        }
        Ok(())
    }

    /// Notes something wrong.
    pub fn complain(&mut self, text: String) {
        self.problems.push(text);
    }

    /// What went wrong since it was last asked.
    pub fn problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    /// Ends all workers, which compare all their memory once more.
    pub fn dismiss(self) -> Result<()> {
        self.board.set_ended(true);
        for worker in self.workers.into_iter().flatten() {
            worker.succeeds()?;
        }
        ensure!(self.problems.is_empty(), "{}", self.problems.join("\n"));
        Ok(())
    }
}

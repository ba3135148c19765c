// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Giving the processor up between two steps rather than in one.
//!
//! Where there are more threads than processors, an engine's thread that is busy loses its processor
//! when its time slice is over: in the middle of a step, nearly always. Whoever waits for that step
//! then waits until it has a processor again, for milliseconds. So while translations are being taken
//! away it offers its processor to others before the slice is over, when no step is in progress. That
//! costs nothing where nobody else wants it, and some of the engine's share where somebody does.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// Between two offers; slices of Linux are from 700 µs to some milliseconds.
const TURN: Duration = Duration::from_micros(500);
/// How long after an invalidation the next one is expected.
const EXPECTED: Duration = Duration::from_millis(20);

/// An engine's thread between two offers.
#[derive(Debug)]
pub struct Turn {
    since: Instant,
    invalidations: u64,
    /// When the last invalidation was seen, if there was any.
    last: Option<Instant>,
}

impl Turn {
    /// A turn that begins, when there have been so many invalidations.
    pub fn new(now: Instant, invalidations: u64) -> Self {
        Self {
            since: now,
            invalidations,
            last: None,
        }
    }

    /// Whether others have their turn before the next step; the next turn begins then.
    pub fn is_over(&mut self, now: Instant, invalidations: u64) -> bool {
        if std::mem::replace(&mut self.invalidations, invalidations) != invalidations {
            self.last = Some(now);
        }
        let over = now.duration_since(self.since) >= TURN;
        if over {
            self.since = now;
        }
        over && self
            .last
            .is_some_and(|last| now.duration_since(last) <= EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_have_their_turn_while_invalidations_come() {
        let begin = Instant::now();
        let mut turn = Turn::new(begin, 7);
        // Nobody waits for this one.
        assert!(!turn.is_over(begin + TURN, 7));
        assert!(!turn.is_over(begin + TURN + TURN / 2, 8));
        assert!(turn.is_over(begin + 2 * TURN, 8));
        assert!(!turn.is_over(begin + 2 * TURN, 8));
        assert!(turn.is_over(begin + 3 * TURN, 8));
        assert!(!turn.is_over(begin + EXPECTED + 2 * TURN, 8));
    }
}

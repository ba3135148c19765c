// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looking a while longer for work before going to sleep.
//!
//! A doorbell is an exit of the guest and the wake-up of a thread. Where the next chain comes sooner
//! than that takes, looking for it is cheaper; where it does not, looking only takes the processor
//! from those that would send it. So it is done only while it would have been worth it last time.
#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How long the next chain of a queue is looked for.
#[derive(Debug)]
pub struct Linger {
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when the queue has been empty, if it is.
    empty_since: Option<Instant>,
    /// The last chain came soon.
    worth_it: bool,
}

impl Linger {
    /// Looks for `longest`, if the last chain came within that.
    pub fn new(longest: Duration) -> Self {
        Self {
            longest,
            state: Mutex::default(),
        }
    }

    /// The queue is not empty.
    pub fn came(&self) {
        let mut state = lock(&self.state);
        if let Some(since) = state.empty_since.take() {
            state.worth_it = since.elapsed() < self.longest;
        }
    }

    /// The queue is empty; waits until `came` is true, if it is worth it, and tells whether it is.
    /// Other threads run meanwhile if they want to.
    pub fn look(&self, mut came: impl FnMut() -> bool) -> bool {
        let mut state = lock(&self.state);
        let since = *state.empty_since.get_or_insert_with(Instant::now);
        if !state.worth_it {
            return false;
        }
        while since.elapsed() < self.longest {
            if came() {
                return true;
            }
            thread::yield_now();
        }
        state.worth_it = false;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_only_while_the_last_chain_came_soon() {
        let linger = Linger::new(Duration::from_secs(100));
        assert!(!linger.look(|| true));
        linger.came();
        assert!(linger.look(|| true));
        linger.came();
        assert!(linger.look(|| true));

        let never = Linger::new(Duration::ZERO);
        assert!(!never.look(|| true));
        never.came();
        assert!(!never.look(|| true));
    }
}

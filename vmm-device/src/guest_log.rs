// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Log of guest mistakes, limited in rate so that a guest cannot fill the host's disk.
//!
//! Every mistake counts in the statistics, also when its line is left out.
#![forbid(unsafe_code)]

use std::fmt::Arguments;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Lines written without delay; enough to see a pattern.
const BURST: u32 = 10;
/// Time after which another burst may be written.
const INTERVAL: Duration = Duration::from_secs(5);

/// Limits the lines of one device.
#[derive(Debug)]
pub struct GuestLog {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Default for GuestLog {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                since: Instant::now(),
                written: 0,
                left_out: 0,
            }),
        }
    }
}

impl GuestLog {
    /// Writes a warning unless too many were written lately.
    pub fn warn(&self, message: Arguments<'_>) {
        if let Some(left_out) = self.admit(Instant::now()) {
            if left_out > 0 {
                log::warn!("guest: {left_out} messages left out");
            }
            log::warn!("guest: {message}");
        }
    }

    /// Tells whether a line may be written, and how many were left out before it.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        if now.saturating_duration_since(state.since) >= INTERVAL {
            state.since = now;
            state.written = 0;
        }
        if state.written == BURST {
            state.left_out += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_written_and_the_rest_counted_until_the_interval_ends() {
        let log = GuestLog::default();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(log.admit(start), Some(0));
        }
        assert_eq!(log.admit(start), None);
        assert_eq!(log.admit(start), None);
        assert_eq!(log.admit(start + INTERVAL), Some(2));
        assert_eq!(log.admit(start + INTERVAL), Some(0));
    }
}

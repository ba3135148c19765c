// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shows on standard error how far a long step is, and how long it may still take.
//!
//! On a terminal one line is rewritten; elsewhere a line is written now and then, so that a
//! log shows life without drowning. Where it is part of a [`Whole`], that shows how far all is.

mod estimate;
mod whole;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use coax_program::{errln, output};

pub use estimate::{minutes, Expected};
pub use whole::{say, Whole};

/// Between two writings on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// An estimate from less than this much of the work would jump about.
const LEAST_SHARE: f64 = 0.03;

/// A step under way.
#[derive(Debug)]
pub struct Progress {
    title: String,
    started: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Announces a step.
    pub fn start(title: &str) -> Self {
        let mut progress = Progress {
            title: title.to_owned(),
            started: Instant::now(),
            shown: None,
            terminal: is_terminal(),
        };
        whole::begin(title);
        progress.write(&format!("{title} …"), false);
        progress
    }

    /// Says that `done` of `total` units are done; `total` may be an estimate.
    pub fn update(&mut self, done: u64, total: u64) {
        if whole::is_under_way() {
            return whole::update(&self.title, done as f64 / total.max(1) as f64);
        }
        let interval = if self.terminal {
            TERMINAL_INTERVAL
        } else {
            LOG_INTERVAL
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < interval) {
            return;
        }
        let text = describe(&self.title, done, total, self.started.elapsed());
        self.write(&text, false);
    }

    /// Makes room for a line of something else, after which the step goes on.
    pub fn make_room(&mut self) {
        if self.terminal {
            self.write("", false);
            self.shown = None;
        }
    }

    /// Says that the step is done.
    pub fn finish(mut self) {
        whole::end(&self.title, true);
        let text = format!(
            "{}: done in {}",
            self.title,
            seconds(self.started.elapsed())
        );
        self.write(&text, true);
    }

    /// Leaves the step's line as it is, for what is written next.
    pub fn abandon(self) {
        whole::end(&self.title, false);
        if self.terminal && !whole::takes_lines() {
            errln!();
        }
    }

    fn write(&mut self, text: &str, last: bool) {
        if whole::takes_lines() {
            return;
        }
        self.shown = Some(Instant::now());
        let (start, end) = match (self.terminal, last) {
            (true, false) => ("\r\x1b[K", ""),
            (true, true) => ("\r\x1b[K", "\n"),
            (false, _) => ("", "\n"),
        };
        write(&format!("{start}{text}{end}"));
    }
}

fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

fn write(text: &str) {
    output::complain(format_args!("{text}"));
}

/// One line: share done, time spent, and time left when that can be told.
fn describe(title: &str, done: u64, total: u64, elapsed: Duration) -> String {
    if total == 0 {
        return format!("{title}: {}", seconds(elapsed));
    }
    // More than the estimate was needed: nearly done is all that is known.
    let share = (done as f64 / total as f64).min(0.99);
    let percent = share * 100.0;
    if share < LEAST_SHARE {
        return format!("{title}: {percent:.0} %, {}", seconds(elapsed));
    }
    let left = elapsed.mul_f64((1.0 - share) / share);
    format!(
        "{title}: {percent:.0} %, {}, about {} left",
        seconds(elapsed),
        seconds(left)
    )
}

/// `42 s` or `3 min 20 s`.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        short if short < 60 => format!("{short} s"),
        long => format!("{} min {} s", long / 60, long % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimate_is_in_proportion() {
        let text = describe("kernel", 25, 100, Duration::from_secs(60));
        assert_eq!(text, "kernel: 25 %, 1 min 0 s, about 3 min 0 s left");
    }

    #[test]
    fn no_estimate_at_the_very_start_and_none_beyond_the_end() {
        assert_eq!(describe("x", 1, 100, Duration::from_secs(1)), "x: 1 %, 1 s");
        assert!(describe("x", 150, 100, Duration::from_secs(99)).starts_with("x: 99 %"));
        assert_eq!(describe("x", 5, 0, Duration::from_secs(5)), "x: 5 s");
    }
}

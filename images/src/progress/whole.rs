// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The progress of work of many parts, several of which are under way at once, with an estimate of its end.
//!
//! Parts tell it of themselves by being a [`Progress`](super::Progress) of some title. On a terminal one line
//! shows all; elsewhere one is written now and then, between those of the parts. Each estimate goes to a log
//! with the time at which it was made, and the real end behind them.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::termios::tcgetwinsize;

use super::estimate::{Estimate, Expected};
use super::{seconds, write};
use crate::cache;
use crate::tool;

/// Between two looks at a terminal's line.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two lines elsewhere, and in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Where the script `coax` says when it began to build this program, in seconds of the epoch, if it did.
const BUILD_BEGAN: &str = "COAX_BUILD_BEGAN";
/// How long that took on the machine that the parts were measured on.
const BUILD_SECONDS: f64 = 65.0;

/// The one that is under way.
static NOW: Mutex<Option<State>> = Mutex::new(None);

struct State {
    title: &'static str,
    estimate: Estimate,
    started: Instant,
    /// Titles of parts under way, in the order in which they began.
    under_way: Vec<String>,
    terminal: bool,
    logged: Option<Instant>,
    log: Option<File>,
}

/// Work under way; it ends with this value.
#[derive(Debug)]
pub struct Whole {
    stop: Option<Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

fn lock() -> MutexGuard<'static, Option<State>> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Whole {
    /// Announces work of these parts; those that are there already are none.
    pub fn start(title: &'static str, expected: Vec<Expected>) -> Self {
        let processors = tool::jobs() as f64;
        let log = cache::root().and_then(|root| {
            cache::make_folder(&root)?;
            Ok(File::create(root.join("progress.log"))?)
        });
        *lock() = Some(State {
            title,
            estimate: Estimate::new(expected, processors, prior()),
            started: Instant::now(),
            under_way: Vec::new(),
            terminal: super::is_terminal(),
            logged: None,
            // What cannot be logged is shown all the same.
            log: log.ok(),
        });
        let (stop, stopped) = mpsc::channel();
        let ticker = thread::spawn(move || loop {
            if let Some(state) = lock().as_mut() {
                state.show();
            }
            match stopped.recv_timeout(TERMINAL_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
        });
        Whole {
            stop: Some(stop),
            ticker: Some(ticker),
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(ticker) = self.ticker.take() {
            // It only shows.
            let _ = ticker.join();
        }
        if let Some(mut state) = lock().take() {
            state.end();
        }
    }
}

/// By how much slower this machine is than the measured one, as far as that is known at the start.
fn prior() -> f64 {
    let began = std::env::var(BUILD_BEGAN).ok();
    let began = began.and_then(|text| text.parse::<f64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (Some(began), Ok(now)) = (began, now) else {
        return 1.0;
    };
    ((now.as_secs_f64() - began) / BUILD_SECONDS).clamp(0.2, 10.0)
}

/// Whether a part's own line goes on one that shows all: nothing more of it is to be shown now.
pub fn takes_lines() -> bool {
    lock().as_ref().is_some_and(|state| state.terminal)
}

/// Whether there is one, whose lines tell how far all is.
pub fn is_under_way() -> bool {
    lock().is_some()
}

/// A part begins.
pub fn begin(title: &str) {
    if let Some(state) = lock().as_mut() {
        let now = state.started.elapsed();
        state.estimate.begin(title, now.as_secs_f64());
        state.under_way.push(title.to_owned());
    }
}

/// It has done this share.
pub fn update(title: &str, share: f64) {
    if let Some(state) = lock().as_mut() {
        state.estimate.update(title, share);
    }
}

/// It has ended; well, if `done`.
pub fn end(title: &str, done: bool) {
    if let Some(state) = lock().as_mut() {
        state.under_way.retain(|other| other != title);
        if done {
            state.estimate.finish(title);
        }
    }
}

/// Writes lines of something else, above the one that shows all.
pub fn say(text: &str) {
    let now = lock();
    let terminal = now.as_ref().is_some_and(|state| state.terminal);
    let start = if terminal { "\r\x1b[K" } else { "" };
    write(&format!("{start}{text}\n"));
}

impl State {
    fn show(&mut self) {
        let now = self.started.elapsed();
        let (share, rest) = self.estimate.rest(now);
        let line = format!(
            "{}: {:.0} %, {}, about {} left",
            self.title,
            (share * 100.0).min(99.0),
            seconds(now),
            seconds(rest)
        );
        let is_due = self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.logged = Some(Instant::now());
            let (at, left) = (now.as_secs(), rest.as_secs());
            self.log(&format!(
                "at {at} s: {left} s left, so the end at {} s",
                at + left
            ));
        }
        if self.terminal {
            let all = format!("{line} ({})", self.under_way.join("; "));
            write(&format!("\r\x1b[K{}", fitting(&all)));
        } else if is_due {
            write(&format!("{line}\n"));
        }
    }

    fn end(&mut self) {
        let took = self.started.elapsed();
        self.log(&format!("ended at {} s", took.as_secs()));
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        write(&format!("{start}{}: {}\n", self.title, seconds(took)));
    }

    fn log(&mut self, line: &str) {
        if let Some(log) = &mut self.log {
            // It has been shown.
            let _ = writeln!(log, "{line}");
        }
    }
}

/// As much of a line as the terminal has room for.
fn fitting(line: &str) -> String {
    let columns = tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let columns = if columns == 0 { 80 } else { columns };
    line.chars().take(columns - 1).collect()
}

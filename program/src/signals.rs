// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals, as a program is given them and as it ends by them.
//!
//! A signal ignored when a program starts (`nohup`, `trap '' INT`, the background of a shell) is to stay
//! so, and programs that it starts get it so by themselves. What there was of SIGPIPE cannot be told:
//! Rust's own start ignores it, and sets it back for programs that are started.

use std::fs;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use nix::sys::signal::Signal;

use crate::status;

/// Those by which a user ends a program that would go on.
const ENDS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Whether a signal was ignored when the program started. The first call must come before handlers are
/// installed; without `/proc` none was.
pub fn ignored(signal: Signal) -> bool {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    let mask = IGNORED.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        ignored_in(&status).unwrap_or(0)
    });
    has(*mask, signal)
}

/// The mask of ignored signals in a process's `status` file.
fn ignored_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn has(mask: u64, signal: Signal) -> bool {
    mask >> (signal as u32 - 1) & 1 != 0
}

/// The signals that are to end this program: SIGINT, SIGTERM and SIGHUP unless they were ignored.
pub fn that_end() -> Vec<Signal> {
    let ends = ENDS.into_iter();
    ends.filter(|signal| !ignored(*signal)).collect()
}

/// Lets this program wait for its children, which the kernel collects itself while SIGCHLD is ignored.
/// Its children get SIGCHLD as it is by default, which they need as well.
///
/// # Errors
///
/// Those of `sigaction(2)`.
pub fn allow_waiting() -> io::Result<()> {
    if ignored(Signal::SIGCHLD) {
        signal_hook::flag::register(Signal::SIGCHLD as i32, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// Ends this program by a signal, so that who waits for it sees which one it was.
pub fn die_of(signal: Signal) -> ! {
    die_of_number(signal as i32)
}

/// Ends this program by a signal, a real-time one too.
pub fn die_of_number(signal: i32) -> ! {
    // Both return only for signals that do not end a process.
    if signal_hook::low_level::emulate_default_handler(signal).is_err() {
        // It knows no real-time signals, for which nobody has installed a handler.
        let _ = signal_hook::low_level::raise(signal);
    }
    std::process::exit(i32::from(status::of_signal(signal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status_file() {
        let mask = ignored_in("Name:\tx\nSigIgn:\t0000000000011001\nSigCgt:\t0\n");
        let mask = mask.expect("it is there");
        assert!(has(mask, Signal::SIGHUP));
        assert!(has(mask, Signal::SIGCHLD));
        assert!(has(mask, Signal::SIGPIPE));
        assert!(!has(mask, Signal::SIGINT));
        assert_eq!(ignored_in("SigIgn:\tno number\n"), None);
    }
}

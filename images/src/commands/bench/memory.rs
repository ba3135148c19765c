// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Watches a process's memory besides what it shares with a guest.

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// Between two looks: a command of a megabyte takes longer.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks at a process's memory until it is asked.
pub struct MemoryWatch {
    // Dropping the sender ends the thread.
    stop: Sender<()>,
    thread: JoinHandle<Option<f64>>,
}

impl MemoryWatch {
    /// Starts watching.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn start(process: u32) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("memory".into()).spawn(move || {
            let mut most: Option<f64> = None;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Some(now) = own_memory_mib(process) {
                    most = Some(most.map_or(now, |most| most.max(now)));
                }
            }
            most
        });
        Ok(MemoryWatch {
            stop,
            thread: thread.context("Cannot start a thread")?,
        })
    }

    /// The most that was seen, in MiB; `None` when nothing was.
    pub fn most_mib(self) -> Option<f64> {
        drop(self.stop);
        self.thread.join().ok().flatten()
    }
}

fn own_memory_mib(process: u32) -> Option<f64> {
    parse_own_memory(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

/// `RssAnon` and `RssFile` of `/proc/PID/status`; guest memory is `RssShmem`.
fn parse_own_memory(status: &str) -> Option<f64> {
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((field("RssAnon:")? + field("RssFile:")?) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_guest_memory_is_not_counted() {
        let status =
            "VmRSS:\t 9000 kB\nRssAnon:\t 2048 kB\nRssFile:\t 1024 kB\nRssShmem:\t 5928 kB\n";
        assert_eq!(parse_own_memory(status), Some(3.0));
        assert_eq!(parse_own_memory("VmRSS: 1 kB"), None);
    }

    #[test]
    fn a_process_that_lives_has_memory() {
        assert!(own_memory_mib(std::process::id()).is_some_and(|now| now > 0.0));
    }
}

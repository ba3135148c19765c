// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The standard error, without waiting for whoever reads it.
//!
//! Device threads log what a guest does wrong. If they waited for a parent that does not read its
//! pipe, or a terminal that is held, the guest's invalidations would wait with them. Lines that
//! cannot be written at once are left out and counted.
#![forbid(unsafe_code)]

use std::fmt::Arguments;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};

use rustix::event::{poll, PollFd, PollFlags, Timespec};

/// Longest line: what a pipe that can be written takes in one piece, `PIPE_BUF` of Linux.
const MAX_LINE: usize = 4096;

/// Where the logger writes its lines.
#[derive(Debug, Default)]
pub struct ErrorOutput;

impl Write for ErrorOutput {
    /// Takes one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Locked by this file alone, for a write that does not wait.
        static STATE: Mutex<Option<State>> = Mutex::new(None);
        STATE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(State::new)
            .write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one line.
pub fn write_line(line: Arguments<'_>) {
    let line = format!("{line}\n");
    // It never fails.
    let _ = ErrorOutput.write(line.as_bytes());
}

#[derive(Debug)]
struct State {
    /// The pipe once more, opened so that writing never waits. A pipe may have other writers,
    /// who fill it between a look and a write.
    pipe: Option<File>,
    left_out: u64,
}

impl State {
    fn new() -> Self {
        Self {
            pipe: open_pipe(),
            left_out: 0,
        }
    }

    fn write(&mut self, line: &[u8]) {
        if self.left_out > 0 {
            let note = format!("vhost-device-coax: {} lines left out\n", self.left_out);
            if !self.try_write(note.as_bytes()) {
                self.left_out += 1;
                return;
            }
            self.left_out = 0;
        }
        if !self.try_write(line) {
            self.left_out = 1;
        }
    }

    /// False if it would have to wait. Lines that nobody can ever read count as written.
    fn try_write(&self, line: &[u8]) -> bool {
        let line = &line[..line.len().min(MAX_LINE)];
        let result = match &self.pipe {
            Some(pipe) => (&*pipe).write(line),
            None if can_be_written(io::stderr().as_fd()) => io::stderr().write(line),
            None => return false,
        };
        !result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

fn can_be_written(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    // Broken descriptors can be written as well: that is an error at once.
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn open_pipe() -> Option<File> {
    const PATH: &str = "/proc/self/fd/2";
    // Only pipes: a file would get an offset of its own.
    let is_pipe = std::fs::metadata(PATH).is_ok_and(|it| it.file_type().is_fifo());
    is_pipe.then_some(())?;
    File::options()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(PATH)
        .ok()
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading and writing descriptors that others share.
//!
//! `O_NONBLOCK` belongs to the open file, which a shell, a pipeline or an event loop hands on with it.
//! Such a file is none the less read and written to its end here: what is not ready is waited for.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

/// A descriptor on which every call waits until it can do something.
#[derive(Debug)]
pub struct Waiting<F>(pub F);

impl<F: AsFd> Waiting<F> {
    fn retried(
        &self,
        event: PollFlags,
        mut call: impl FnMut(&F) -> nix::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match call(&self.0) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait(event)?,
                other => return Ok(other?),
            }
        }
    }

    fn wait(&self, event: PollFlags) -> io::Result<()> {
        let mut waited = [PollFd::new(self.0.as_fd(), event)];
        match poll(&mut waited, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl<F: AsFd> Read for Waiting<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retried(PollFlags::POLLIN, |fd| nix::unistd::read(fd, buffer))
    }
}

impl<F: AsFd> Write for Waiting<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retried(PollFlags::POLLOUT, |fd| nix::unistd::write(fd, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// Far more than a socket holds.
    const BYTES: usize = 4 << 20;

    #[test]
    fn a_stream_that_does_not_block_loses_nothing() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        for end in [&reader, &writer] {
            end.set_nonblocking(true).expect("it can be set");
        }
        let data: Vec<u8> = (0..BYTES).map(|i| i.to_le_bytes()[1]).collect();
        let (sent, received) = thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let result = Waiting(&writer).write_all(&data);
                writer
                    .shutdown(std::net::Shutdown::Write)
                    .expect("it is open");
                result
            });
            let mut received = Vec::new();
            Waiting(&reader)
                .read_to_end(&mut received)
                .expect("it can be read");
            (sent.join().expect("no panic"), received)
        });
        assert!(sent.is_ok());
        assert!(received == data);
    }

    #[test]
    fn errors_of_writing_are_told() {
        let full = File::options().write(true).open("/dev/full");
        let error = Waiting(full.expect("every Linux has it"))
            .write_all(b"x")
            .expect_err("it is full");
        assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC as i32));
    }
}

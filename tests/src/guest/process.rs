// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Child processes of a case.

use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use coax_program::errln;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{ForkResult, Pid};

use super::wait::event_limit;
use crate::case::CaseResult;

/// A forked child; it is killed and collected when this value goes.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    collected: bool,
}

/// Runs `body` in a forked child, which ends with status 0 if it succeeds. A failure is printed
/// and ends it with status 1.
pub fn fork(body: impl FnOnce() -> CaseResult) -> Result<Child> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .context("/proc/self/task")?
        .count();
    ensure!(
        tasks == 1,
        "Fork with {tasks} threads: locks could stay locked in the child"
    );
    match raw_fork().context("fork")? {
        ForkResult::Parent { child } => Ok(Child {
            pid: child,
            pidfd: pidfd_of(child.as_raw().unsigned_abs())?,
            collected: false,
        }),
        ForkResult::Child => {
            let status = match body() {
                Ok(()) => 0,
                Err(error) => {
                    // The parent sees the status even if this line cannot be written.
                    errln!("child: {error:#}");
                    1
                }
            };
            exit_now(status)
        }
    }
}

// UNSAFETY: `fork` has no safe form.
#[expect(unsafe_code)]
fn raw_fork() -> nix::Result<ForkResult> {
    // SAFETY: there is one thread only (checked by the caller), so the child's copy of the
    // process is consistent.
    unsafe { nix::unistd::fork() }
}

/// A descriptor that is readable when the process has ended.
// UNSAFETY: neither libc nor nix has a safe `pidfd_open`.
#[expect(unsafe_code)]
pub fn pidfd_of(pid: u32) -> Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    ensure!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: the call made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

// UNSAFETY: a forked child must not run the parent's exit handlers.
#[expect(unsafe_code)]
fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` only ends the process.
    unsafe { libc::_exit(status) }
}

impl Child {
    /// Waits for the child's end.
    fn collect(&mut self) -> Result<WaitStatus> {
        ensure!(
            readable(self.pidfd.as_fd(), event_limit())?,
            "Child runs after {:?}",
            event_limit()
        );
        let status = waitpid(self.pid, None).context("waitpid")?;
        self.collected = true;
        Ok(status)
    }

    /// Waits for the child and demands that its body succeeded.
    pub fn succeeds(mut self) -> Result<()> {
        match self.collect()? {
            WaitStatus::Exited(_, 0) => Ok(()),
            status => bail!("Child ended with {status:?}"),
        }
    }

    /// Waits for the child and demands that this signal ended it.
    pub fn dies_of(mut self, signal: Signal) -> Result<()> {
        match self.collect()? {
            WaitStatus::Signaled(_, got, _) if got == signal => Ok(()),
            status => bail!("Child ended with {status:?}, expected {signal}"),
        }
    }

    /// Whether the child has ended.
    pub fn has_ended(&self) -> Result<bool> {
        readable(self.pidfd.as_fd(), Duration::ZERO)
    }

    /// Kills the child, which need not go at once.
    pub fn send_kill(&self) -> Result<()> {
        nix::sys::signal::kill(self.pid, Signal::SIGKILL).context("kill")
    }

    /// Kills the child and waits until it is gone.
    pub fn kill(self) -> Result<()> {
        nix::sys::signal::kill(self.pid, Signal::SIGKILL).context("kill")?;
        self.dies_of(Signal::SIGKILL)
    }

    /// Process number.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.collected {
            // Errors mean that it is gone already; the runner ends what still lives.
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
            let _ = self.collect();
        }
    }
}

/// Whether the descriptor becomes readable within the limit.
pub fn readable(fd: std::os::fd::BorrowedFd<'_>, limit: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(limit).context("Limit of poll")?;
    Ok(poll(&mut fds, timeout).context("poll")? > 0)
}

/// One end of a line between parent and child, on which steps are announced.
#[derive(Debug)]
pub struct Line(UnixStream);

/// Both ends; make it before the fork.
pub fn line() -> Result<(Line, Line)> {
    let (one, other) = UnixStream::pair().context("socketpair")?;
    for end in [&one, &other] {
        end.set_read_timeout(Some(event_limit()))
            .context("Receive time-out")?;
    }
    Ok((Line(one), Line(other)))
}

impl Line {
    /// Announces that this side has reached the step.
    pub fn announce(&self, step: u8) -> Result<()> {
        (&self.0)
            .write_all(&[step])
            .with_context(|| format!("Announcing step {step}"))
    }

    /// Waits until the other side has reached the step.
    pub fn await_step(&self, step: u8) -> Result<()> {
        let mut got = [0];
        (&self.0)
            .read_exact(&mut got)
            .with_context(|| format!("Waiting for step {step} of the other process"))?;
        ensure!(got == [step], "Step {} where {step} was expected", got[0]);
        Ok(())
    }
}

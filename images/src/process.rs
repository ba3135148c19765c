// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Children in process groups of their own, none of which outlives its owner.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use rustix::process::{waitid, WaitId, WaitIdOptions};

use coax_program::signals;

/// Process groups alive with what ends them, for [`end_children_on_signals`].
static GROUPS: Mutex<Vec<(Pid, Signal)>> = Mutex::new(Vec::new());

/// How often an end is looked for where the system offers no event to wait for.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// A child that leads a process group; dropping it ends the group.
#[derive(Debug)]
pub struct Group {
    child: Child,
    pid: Pid,
    end: Signal,
    ended: Option<ExitStatus>,
}

impl Group {
    /// Starts `command` in a group of its own, which the signal `end` ends: `SIGKILL` for
    /// programs that leave nothing behind, `SIGTERM` for those that tidy up.
    ///
    /// # Errors
    ///
    /// Those of the start.
    pub fn start(command: &mut Command, end: Signal) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        GROUPS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((pid, end));
        Ok(Group {
            child,
            pid,
            end,
            ended: None,
        })
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until the child has ended.
    ///
    /// # Errors
    ///
    /// Those of `waitpid(2)`.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Waits until the child has ended, and kills what it has left behind in its group.
    ///
    /// # Errors
    ///
    /// Those of `waitid(2)`.
    pub fn wait_and_clear(&mut self) -> io::Result<ExitStatus> {
        // Until the child is collected nobody else's group can have its number.
        let child = rustix::process::Pid::from_child(&self.child);
        waitid(
            WaitId::Pid(child),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        )?;
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    /// Waits until the child has ended, at most `limit`; `None` when it has not.
    ///
    /// # Errors
    ///
    /// Those of `waitpid(2)`.
    pub fn wait_at_most(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if self.ended.is_none() {
                self.ended = self.child.try_wait()?;
            }
            if self.ended.is_some() || start.elapsed() >= limit {
                return Ok(self.ended);
            }
            thread::sleep(CHECK_INTERVAL);
        }
    }

    /// Sends `signal` to the whole group; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // Fails only when the group has ended in between, which is what was wanted.
            let _ = killpg(self.pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(self.end);
        // No zombie is left.
        let _ = self.child.wait();
        GROUPS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(pid, _)| *pid != self.pid);
    }
}

/// Lets SIGINT, SIGTERM and SIGHUP, unless they were ignored, end this program with all its children:
/// they live in process groups of their own, which a terminal's Ctrl-C does not reach.
///
/// # Errors
///
/// Those of `sigaction(2)`.
pub fn end_children_on_signals() -> io::Result<()> {
    let ends = signals::that_end();
    let mut ends = signal_hook::iterator::Signals::new(ends.iter().map(|end| *end as i32))?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(Ok(signal)) = ends.forever().next().map(Signal::try_from) {
                end_children();
                signals::die_of(signal);
            }
        })?;
    Ok(())
}

/// Ends all children that live in groups of their own.
pub fn end_groups() {
    for (pid, end) in GROUPS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = killpg(*pid, *end);
    }
}

/// Ends all children, and what else must not stay when this program ends at once.
pub fn end_children() {
    end_groups();
    crate::launch::restore_terminal();
    crate::temporary::remove_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_group_ends_a_child_that_would_stay() {
        let group = Group::start(Command::new("sleep").arg("1000"), Signal::SIGKILL)
            .expect("sleep is everywhere");
        let pid = group.pid;
        drop(group);
        assert_eq!(killpg(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn an_end_by_a_real_time_signal_is_an_end() {
        use std::os::unix::process::ExitStatusExt as _;
        let mut command = Command::new("sh");
        command.args(["-c", "kill -40 $$"]);
        let mut group = Group::start(&mut command, Signal::SIGKILL).expect("sh is everywhere");
        let status = group.wait_and_clear().expect("it is our child");
        assert_eq!(status.signal(), Some(40));
    }

    #[test]
    fn wait_gives_up_at_its_limit_and_later_gives_the_status() {
        let mut group =
            Group::start(Command::new("sleep").arg("1000"), Signal::SIGKILL).expect("sleep exists");
        let early = group
            .wait_at_most(Duration::from_millis(10))
            .expect("it is our child");
        assert_eq!(early, None);
        group.signal(Signal::SIGTERM);
        let status = group
            .wait_at_most(Duration::from_secs(10))
            .expect("it is our child");
        assert!(status.is_some_and(|status| !status.success()));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a thread serves its queues, and those who wait until it does not.
//!
//! A thread *enters* to serve and leaves between two events. Who stops it enters as well and comes
//! first, so that it is out when he is in. It leaves after a step when its queues are stopped. One
//! that does not leave may be writing the guest's memory: nobody can be told that it has stopped,
//! and the process ends.
#![forbid(unsafe_code)]

use crate::sync::{lock, wait, when, Condvar, Mutex};

/// The door to a thread's queues.
#[derive(Debug, Default)]
pub struct Serving {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: bool,
    /// Those who wait to stop the thread.
    stopping: u32,
}

/// A stay; it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Inside<'s>(&'s Serving);

impl Serving {
    /// Enters to serve, when nobody stops the thread.
    pub fn enter(&self) -> Inside<'_> {
        let may = |state: &State| !state.inside && state.stopping == 0;
        wait(&self.changed, &self.state, may).inside = true;
        Inside(self)
    }

    /// Enters when the thread has left, and keeps it out. If it does not leave, the process ends.
    pub fn stop(&self) -> Inside<'_> {
        lock(&self.state).stopping += 1;
        let left = |state: &State| !state.inside;
        let mut state = when(&self.changed, &self.state, "stop of a queue", left);
        state.stopping -= 1;
        state.inside = true;
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).inside = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;
    use crate::fail_stop::tests::said_at_the_end;

    #[test]
    fn thread_that_serves_without_a_pause_is_stopped() {
        let (serving, served) = (Serving::default(), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while served.load(Ordering::Relaxed) < u32::MAX / 2 {
                    let _inside = serving.enter();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
            for _ in 0..10 {
                let before = served.load(Ordering::Relaxed);
                while served.load(Ordering::Relaxed) == before {
                    thread::yield_now();
                }
                let stopped = serving.stop();
                let count = served.load(Ordering::Relaxed);
                for _ in 0..10 {
                    thread::yield_now();
                }
                assert_eq!(served.load(Ordering::Relaxed), count);
                drop(stopped);
            }
            served.store(u32::MAX / 2, Ordering::Relaxed);
        });
    }

    #[test]
    fn thread_that_does_not_leave_ends_the_process() {
        let name = "transport::serving::tests::thread_that_does_not_leave_ends_the_process";
        let said = said_at_the_end(name, || {
            let serving = Serving::default();
            let _inside = serving.enter();
            drop(serving.stop());
        });
        assert!(said.contains("stop of a queue: not within 1s"), "{said}");
    }
}

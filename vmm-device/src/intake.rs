// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Making sure that the engines have seen what is in their queues.
//!
//! A reset, and the closing of a context, end all commands that the driver submitted before,
//! also those that no engine has taken yet. They therefore have each engine take what is in its
//! queue first, and abort then.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::fail_stop;
use crate::sync::{lock, wait_until};

/// Longest wait for the engines: they look after every step, which takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// How often a look was wanted, and which of these each engine has done.
#[derive(Debug)]
pub struct Intake {
    wanted: AtomicU64,
    done: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Intake {
    /// Nothing wanted of `engines` engines.
    pub fn new(engines: u16) -> Self {
        Self {
            wanted: AtomicU64::new(0),
            done: Mutex::new(vec![0; engines.into()]),
            changed: Condvar::new(),
        }
    }

    /// Waits until every engine has taken all that is in its queue now. `wake` must have each
    /// engine look.
    pub fn wait(&self, wake: impl FnOnce()) {
        let wanted = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        wake();
        if !wait_until(&self.changed, &self.done, TIMEOUT, |done| {
            done.iter().all(|&done| done >= wanted)
        }) {
            fail_stop::end_process(format_args!(
                "an engine does not look at its queue within {TIMEOUT:?}"
            ));
        }
    }

    /// The looks wanted so far; to be read before the queue is.
    pub fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// An engine has taken what was in its queue since it read `wanted`.
    pub fn looked(&self, engine: usize, wanted: u64) {
        let mut done = lock(&self.done);
        if let Some(done) = done.get_mut(engine).filter(|done| **done < wanted) {
            *done = wanted;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fail_stop::tests::said_at_the_end;

    #[test]
    fn engine_that_does_not_look_ends_the_process() {
        let said = said_at_the_end(
            "intake::tests::engine_that_does_not_look_ends_the_process",
            || Intake::new(1).wait(|| ()),
        );
        assert!(said.contains("does not look at its queue"), "{said}");
    }

    #[test]
    fn wait_ends_when_every_engine_has_looked_since() {
        let intake = Intake::new(2);
        let before = intake.wanted();
        intake.wait(|| {
            let wanted = intake.wanted();
            intake.looked(0, wanted);
            // A look that began earlier does not count.
            intake.looked(1, before);
            assert_eq!(*lock(&intake.done), [1, 0]);
            intake.looked(1, wanted);
        });
        assert_eq!(*lock(&intake.done), [1, 1]);
    }
}

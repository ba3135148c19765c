// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps that wait for others only where they need what these make, each on a thread of its own.
//!
//! The first that fails ends the builds of the others, and is what is told; steps that have not begun do not
//! begin. Steps that install something run to their end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Error, Result};

use crate::process;

type Body<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Some steps; a later one may wait for earlier ones.
#[derive(Default)]
pub struct Steps<'a>(Vec<(Vec<Id>, Body<'a>)>);

/// A step of these.
#[derive(Clone, Copy, Debug)]
pub struct Id(usize);

/// How far all are.
struct State {
    done: Vec<bool>,
    failed: Option<Error>,
}

impl<'a> Steps<'a> {
    /// Adds one that begins when those in `after` are done.
    pub fn add(&mut self, after: &[Id], body: impl FnOnce() -> Result<()> + Send + 'a) -> Id {
        self.0.push((after.to_vec(), Box::new(body)));
        Id(self.0.len() - 1)
    }

    /// Runs all.
    ///
    /// # Errors
    ///
    /// That of the first that failed.
    pub fn run(self) -> Result<()> {
        self.run_with(process::end_groups)
    }

    fn run_with(self, end_others: impl Fn() + Sync) -> Result<()> {
        let state = Mutex::new(State {
            done: vec![false; self.0.len()],
            failed: None,
        });
        let changed = Condvar::new();
        thread::scope(|scope| {
            for (index, (after, body)) in self.0.into_iter().enumerate() {
                let (state, changed, end_others) = (&state, &changed, &end_others);
                scope.spawn(move || {
                    let waits = |state: &mut State| {
                        let is_done = |id: &Id| state.done.get(id.0).copied().unwrap_or(false);
                        state.failed.is_none() && !after.iter().all(is_done)
                    };
                    let ready = changed.wait_while(lock(state), waits);
                    let may_run = ready
                        .unwrap_or_else(PoisonError::into_inner)
                        .failed
                        .is_none();
                    if !may_run {
                        return;
                    }
                    let ended = body();
                    let mut now = lock(state);
                    match ended {
                        Ok(()) => now.done[index] = true,
                        // What others come to then is of its making.
                        Err(error) if now.failed.is_none() => {
                            now.failed = Some(error);
                            end_others();
                        }
                        Err(_) => {}
                    }
                    drop(now);
                    changed.notify_all();
                });
            }
        });
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(()), Err)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use anyhow::bail;

    use super::*;

    #[test]
    fn steps_run_at_once_and_behind_those_that_they_wait_for() {
        let noted = Mutex::new(Vec::new());
        let order = &noted;
        let note = move |name| order.lock().expect("nobody panics").push(name);
        let (to_first, from_second) = mpsc::channel();
        let (to_second, from_first) = mpsc::channel();
        let mut steps = Steps::default();
        // Each of both waits for the other.
        let first = steps.add(&[], move || {
            to_second.send(())?;
            from_second.recv()?;
            note("first");
            Ok(())
        });
        let second = steps.add(&[], move || {
            to_first.send(())?;
            Ok(from_first.recv()?)
        });
        steps.add(&[first, second], move || {
            note("last");
            Ok(())
        });
        steps.run_with(|| {}).expect("none fails");
        assert_eq!(
            noted.into_inner().expect("nobody panics"),
            ["first", "last"]
        );
    }

    #[test]
    fn the_first_failure_ends_the_others_and_is_told() {
        let (end, ended) = mpsc::channel();
        let end = Mutex::new(end);
        let mut steps = Steps::default();
        let bad = steps.add(&[], || bail!("no disk"));
        steps.add(&[], move || {
            ended.recv()?;
            bail!("killed")
        });
        steps.add(&[bad], || unreachable!("it waits for what failed"));
        let error = steps.run_with(|| {
            let _ = end.lock().expect("nobody panics").send(());
        });
        assert_eq!(error.expect_err("one fails").to_string(), "no disk");
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Telling that the device does not answer, once when that begins to matter and once when it ends.
//!
//! Time is counted in steps that were waited out: a guest that was stopped with its device finds when it
//! goes on that its clock has run meanwhile, and that ends one step.

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Full, Relaxed},
};

/// Length of a step: short enough that the kernel's hung-task detector sees a task that waits move.
pub(crate) const STEP_MS: u32 = 1_000;

/// Steps after which a wait is told: far above any copy or invalidation.
const TELL_AFTER: u32 = 10;

/// The waits for one device.
pub(crate) struct Stall {
    number: u32,
    /// A wait was told of whose end will be.
    told: Atomic<bool>,
    /// Waits told of that have ended.
    ended: Atomic<u32>,
}

/// One wait for the device.
pub(crate) struct Wait<'a> {
    stall: &'a Stall,
    what: &'static str,
    steps: u32,
    /// Waits told of that had ended when these steps began to count.
    ended: u32,
    tells: bool,
}

impl Stall {
    /// No wait yet, for the device of that number.
    pub(crate) const fn new(number: u32) -> Self {
        Stall {
            number,
            told: Atomic::new(false),
            ended: Atomic::new(0),
        }
    }

    /// A wait begins for the device to do `what`.
    pub(crate) fn wait(&self, what: &'static str) -> Wait<'_> {
        Wait {
            stall: self,
            what,
            steps: 0,
            ended: self.ended.load(Relaxed),
            tells: false,
        }
    }
}

impl Wait<'_> {
    /// A step has passed without an answer.
    pub(crate) fn step(&mut self) {
        let ended = self.stall.ended.load(Relaxed);
        if ended != self.ended {
            // The device has answered somebody since: this one is not told as part of that stall.
            (self.steps, self.ended) = (0, ended);
        }
        self.steps += 1;
        if self.steps >= TELL_AFTER && !self.tells && !self.stall.told.xchg(true, Full) {
            self.tells = true;
            pr_warn!(
                "coax{}: the device has not {} for {} s; what it may be using is kept until it does\n",
                self.stall.number,
                self.what,
                self.seconds()
            );
        }
    }

    fn seconds(&self) -> u32 {
        self.steps * STEP_MS / 1_000
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.tells {
            pr_warn!(
                "coax{}: the wait for the device ended after {} s: it had not {}\n",
                self.stall.number,
                self.seconds(),
                self.what
            );
            self.stall.ended.fetch_add(1, Full);
            self.stall.told.store(false, Relaxed);
        }
    }
}

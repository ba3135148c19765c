// SPDX-License-Identifier: GPL-2.0

//! Looking for what the device asks and answers soon after a command, before an interrupt says so.
//!
//! An interrupt has to wake a processor up, which costs more than all else about a short command. So who waits
//! for a command that has addresses, about which the device may ask, looks into the rings for a while:
//! for the request, which it answers itself, and then for the end of the command.
//!
//! Meanwhile these rings have no interrupts, for whomever they are. So the caller cannot lose its CPU while it
//! looks; where it has a request to answer or another task ought to run, it stops looking meanwhile.

use super::Link;
use crate::{
    faults::{Faults, Helper},
    kapi::{
        misc::{cond_resched, need_resched, NoPreempt},
        work::Worker,
    },
    wire,
};
use core::cell::Cell;
use kernel::time::{Delta, Instant, Monotonic};

/// How long is looked, 200 µs, and again after each answer: what a device fault takes where the guest's processors are emulated.
const LIMIT: Delta = Delta::from_micros(200);

impl Link {
    /// Looks for a while for what the device asks, and what it answers to commands of context `number`, as
    /// long as `wanted` says so, and answers what is asked for that context, whose requests `faults` has. The
    /// caller may sleep.
    pub(crate) fn look_out(&self, number: u32, faults: &Worker<Faults>, wanted: impl Fn() -> bool) {
        let began = Cell::new(Instant::<Monotonic>::now());
        let goes_on = || wanted() && began.get().elapsed().as_nanos() < LIMIT.as_nanos();
        let helper = Helper::new(faults, &self.workqueue);
        while goes_on() {
            self.look_undisturbed(number, &|| goes_on() && !helper.is_needed());
            if helper.help() {
                // What comes of it comes as soon as the request did.
                began.set(Instant::now());
            }
            // Not every kernel does that where preemption begins again.
            cond_resched();
        }
        drop(helper);
        self.judge();
    }

    /// The same, until another task ought to run.
    fn look_undisturbed(&self, number: u32, goes_on: &impl Fn() -> bool) {
        let index = number as usize % self.command.len();
        let (commands, number) = (&self.command[index], wire::QUEUE_COMMAND + index as u16);
        let _stay = NoPreempt::new();
        self.request.begin_poll();
        commands.begin_poll();
        loop {
            self.take_requests();
            self.take_commands(number);
            if need_resched() || !goes_on() {
                break;
            }
        }
        if !self.request.end_poll() {
            self.take_requests();
        }
        if !commands.end_poll() {
            self.take_commands(number);
        }
    }
}

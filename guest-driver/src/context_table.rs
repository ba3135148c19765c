// SPDX-License-Identifier: GPL-2.0

//! Context numbers, and to whom the device's requests and answers for each number go.
//!
//! The table's lock is taken in interrupts; entries are dropped outside of it, in process context,
//! because dropping one waits for its worker.

use crate::{
    commands::Commands,
    faults::Faults,
    kapi::{irqlock::IrqSpinLock, work::Worker},
    link::{CommandTag, Link},
    new_irqlock, wire,
};
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};

/// What the device's messages for one context reach.
#[derive(Clone)]
pub(crate) struct Entry {
    /// Handles translation and page requests.
    pub(crate) faults: Arc<Worker<Faults>>,
    /// Collects answered commands.
    pub(crate) commands: Arc<Commands>,
    /// Number of the process that opened it.
    pub(crate) process: i32,
}

enum Slot {
    Free,
    /// Number given out, context not reachable (being opened or closed).
    Taken,
    Open(Entry),
}

/// The contexts of one device, by number.
#[pin_data]
pub(crate) struct ContextTable {
    #[pin]
    slots: IrqSpinLock<KVVec<Slot>>,
}

impl ContextTable {
    /// A table of `max` free numbers.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(max: u32) -> Result<impl PinInit<Self>> {
        let mut slots = KVVec::with_capacity(max as usize, GFP_KERNEL)?;
        for _ in 0..max {
            slots.push(Slot::Free, GFP_KERNEL)?;
        }
        Ok(pin_init!(Self { slots <- new_irqlock!(slots, "coax_contexts") }))
    }

    /// Takes the lowest free number.
    ///
    /// # Errors
    ///
    /// `EMFILE`: the device has no context left.
    pub(crate) fn reserve(&self) -> Result<u32> {
        let mut slots = self.slots.lock();
        let free = slots
            .iter()
            .position(|slot| matches!(slot, Slot::Free))
            .ok_or(EMFILE)?;
        slots[free] = Slot::Taken;
        Ok(free as u32)
    }

    /// Makes the context reachable under a number that was reserved.
    pub(crate) fn publish(&self, number: u32, entry: Entry) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(number as usize) {
            *slot = Slot::Open(entry);
        }
    }

    /// Makes the context unreachable; the number stays taken.
    pub(crate) fn withdraw(&self, number: u32) -> Option<Entry> {
        let mut slots = self.slots.lock();
        match slots
            .get_mut(number as usize)
            .map(|slot| core::mem::replace(slot, Slot::Taken))
        {
            Some(Slot::Open(entry)) => Some(entry),
            _ => None,
        }
    }

    /// Gives a number back.
    pub(crate) fn release(&self, number: u32) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(number as usize) {
            *slot = Slot::Free;
        }
    }

    /// Numbers in use.
    pub(crate) fn count(&self) -> u64 {
        self.slots
            .lock()
            .iter()
            .filter(|slot| !matches!(slot, Slot::Free))
            .count() as u64
    }

    /// Entry of an open context.
    pub(crate) fn get(&self, number: u32) -> Option<Entry> {
        match self.slots.lock().get(number as usize) {
            Some(Slot::Open(entry)) => Some(entry.clone()),
            _ => None,
        }
    }

    /// The open contexts with their numbers, each found when it is asked for; in process context.
    pub(crate) fn open(&self) -> impl Iterator<Item = (u32, Entry)> + '_ {
        let numbers = 0..self.slots.lock().len() as u32;
        numbers.filter_map(|number| Some((number, self.get(number)?)))
    }

    /// Hands a request of the device to its context; callable from interrupts.
    pub(crate) fn dispatch(&self, request: &wire::DeviceRequest, link: &Link) {
        let slots = self.slots.lock();
        match slots.get(request.context.get() as usize) {
            Some(Slot::Open(entry)) if entry.faults.data().push(request) => {
                let cpu = entry.faults.data().cpu.load(Relaxed);
                entry.faults.queue(&link.workqueue, cpu);
            }
            // Of a context being closed, whose commands the device has aborted.
            Some(Slot::Taken) => {}
            _ => link.stats.device_errors.add(1),
        }
    }

    /// Hands an answered command to its context; callable from interrupts.
    pub(crate) fn command_done(&self, tag: CommandTag, reply: Result<wire::CommandReply>) {
        let slots = self.slots.lock();
        if let Some(Slot::Open(entry)) = slots.get(tag.context as usize) {
            entry.commands.done(tag, reply);
        }
    }

    /// Ends all commands of all contexts with `error`.
    pub(crate) fn fail_commands(&self, error: Error) {
        for slot in self.slots.lock().iter() {
            if let Slot::Open(entry) = slot {
                entry.commands.fail_all(error);
            }
        }
    }
}

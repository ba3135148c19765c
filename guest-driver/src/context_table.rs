// SPDX-License-Identifier: GPL-2.0

//! Context numbers, and to whom the device's requests and answers for each go.
//!
//! A number is given out again when its context is gone; the device tells its openings apart by a
//! generation, and so does whoever handles a message that names a context.
//!
//! The table's lock is taken in interrupts; entries are dropped outside of it, in process context,
//! because dropping one waits for its worker.

use crate::{
    commands::Commands,
    faults::{self, Faults},
    kapi::{irqlock::IrqSpinLock, sva::Binding, work::Worker},
    link::{CommandTag, Link},
    new_irqlock, wire,
};
use kernel::{prelude::*, sync::Arc, task::Kuid};

/// One opening of a context, as messages name it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContextId {
    /// Number on the device.
    pub(crate) number: u32,
    /// Generation, which the device gave to the opening.
    pub(crate) generation: u32,
}

/// What the device's messages for one context reach.
#[derive(Clone)]
pub(crate) struct Entry {
    /// Handles translation and page requests.
    pub(crate) faults: Arc<Worker<Faults>>,
    /// Collects answered commands.
    pub(crate) commands: Arc<Commands>,
    /// Number of the process that opened it.
    pub(crate) process: i32,
    /// What the IOMMU translates it by, if not the driver.
    pub(crate) _binding: Option<Arc<Binding>>,
}

/// Part of the contexts that a user without `CAP_SYS_RESOURCE` may have: a quarter.
const USER_SHARE: usize = 4;

/// Who a context counts for.
pub(crate) struct User {
    /// The user.
    pub(crate) id: Kuid,
    /// Whether the limit of one user does not hold.
    pub(crate) exempt: bool,
}

/// A number that was given out, and to whom.
struct Slot {
    user: Option<Kuid>,
    state: State,
}

enum State {
    Free,
    /// Number given out, and no context there: not yet, or not any more.
    Taken,
    Open(ContextId, Entry),
    /// The device is closing it: commands end, and requests are not heard any more.
    Closing(ContextId, Entry),
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
            let free = Slot {
                user: None,
                state: State::Free,
            };
            slots.push(free, GFP_KERNEL)?;
        }
        Ok(pin_init!(Self { slots <- new_irqlock!(slots, "coax_contexts") }))
    }

    /// Takes the lowest free number.
    ///
    /// # Errors
    ///
    /// `EMFILE`: the device has no context left, or `user` has their share.
    pub(crate) fn reserve(&self, user: &User) -> Result<u32> {
        let mut slots = self.slots.lock();
        let share = (slots.len() / USER_SHARE).max(1);
        let theirs = |slot: &&Slot| slot.user.as_ref() == Some(&user.id);
        if !user.exempt && slots.iter().filter(theirs).count() >= share {
            return Err(EMFILE);
        }
        let free = slots
            .iter()
            .position(|slot| matches!(slot.state, State::Free))
            .ok_or(EMFILE)?;
        slots[free] = Slot {
            user: Some(user.id),
            state: State::Taken,
        };
        Ok(free as u32)
    }

    /// Makes the context reachable under a number that was reserved.
    pub(crate) fn publish(&self, id: ContextId, entry: Entry) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(id.number as usize) {
            slot.state = State::Open(id, entry);
        }
    }

    /// Has requests of the context not heard any more, before the device closes it. None if that was done
    /// before, and so is another's to end.
    pub(crate) fn begin_close(&self, id: ContextId) -> Option<Entry> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(id.number as usize)?;
        match core::mem::replace(&mut slot.state, State::Taken) {
            State::Open(open, entry) if open == id => {
                slot.state = State::Closing(id, entry.clone());
                Some(entry)
            }
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// Makes a context that the device has closed unreachable; the number stays taken.
    pub(crate) fn withdraw(&self, id: ContextId) -> Option<Entry> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(id.number as usize)?;
        match core::mem::replace(&mut slot.state, State::Taken) {
            State::Closing(closing, entry) if closing == id => Some(entry),
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// Gives back a number that no context has.
    pub(crate) fn release(&self, number: u32) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(number as usize) {
            *slot = Slot {
                user: None,
                state: State::Free,
            };
        }
    }

    /// Numbers in use.
    pub(crate) fn count(&self) -> u64 {
        self.slots
            .lock()
            .iter()
            .filter(|slot| !matches!(slot.state, State::Free))
            .count() as u64
    }

    /// Entry of an open context.
    fn get(&self, number: u32) -> Option<(ContextId, Entry)> {
        match self
            .slots
            .lock()
            .get(number as usize)
            .map(|slot| &slot.state)
        {
            Some(State::Open(id, entry)) => Some((*id, entry.clone())),
            _ => None,
        }
    }

    /// The open contexts, each found when it is asked for; in process context.
    pub(crate) fn open(&self) -> impl Iterator<Item = (ContextId, Entry)> + '_ {
        let numbers = 0..self.slots.lock().len() as u32;
        numbers.filter_map(|number| self.get(number))
    }

    /// Hands a request of the device to its context; callable from interrupts.
    pub(crate) fn dispatch(&self, request: &wire::DeviceRequest, link: &Link) {
        let meant = ContextId {
            number: request.context.get(),
            generation: request.generation.get(),
        };
        let slots = self.slots.lock();
        match slots.get(meant.number as usize).map(|slot| &slot.state) {
            Some(State::Open(id, entry)) if *id == meant => {
                let faults = entry.faults.data();
                if let Err(what) = faults.push(request) {
                    return link.accuse(what);
                }
                if faults.is_for_worker(request) {
                    faults::queue(&entry.faults, &link.workqueue);
                }
            }
            // The device has aborted its commands.
            Some(State::Closing(id, _)) if *id == meant => {}
            _ => link.accuse("asks for a context that is not open"),
        }
    }

    /// Hands an answered command to its context; callable from interrupts.
    pub(crate) fn command_done(&self, tag: CommandTag, reply: Result<wire::CommandReply>) {
        let slots = self.slots.lock();
        match slots
            .get(tag.context.number as usize)
            .map(|slot| &slot.state)
        {
            Some(State::Open(id, entry) | State::Closing(id, entry)) if *id == tag.context => {
                entry.commands.done(tag, reply)
            }
            _ => {}
        }
    }

    /// Ends all commands of all contexts with `error`.
    pub(crate) fn end_commands(&self, error: Error) {
        for slot in self.slots.lock().iter() {
            if let State::Open(_, entry) | State::Closing(_, entry) = &slot.state {
                entry.commands.end(error);
            }
        }
    }
}

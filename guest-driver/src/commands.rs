// SPDX-License-Identifier: GPL-2.0

//! The commands of one context that were submitted and not collected.

use crate::{
    kapi::{irqlock::IrqSpinLock, trace},
    link::CommandTag,
    new_irqlock,
    uapi::MAX_IN_FLIGHT,
    wire,
};
use kernel::{
    new_poll_condvar,
    prelude::*,
    sync::{poll::PollCondVar, Arc, CondVarTimeoutResult},
    time::Jiffies,
};

enum State {
    Running,
    /// Nobody will collect it.
    Abandoned,
    Done(Result<wire::CommandReply>),
}

struct Slot {
    id: u64,
    state: State,
    /// It has addresses that the device may ask about.
    asks: bool,
}

struct Table {
    slots: KVec<Slot>,
    next_id: u64,
    /// Why there are no more.
    ended: Option<Error>,
}

/// A context's commands; its lock is the innermost but for the queues'.
#[pin_data]
pub(crate) struct Commands {
    #[pin]
    table: IrqSpinLock<Table>,
    /// Notified when a command is done.
    #[pin]
    pub(crate) changed: PollCondVar,
}

impl Commands {
    /// An empty table; identifiers start at `first_id`, which no earlier context with the same
    /// number may have reached.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(first_id: u64) -> Result<Arc<Self>> {
        let slots = KVec::with_capacity(MAX_IN_FLIGHT, GFP_KERNEL_ACCOUNT)?;
        Arc::pin_init(
            pin_init!(Self {
                table <- new_irqlock!(Table { slots, next_id: first_id, ended: None }, "coax_commands"),
                changed <- new_poll_condvar!("coax_commands_changed"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Takes a slot and returns the new command's identifier; the device may ask about its addresses if
    /// `asks` says so.
    ///
    /// # Errors
    ///
    /// `EBUSY`: too many commands not collected. `EIO`, `ENODEV`: there will be no more ([`Self::end`]).
    pub(crate) fn begin(&self, asks: bool) -> Result<u64> {
        let mut table = self.table.lock();
        if let Some(error) = table.ended {
            return Err(error);
        }
        if table.slots.len() >= MAX_IN_FLIGHT {
            return Err(EBUSY);
        }
        let id = table.next_id;
        table.next_id += 1;
        // Within the capacity, so that nothing is allocated.
        table
            .slots
            .push_within_capacity(Slot {
                id,
                state: State::Running,
                asks,
            })
            .map_err(|_| EBUSY)?;
        Ok(id)
    }

    /// Whether command `id` runs, and the device may ask about its addresses.
    pub(crate) fn may_ask(&self, id: u64) -> bool {
        let table = self.table.lock();
        let running = |slot: &Slot| slot.asks && matches!(slot.state, State::Running);
        table
            .slots
            .iter()
            .any(|slot| slot.id == id && running(slot))
    }

    /// How many the device has not answered.
    pub(crate) fn in_flight(&self) -> usize {
        let table = self.table.lock();
        let done = |slot: &&Slot| matches!(slot.state, State::Done(_));
        table.slots.len() - table.slots.iter().filter(done).count()
    }

    /// Takes back a slot whose command could not be sent.
    pub(crate) fn cancel(&self, id: u64) {
        self.table.lock().slots.retain(|slot| slot.id != id);
    }

    /// Gives up a command that nobody will collect; its slot is free when it is answered.
    pub(crate) fn abandon(&self, id: u64) {
        let mut table = self.table.lock();
        table
            .slots
            .retain(|slot| slot.id != id || matches!(slot.state, State::Running));
        if let Some(slot) = table.slots.iter_mut().find(|slot| slot.id == id) {
            slot.state = State::Abandoned;
        }
    }

    /// A command was answered; callable from interrupts.
    pub(crate) fn done(&self, tag: CommandTag, reply: Result<wire::CommandReply>) {
        let status = reply.as_ref().map_or(u32::MAX, |r| r.status.get());
        trace::command_done(tag.context.number, tag.id, status);
        {
            let mut table = self.table.lock();
            table
                .slots
                .retain(|slot| slot.id != tag.id || !matches!(slot.state, State::Abandoned));
            match table.slots.iter_mut().find(|slot| slot.id == tag.id) {
                Some(slot) if matches!(slot.state, State::Running) => {
                    slot.state = State::Done(reply)
                }
                _ => return,
            }
        }
        self.changed.notify_all();
    }

    /// Ends all commands that run with `error`, and refuses others with it: the device answers none of this
    /// context any more.
    pub(crate) fn end(&self, error: Error) {
        let mut table = self.table.lock();
        table.ended = Some(error);
        for slot in table.slots.iter_mut() {
            if matches!(slot.state, State::Running) {
                slot.state = State::Done(Err(error));
            }
        }
        drop(table);
        self.changed.notify_all();
    }

    /// Whether a command can be collected.
    pub(crate) fn any_done(&self) -> bool {
        self.table
            .lock()
            .slots
            .iter()
            .any(|slot| matches!(slot.state, State::Done(_)))
    }

    /// Waits for command `id`, no longer than `limit` if there is one, and frees its slot.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no such command. `EINTR`: a signal came. `ETIMEDOUT`. `EIO`, `ENODEV`: the device
    /// is broken or gone.
    pub(crate) fn collect(&self, id: u64, limit: Option<Jiffies>) -> Result<wire::CommandReply> {
        let mut table = self.table.lock();
        let mut left = limit.unwrap_or(Jiffies::MAX);
        loop {
            let index = table
                .slots
                .iter()
                .position(|slot| slot.id == id)
                .ok_or(EINVAL)?;
            if matches!(table.slots[index].state, State::Done(_)) {
                let slot = table.slots.remove(index).map_err(|_| EINVAL)?;
                if let State::Done(reply) = slot.state {
                    return reply;
                }
            }
            if left == 0 {
                return Err(ETIMEDOUT);
            }
            match self.changed.wait_interruptible_timeout(&mut table, left) {
                CondVarTimeoutResult::Woken { jiffies } if limit.is_some() => left = jiffies,
                CondVarTimeoutResult::Woken { .. } => {}
                CondVarTimeoutResult::Timeout => left = 0,
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
            }
        }
    }
}

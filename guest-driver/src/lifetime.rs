// SPDX-License-Identifier: GPL-2.0

//! Whether the device is in service, whether it may still touch memory, and who is in the middle of
//! something.
//!
//! | state | since | calls | the device |
//! |---|---|---|---|
//! | Live | the driver took the device | enter | is told and answers |
//! | Quiescing | the driver is leaving it | `ENODEV` | is told and answers: contexts close, pages come back |
//! | Silent | a fence has passed | `EIO` where they need the device | touches no memory, is told nothing |
//! | Gone | its queues are closed, and the driver has left | `ENODEV` | |
//!
//! A device that falls silent by itself goes from Live to Silent and stays in service for what needs no
//! device: pages come back by the CPU. When the driver leaves then, it is Silent with entry closed.
//!
//! **Fences.** A page that the device may be using is let go when the device is known to have let go of it,
//! and time alone never says so:
//!
//! - the device answered: the invalidation of the page, the copy to or from it, the closing of the context;
//! - a reset of the virtio device has returned. The driver resets when the device sets DEVICE_NEEDS_RESET,
//!   which the front end does when the connection to the back end has ended, when the device answers an
//!   invalidation, a copy, or the opening or closing of a context with something that is no answer, and when
//!   it asks for what no working device asks (`Lifetime::accuse`).
//!
//! Until then whoever needs the answer waits, in steps that the hung-task detector sees, and a wait that
//! lasts is told once (`stall`). Calls of programs can be killed meanwhile. When a fence has passed, the
//! queues are emptied, which wakes all who wait (`Link::fence`).
//!
//! **Teardown**, in order, when the driver is unbound or unloaded or the device unplugged, and where taking
//! the device into service fails:
//!
//! 1. Quiescing: nobody enters any more, and no page of the device memory is given out.
//! 2. The character device goes: no file can be opened.
//! 3. The device closes each context: its commands end, which ends the calls that wait for them. The contexts'
//!    workers end.
//! 4. All who entered leave, and contexts that were being closed are gone.
//! 5. All pages come back to system memory, and the device memory's struct pages go.
//! 6. The virtio device is reset: Silent. What the queues still hold ends, they close: Gone.
//!
//! The lock is a leaf, and is taken with interrupts disabled.

use crate::{
    kapi::{completion::Completion, irqlock::IrqSpinLock},
    new_irqlock,
    stall::{Stall, STEP_MS},
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, SetOnce,
    },
};

/// The lifetime of one device in the driver's hands.
#[pin_data]
pub(crate) struct Lifetime {
    /// Set under the lock around `inside`.
    leaving: Atomic<bool>,
    silent: Atomic<bool>,
    /// What the device did that no working one does.
    offence: SetOnce<&'static str>,
    /// Who entered and has not left.
    #[pin]
    inside: IrqSpinLock<usize>,
    /// The last one has left, and none will come.
    #[pin]
    empty: Completion,
    /// Number of the device, for the log.
    number: u32,
    /// Waits for the device.
    pub(crate) stall: Stall,
}

/// Somebody is inside: the device memory and the queues stay.
pub(crate) struct Guard(Arc<Lifetime>);

impl Lifetime {
    /// Live.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(number: u32) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                leaving: Atomic::new(false),
                silent: Atomic::new(false),
                offence: SetOnce::new(),
                inside <- new_irqlock!(0, "coax_lifetime"),
                empty <- Completion::new(),
                stall: Stall::new(number),
                number,
            }),
            GFP_KERNEL,
        )
    }

    /// Keeps the driver from leaving the device; to be held no longer than a call or a request takes.
    ///
    /// # Errors
    ///
    /// `ENODEV`: it is leaving.
    pub(crate) fn enter(this: &Arc<Self>) -> Result<Guard> {
        let mut inside = this.inside.lock();
        if this.is_leaving() {
            return Err(ENODEV);
        }
        *inside += 1;
        Ok(Guard(this.clone()))
    }

    /// Quiescing: nobody enters from now on.
    pub(crate) fn leave(&self) {
        let inside = self.inside.lock();
        self.leaving.store(true, Relaxed);
        if *inside == 0 {
            self.empty.complete_all();
        }
    }

    /// Waits for a while for all to leave who are inside; true when they have. After [`Self::leave`].
    pub(crate) fn wait_until_left(&self) -> bool {
        self.empty.wait(STEP_MS)
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> usize {
        *self.inside.lock()
    }

    /// A fence has passed; false if one had before.
    pub(crate) fn fall_silent(&self) -> bool {
        !self.silent.xchg(true, Full)
    }

    /// The device did `what`, so that it is to be fenced, in process context; callable from interrupts.
    pub(crate) fn accuse(&self, what: &'static str) {
        self.offence.populate(what);
    }

    /// What the device was accused of first.
    pub(crate) fn offence(&self) -> Option<&'static str> {
        self.offence.copy()
    }

    /// Whether the driver has the device in service, or is leaving it.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Whether the device touches no memory any more.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Relaxed)
    }

    /// Whether the device may be given work.
    pub(crate) fn is_live(&self) -> bool {
        !self.is_leaving() && !self.is_silent()
    }

    /// How calls end that the device does not answer any more.
    pub(crate) fn error(&self) -> Error {
        if self.is_leaving() {
            ENODEV
        } else {
            EIO
        }
    }

    /// Number of the device, for the log.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut inside = self.0.inside.lock();
        *inside -= 1;
        if *inside == 0 && self.0.is_leaving() {
            self.0.empty.complete_all();
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Waiting for one event with a time limit.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::sys;
use kernel::{bindings, prelude::*, types::Opaque};

/// A `struct completion`.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    raw: Opaque<bindings::completion>,
}

// SAFETY: A completion may be used from any thread.
unsafe impl Send for Completion {}
// SAFETY: All operations on a completion are serialised by its own lock.
unsafe impl Sync for Completion {}

/// How a wait ended that can be killed.
pub(crate) enum Waited {
    /// The event happened.
    Done,
    /// The time was over first.
    TimedOut,
    /// The caller is to die.
    Killed,
}

impl Completion {
    /// A completion that has not happened.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            raw <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes.
                unsafe { sys::coax_init_completion(slot) }
            }),
        })
    }

    /// Wakes all present and future waiters; callable from interrupts.
    pub(crate) fn complete_all(&self) {
        // SAFETY: `raw` is initialised.
        unsafe { bindings::complete_all(self.raw.get()) }
    }

    /// Makes it one that has not happened. Whoever waits must have seen that it had.
    pub(crate) fn reset(&self) {
        // SAFETY: `raw` is initialised.
        unsafe { sys::coax_reinit_completion(self.raw.get()) }
    }

    /// Waits without being interruptible; false if `limit_ms` milliseconds passed.
    #[must_use]
    pub(crate) fn wait(&self, limit_ms: u32) -> bool {
        // SAFETY: `raw` is initialised.
        unsafe { sys::coax_wait_for_completion_ms(self.raw.get(), limit_ms) != 0 }
    }

    /// Waits for `limit_ms` milliseconds at most, or until a signal comes that kills.
    pub(crate) fn wait_killable(&self, limit_ms: u32) -> Waited {
        // SAFETY: `raw` is initialised.
        match unsafe { sys::coax_wait_for_completion_killable_ms(self.raw.get(), limit_ms) } {
            0 => Waited::TimedOut,
            left if left > 0 => Waited::Done,
            _ => Waited::Killed,
        }
    }
}

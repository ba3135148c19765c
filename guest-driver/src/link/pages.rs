// SPDX-License-Identifier: GPL-2.0

//! Copies, translations and invalidations: the messages after which pages are used or let go.

use super::Link;
use crate::{
    call::{Call, CallRequest, Pending},
    wire,
};
use kernel::prelude::*;

impl Link {
    /// Has the device begin with the copies in `message`, a copy chain with room for its reply.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is silent. `ENOMEM`.
    pub(crate) fn begin_copy(&self, message: KBox<CallRequest>) -> Result<Pending> {
        self.begin(wire::QUEUE_COPY, Call::new(message, GFP_KERNEL)?)
    }

    /// Waits until the device has done with the copies.
    ///
    /// # Errors
    ///
    /// `EIO`: they are not done, and the device will not do them.
    pub(crate) fn finish_copy(&self, pending: Pending) -> Result {
        let reply = self.finish(pending);
        match reply.read::<wire::CopyReply>() {
            Some((copied, _)) if copied.status.get() == wire::STATUS_OK => Ok(()),
            Some(_) => Err(EIO),
            None if reply.is_answer() => {
                // It may be at it still.
                self.fence("answered a copy with less than an answer");
                Err(EIO)
            }
            None => Err(EIO),
        }
    }

    /// Puts a completion or response into the translation queue, behind all that went before.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is silent.
    pub(crate) fn post_translation(&self, message: KBox<CallRequest>) -> Result {
        let sent = self.send(wire::QUEUE_TRANSLATION, message);
        // Nobody waits for these, so no interrupt says that they are back. Behind the doorbell, because the
        // device is at work then.
        self.take(wire::QUEUE_TRANSLATION);
        sent
    }

    /// Puts an invalidation into the translation queue.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is silent, and uses no translation.
    pub(crate) fn begin_invalidation(&self, call: Call) -> Result<Pending> {
        self.begin(wire::QUEUE_TRANSLATION, call)
    }

    /// Waits until the device has dropped the range and finished its accesses, or is silent; returns the
    /// message, to be used again.
    pub(crate) fn finish_invalidation(&self, pending: Pending) -> Call {
        let reply = self.finish(pending);
        let status = reply
            .read::<wire::InvalidateReply>()
            .map(|(reply, _)| reply.status.get());
        let dropped = match status {
            // Of a context that is closed nothing is left either.
            Some(wire::STATUS_OK | wire::STATUS_BAD_CONTEXT) => true,
            Some(_) => false,
            None => !reply.is_answer(),
        };
        if !dropped {
            self.fence("does not drop what it was told to drop");
        }
        reply.into_call()
    }
}

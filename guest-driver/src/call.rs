// SPDX-License-Identifier: GPL-2.0

//! Messages that the device answers once, and who waits for the answer.

use crate::{
    kapi::{completion::Completion, irqlock::IrqSpinLock, virtqueue::Request},
    new_irqlock,
};
use kernel::{alloc::Flags, prelude::*, sync::Arc};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Who waits for a message's answer.
#[pin_data]
pub(crate) struct Waiter {
    #[pin]
    pub(crate) done: Completion,
    #[pin]
    returned: IrqSpinLock<Option<Returned>>,
}

/// A message that is answered once, to a waiter or to nobody.
pub(crate) type CallRequest = Request<Option<Arc<Waiter>>>;

/// A message out of its queue.
struct Returned {
    message: KBox<CallRequest>,
    /// Bytes that the device wrote; none if it never answered and, being silent, never will.
    len: Option<usize>,
}

impl Waiter {
    fn new(flags: Flags) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                done <- Completion::new(),
                returned <- new_irqlock!(None, "coax_answer"),
            }),
            flags,
        )
    }
}

/// A message and what is needed to wait for its answer, so that neither sending nor waiting fails for memory.
pub(crate) struct Call {
    /// The message.
    pub(crate) message: KBox<CallRequest>,
    waiter: Arc<Waiter>,
}

impl Call {
    /// For `message`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(message: KBox<CallRequest>, flags: Flags) -> Result<Self> {
        let waiter = Waiter::new(flags)?;
        Ok(Call { message, waiter })
    }

    /// The message for queue `queue`, and what becomes the wait when it is sent.
    pub(crate) fn split(mut self, queue: u16) -> (KBox<CallRequest>, Pending) {
        self.message.data = Some(self.waiter.clone());
        let waiter = self.waiter;
        (self.message, Pending { waiter, queue })
    }
}

/// A message whose answer is under way.
pub(crate) struct Pending {
    waiter: Arc<Waiter>,
    /// Index of the queue that it comes by.
    pub(crate) queue: u16,
}

impl Pending {
    /// Happens when the message is out of the queue.
    pub(crate) fn done(&self) -> &Completion {
        &self.waiter.done
    }

    /// The message, if it is out of the queue.
    pub(crate) fn take(&self) -> Option<Reply> {
        let returned = self.waiter.returned.lock().take()?;
        Some(Reply {
            returned,
            waiter: self.waiter.clone(),
        })
    }
}

/// What became of a message.
pub(crate) struct Reply {
    returned: Returned,
    waiter: Arc<Waiter>,
}

impl Reply {
    /// Whether the device answered. If not it is silent, and touches no memory.
    pub(crate) fn is_answer(&self) -> bool {
        self.returned.len.is_some()
    }

    /// The answer and what the device wrote behind it. None if it did not answer, or with less than that.
    pub(crate) fn read<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<(T, &[u8])> {
        let written = self.returned.message.written(self.returned.len?);
        T::read_from_prefix(written).ok()
    }

    /// The message, to be used again.
    pub(crate) fn into_call(self) -> Call {
        let Reply { returned, waiter } = self;
        let mut message = returned.message;
        message.clear_writable();
        // Who completed it did so before the message could be taken.
        waiter.done.reset();
        Call { message, waiter }
    }
}

/// Hands a message out of its queue to who waits for it; `len` is none if the device never answered.
pub(crate) fn hand_back(mut message: KBox<CallRequest>, len: Option<usize>) {
    if let Some(waiter) = message.data.take() {
        let mut returned = waiter.returned.lock();
        *returned = Some(Returned { message, len });
        // Under the lock, so that whoever takes the message finds this done.
        waiter.done.complete_all();
    }
}

/// A message of the sizes given, to be sent by a [`Link`](crate::link::Link).
///
/// # Errors
///
/// `ENOMEM`: no memory.
pub(crate) fn new_message(
    readable: usize,
    writable: usize,
    flags: Flags,
) -> Result<KBox<CallRequest>> {
    Request::new(readable, writable, None, flags)
}

/// Writes `part` into the readable part of `message` at `offset`.
///
/// # Errors
///
/// `EINVAL`: it does not fit.
pub(crate) fn put<T, P>(message: &mut Request<T>, offset: usize, part: &P) -> Result
where
    P: IntoBytes + Immutable + KnownLayout,
{
    let end = offset + size_of::<P>();
    let room = message.readable_mut().get_mut(offset..end).ok_or(EINVAL)?;
    room.copy_from_slice(part.as_bytes());
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Virtqueues that own the buffers they carry.
//!
//! A [`Request`] is handed to the queue as a whole and comes back as a whole, so that its memory
//! cannot go while the device may still read or write it.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::{kapi::irqlock::IrqSpinLock, sys};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    alloc::{flags, Flags},
    error::to_result,
    ffi::c_void,
    prelude::*,
    str::CStr,
    sync::LockClassKey,
};

/// A message: `readable` bytes for the device to read, then bytes for it to write, and `data`
/// that stays with the driver.
pub(crate) struct Request<T> {
    // Kmalloc memory: physically contiguous, as a descriptor needs it.
    buffer: KVec<u8>,
    readable: usize,
    // Bytes of the readable part that are sent.
    sent: usize,
    /// The driver's own part.
    pub(crate) data: T,
}

impl<T> Request<T> {
    /// A zeroed message.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(
        readable: usize,
        writable: usize,
        data: T,
        flags: Flags,
    ) -> Result<KBox<Self>> {
        let len = readable + writable;
        // One element at a time, as `resize` does it, takes longer than all else about a message.
        let mut buffer = KVec::with_capacity(len, flags | flags::__GFP_ZERO)?;
        // SAFETY: There is room for `len` bytes, and the allocator has cleared them.
        unsafe { buffer.inc_len(len) };
        Ok(KBox::new(
            Request {
                buffer,
                readable,
                sent: readable,
                data,
            },
            flags,
        )?)
    }

    /// What the device reads.
    pub(crate) fn readable_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.readable]
    }

    /// Takes over the beginning of the readable part from a message whose is no longer.
    pub(crate) fn copy_readable(&mut self, from: &Self) {
        self.buffer[..from.readable].copy_from_slice(&from.buffer[..from.readable]);
    }

    /// What the device wrote, if it wrote `bytes` bytes; to be trusted in nothing.
    pub(crate) fn written(&self, bytes: usize) -> &[u8] {
        let room = &self.buffer[self.readable..];
        &room[..bytes.min(room.len())]
    }

    /// Clears what the device wrote, before the message is used again.
    pub(crate) fn clear_writable(&mut self) {
        self.buffer[self.readable..].fill(0);
    }

    /// Leaves only the first `bytes` of the readable part to the device.
    pub(crate) fn limit_readable(&mut self, bytes: usize) {
        self.sent = bytes.min(self.readable);
    }
}

struct State {
    // None when closed.
    vq: Option<NonNull<sys::virtqueue>>,
    // Descriptors that a message takes.
    descriptors: usize,
    // Callers that an interrupt has to wake.
    sleepers: usize,
    // Callers that look all the time.
    pollers: usize,
}

// SAFETY: The pointer is used under the lock around `State` only, or as `Queue::notify` says.
unsafe impl Send for State {}

/// A virtqueue whose messages carry a `T`.
///
/// # Invariants
///
/// Every token in the ring is a `KBox<Request<T>>` turned into a pointer.
#[pin_data]
pub(crate) struct Queue<T> {
    #[pin]
    state: IrqSpinLock<State>,
    _messages: PhantomData<KBox<Request<T>>>,
}

// SAFETY: The messages move between threads, hence `T: Send`; the ring is under a lock.
unsafe impl<T: Send> Sync for Queue<T> {}
// SAFETY: As above.
unsafe impl<T: Send> Send for Queue<T> {}

/// A virtqueue as `find_queues` returns it, not yet typed.
pub(crate) struct RawQueue {
    pub(super) vq: NonNull<sys::virtqueue>,
    /// Descriptors of the ring that a message takes at most.
    pub(super) descriptors: usize,
}

impl<T: Send> Queue<T> {
    /// Takes over `raw`.
    pub(crate) fn new(
        raw: RawQueue,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            state <- IrqSpinLock::new(
                State { vq: Some(raw.vq), descriptors: raw.descriptors, sleepers: 0, pollers: 0 },
                name,
                key,
            ),
            _messages: PhantomData,
        })
    }

    /// Puts `request` into the ring and tells the device; callable from interrupts.
    ///
    /// # Errors
    ///
    /// The message comes back with `ENOSPC` (ring full), `EIO` (device broken), `ENODEV` (queue
    /// closed) or `ENOMEM`.
    pub(crate) fn send(&self, request: KBox<Request<T>>) -> Result<(), (Error, KBox<Request<T>>)> {
        let state = self.state.lock();
        let Some(vq) = state.vq else {
            return Err((ENODEV, request));
        };
        let (readable, out_len) = (request.readable, request.sent);
        let in_len = request.buffer.len() - readable;
        let token = KBox::into_raw(request);
        // SAFETY: `token` was a box until this line.
        let buffer = unsafe { (*token).buffer.as_mut_ptr() };
        // SAFETY:
        // - `vq` is open, as the state says, and used under its lock.
        // - `buffer` has `readable + in_len` bytes of kmalloc memory, `out_len` is at most
        //   `readable`, and all stay until the token is popped.
        let ret = unsafe {
            sys::coax_virtqueue_add(
                vq.as_ptr(),
                buffer.cast(),
                out_len as u32,
                buffer.add(readable).cast(),
                in_len as u32,
                token.cast(),
            )
        };
        if let Err(error) = to_result(ret) {
            // SAFETY: The ring did not take the token, so the box is still ours.
            return Err((error, unsafe { KBox::from_raw(token) }));
        }
        // SAFETY: `vq` is open and used under its lock.
        if unsafe { sys::virtqueue_kick_prepare(vq.as_ptr()) } {
            // The doorbell stays under the lock: `close` must not pass between the two.
            // SAFETY: As above.
            unsafe { sys::virtqueue_notify(vq.as_ptr()) };
        }
        Ok(())
    }

    /// Takes a message that the device has answered, with the bytes it says it wrote; callable
    /// from interrupts.
    pub(crate) fn pop(&self) -> Option<(KBox<Request<T>>, usize)> {
        let state = self.state.lock();
        let vq = state.vq?;
        let mut len = 0;
        // SAFETY: `vq` is open and used under its lock; `len` is valid for a write.
        let token = unsafe { sys::virtqueue_get_buf(vq.as_ptr(), &mut len) };
        // SAFETY: By the type's invariant.
        unsafe { Self::message(token) }.map(|request| (request, len as usize))
    }

    /// Messages that the ring has room for, at least.
    pub(crate) fn room(&self) -> usize {
        let state = self.state.lock();
        match state.vq {
            // SAFETY: `vq` is open and used under its lock.
            Some(vq) => unsafe { vq.as_ref() }.num_free as usize / state.descriptors,
            None => 0,
        }
    }

    /// Has no interrupts come but while somebody sleeps.
    pub(crate) fn silence(&self) {
        let state = self.state.lock();
        if let Some(vq) = state.vq {
            // SAFETY: `vq` is open and used under its lock.
            unsafe { sys::virtqueue_disable_cb(vq.as_ptr()) };
        }
    }

    /// Has interrupts come until [`Self::end_sleep`]. False if there are answers already, for which
    /// none will come.
    pub(crate) fn begin_sleep(&self) -> bool {
        let mut state = self.state.lock();
        state.sleepers += 1;
        match state.vq {
            // SAFETY: `vq` is open and used under its lock.
            Some(vq) => unsafe { sys::virtqueue_enable_cb(vq.as_ptr()) },
            None => true,
        }
    }

    /// Ends what [`Self::begin_sleep`] began.
    pub(crate) fn end_sleep(&self) {
        let mut state = self.state.lock();
        state.sleepers -= 1;
        if let (0, Some(vq)) = (state.sleepers, state.vq) {
            // SAFETY: `vq` is open and used under its lock.
            unsafe { sys::virtqueue_disable_cb(vq.as_ptr()) };
        }
    }

    /// Has no interrupts come until [`Self::end_poll`]: the caller looks all the time, and does not sleep.
    pub(crate) fn begin_poll(&self) {
        let mut state = self.state.lock();
        state.pollers += 1;
        if let Some(vq) = state.vq {
            // SAFETY: `vq` is open and used under its lock.
            unsafe { sys::virtqueue_disable_cb(vq.as_ptr()) };
        }
    }

    /// Ends what [`Self::begin_poll`] began. False if there are answers already, for which no interrupt will come.
    pub(crate) fn end_poll(&self) -> bool {
        let mut state = self.state.lock();
        state.pollers -= 1;
        match (state.pollers, state.vq) {
            // SAFETY: `vq` is open and used under its lock.
            (0, Some(vq)) => unsafe { sys::virtqueue_enable_cb(vq.as_ptr()) },
            // Others look still.
            _ => true,
        }
    }

    /// Closes the queue: after this sending fails with `ENODEV`, and when what is returned is gone the ring
    /// may be deleted. The device must have been reset.
    ///
    /// Returns what is in the ring: what the device answered and nobody took, and what it never answered.
    pub(crate) fn close(&self) -> impl Iterator<Item = KBox<Request<T>>> {
        let vq = self.state.lock().vq.take();
        core::iter::from_fn(move || {
            // SAFETY: Nobody else uses `vq`, which was in the state that all others take it from, and the
            // device is reset.
            let token = unsafe { sys::virtqueue_detach_unused_buf(vq?.as_ptr()) };
            // SAFETY: By the type's invariant.
            unsafe { Self::message(token) }
        })
    }

    /// # Safety
    ///
    /// `token` is null or was made by `send` and is out of the ring.
    unsafe fn message(token: *mut c_void) -> Option<KBox<Request<T>>> {
        let token = NonNull::new(token.cast::<Request<T>>())?;
        // SAFETY: By the contract it is a box turned into a pointer that nobody else has.
        Some(unsafe { KBox::from_raw(token.as_ptr()) })
    }
}

/// Initialises a [`Queue`] with a lock class of its own.
#[macro_export]
macro_rules! new_queue {
    ($raw:expr, $name:literal) => {
        $crate::kapi::virtqueue::Queue::new(
            $raw,
            kernel::c_str!($name),
            kernel::static_lock_class!(),
        )
    };
}

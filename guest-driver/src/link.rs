// SPDX-License-Identifier: GPL-2.0

//! The driver's side of the queues: sending messages and waiting for their answers.
//!
//! Every message is answered by the device within [`ANSWER_LIMIT_MS`], since none of those sent
//! here depends on a fault (commands, which may, are not waited for here). A device that does not
//! is broken: from then on every call fails with `EIO` at once, and all commands end with it. Who waits
//! looks into the ring for a while before sleeping: most answers come sooner than an interrupt would.
//!
//! Lock order: context table → a context's command table or request ring → a queue's lock. All
//! of them are taken with interrupts disabled, because interrupt handlers take them too.

use crate::{
    commands::Commands,
    context_table::{ContextId, ContextTable},
    kapi::{
        completion::Completion,
        irqlock::IrqSpinLock,
        misc::need_resched,
        virtqueue::{Queue, RawQueue, Request},
        work::Workqueue,
    },
    new_irqlock, new_queue,
    stats::Stats,
    wire,
};
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    time::{delay::fsleep, Delta, Instant, Monotonic},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest wait for the device's answer: far above any copy or invalidation, below the kernel's
/// hung-task limit.
pub(crate) const ANSWER_LIMIT_MS: u32 = 10_000;
/// Steps in which that limit is waited for. A guest that was stopped, with its device, finds when it goes
/// on that its clock has run meanwhile: that ends one step, not the wait.
const ANSWER_STEPS: u32 = 10;
const ANSWER_STEP_MS: u32 = ANSWER_LIMIT_MS / ANSWER_STEPS;
/// Longest look for an answer before the caller sleeps, 200 µs: about what a sleep and the interrupt
/// that ends it cost, and what most answers, a copy of a megabyte among them, take.
const POLL_LIMIT: Delta = Delta::from_micros(200);
/// Pause before a full ring is tried again.
const FULL_RING_PAUSE: Delta = Delta::from_micros(50);

/// Who waits for a message's answer.
#[pin_data]
pub(crate) struct Waiter {
    #[pin]
    done: Completion,
    #[pin]
    answer: IrqSpinLock<Option<KBox<CallRequest>>>,
}

impl Waiter {
    fn new(flags: Flags) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                done <- Completion::new(),
                answer <- new_irqlock!(None, "coax_answer"),
            }),
            flags,
        )
    }
}

/// A message that is answered once, to a waiter or to nobody.
pub(crate) type CallRequest = Request<Option<Arc<Waiter>>>;

/// A message whose answer is under way.
pub(crate) struct Pending {
    waiter: Arc<Waiter>,
    /// Index of the queue that it comes by.
    queue: u16,
}

/// What a command carries through its queue.
#[derive(Clone, Copy)]
pub(crate) struct CommandTag {
    /// Context that sent it.
    pub(crate) context: ContextId,
    /// Its identifier.
    pub(crate) id: u64,
}

/// What device and driver agreed on beyond the version of the ABI.
#[derive(Clone, Copy)]
pub(crate) struct Features {
    /// `F_ATOMIC`.
    pub(crate) atomic: bool,
    /// `F_TRANSLATION_AHEAD`.
    pub(crate) translation_ahead: bool,
}

/// The queues of one device and what all parts of the driver share with them.
#[pin_data]
pub(crate) struct Link {
    #[pin]
    control: Queue<Option<Arc<Waiter>>>,
    #[pin]
    copy: Queue<Option<Arc<Waiter>>>,
    #[pin]
    translation: Queue<Option<Arc<Waiter>>>,
    #[pin]
    request: Queue<()>,
    command: KVec<Pin<KBox<Queue<CommandTag>>>>,
    broken: Atomic<bool>,
    /// What was agreed on.
    pub(crate) features: Features,
    /// Who handles the device's requests.
    #[pin]
    pub(crate) contexts: ContextTable,
    /// Runs the contexts' workers.
    pub(crate) workqueue: Workqueue,
    /// Counters.
    pub(crate) stats: Stats,
}

impl Link {
    /// Takes over the device's queues, in the order of the device ABI.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL`: no command queue.
    pub(crate) fn new(
        queues: KVec<RawQueue>,
        features: Features,
        max_contexts: u32,
    ) -> Result<Arc<Self>> {
        let mut queues = queues.into_iter();
        let mut next = || queues.next().ok_or(EINVAL);
        let (control, copy, translation, request) = (next()?, next()?, next()?, next()?);
        let mut command = KVec::new();
        for raw in queues {
            command.push(
                KBox::pin_init(new_queue!(raw, "coax_command"), GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }
        if command.is_empty() {
            return Err(EINVAL);
        }
        let workqueue = Workqueue::new()?;
        let contexts = ContextTable::new(max_contexts)?;
        let link = Arc::pin_init(
            pin_init!(Self {
                control <- new_queue!(control, "coax_control"),
                copy <- new_queue!(copy, "coax_copy"),
                translation <- new_queue!(translation, "coax_translation"),
                request <- new_queue!(request, "coax_request"),
                command,
                broken: Atomic::new(false),
                features,
                contexts <- contexts,
                workqueue,
                stats: Stats::new(),
            }),
            GFP_KERNEL,
        )?;
        link.copy.silence();
        Ok(link)
    }

    /// Whether the device has stopped answering.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// Gives the device up: all commands end with `EIO`.
    pub(crate) fn mark_broken(&self, why: &str) {
        if !self.broken.xchg(true, kernel::sync::atomic::Full) {
            pr_err!(
                "the device {}; unbind and bind the driver to recover\n",
                why
            );
        }
        self.contexts.fail_commands(EIO);
    }

    /// Sends a message; waits while the ring is full, which the device always empties.
    fn send(&self, queue: &Queue<Option<Arc<Waiter>>>, mut message: KBox<CallRequest>) -> Result {
        let mut steps = 0;
        let mut began = Instant::<Monotonic>::now();
        loop {
            if self.is_broken() {
                return Err(EIO);
            }
            match queue.send(message) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error == ENOSPC || error == ENOMEM => message = back,
                Err((error, _)) => return Err(error),
            }
            if began.elapsed().as_millis() > ANSWER_STEP_MS.into() {
                steps += 1;
                began = Instant::<Monotonic>::now();
            }
            if steps == ANSWER_STEPS {
                self.mark_broken("gave no answer in time");
                return Err(EIO);
            }
            fsleep(FULL_RING_PAUSE);
        }
    }

    fn begin(&self, queue: u16, mut message: KBox<CallRequest>, flags: Flags) -> Result<Pending> {
        let waiter = Waiter::new(flags)?;
        message.data = Some(waiter.clone());
        let to = match queue {
            wire::QUEUE_CONTROL => &self.control,
            wire::QUEUE_COPY => &self.copy,
            _ => &self.translation,
        };
        self.send(to, message)?;
        Ok(Pending { waiter, queue })
    }

    fn finish(&self, pending: Pending) -> Result<KBox<CallRequest>> {
        let waiter = &pending.waiter;
        if let Some(answer) = self.poll(pending.queue, || waiter.answer.lock().take()) {
            return Ok(answer);
        }
        let silent = self.silent(pending.queue);
        if silent.is_some_and(|queue| !queue.begin_sleep()) {
            self.take(pending.queue);
        }
        let answered = (0..ANSWER_STEPS).any(|_| waiter.done.wait(ANSWER_STEP_MS));
        if let Some(queue) = silent {
            queue.end_sleep();
        }
        if !answered {
            self.mark_broken("gave no answer in time");
            return Err(EIO);
        }
        let answer = waiter.answer.lock().take();
        answer.ok_or(EIO)
    }

    /// The queue of that index if its answers come without interrupts while nobody sleeps: each copy
    /// has somebody who looks for its answer, and several are on their way at once.
    fn silent(&self, queue: u16) -> Option<&Queue<Option<Arc<Waiter>>>> {
        (queue == wire::QUEUE_COPY).then_some(&self.copy)
    }

    /// Looks for what comes by `queue` until `done` is satisfied, for [`POLL_LIMIT`] or until others
    /// want the CPU.
    fn poll<T>(&self, queue: u16, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        let began = Instant::<Monotonic>::now();
        loop {
            if let Some(result) = done() {
                return Some(result);
            }
            if need_resched() || began.elapsed().as_nanos() > POLL_LIMIT.as_nanos() {
                return None;
            }
            self.take(queue);
        }
    }

    /// A control request, for `context` if it names one, with the value it is answered with; `reply` bytes
    /// may follow that.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken. `EBUSY`, `EINVAL`: the device refuses. `ENOMEM`.
    pub(crate) fn control(
        &self,
        opcode: u32,
        context: Option<ContextId>,
        arg0: u64,
        arg1: u64,
        reply: &mut [u8],
    ) -> Result<u32> {
        let head = size_of::<wire::ControlReply>();
        let id = context.unwrap_or(ContextId {
            number: 0,
            generation: 0,
        });
        let mut message = new_message(
            size_of::<wire::ControlRequest>(),
            head + reply.len(),
            GFP_KERNEL,
        )?;
        put(
            &mut message,
            0,
            &wire::ControlRequest {
                opcode: opcode.into(),
                context: id.number.into(),
                generation: id.generation.into(),
                reserved: 0.into(),
                arg0: arg0.into(),
                arg1: arg1.into(),
            },
        )?;
        let pending = self.begin(wire::QUEUE_CONTROL, message, GFP_KERNEL)?;
        let answer = self.finish(pending)?;
        let (head, rest) =
            wire::ControlReply::read_from_prefix(answer.writable()).map_err(|_| EIO)?;
        match head.status.get() {
            wire::STATUS_OK => {
                reply.copy_from_slice(rest);
                Ok(head.value.get())
            }
            wire::STATUS_BUSY => Err(EBUSY),
            _ => Err(EINVAL),
        }
    }

    /// Has the device begin with the copies in `message`, a copy chain with room for its reply.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken. `ENOMEM`.
    pub(crate) fn begin_copy(&self, message: KBox<CallRequest>) -> Result<Pending> {
        self.begin(wire::QUEUE_COPY, message, GFP_KERNEL)
    }

    /// Waits until the copies are done.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken or refused.
    pub(crate) fn finish_copy(&self, pending: Pending) -> Result {
        let answer = self.finish(pending)?;
        let reply = wire::CopyReply::read_from_bytes(answer.writable()).map_err(|_| EIO)?;
        if reply.status.get() == wire::STATUS_OK {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Puts a completion or response into the translation queue, behind all that went before.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken.
    pub(crate) fn post_translation(&self, message: KBox<CallRequest>) -> Result {
        self.send(&self.translation, message)
    }

    /// Puts an invalidation into the translation queue; allocates without reclaim.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken. `ENOMEM`.
    pub(crate) fn begin_invalidation(&self, message: KBox<CallRequest>) -> Result<Pending> {
        self.begin(wire::QUEUE_TRANSLATION, message, GFP_ATOMIC)
    }

    /// Waits until the device has dropped the range and finished its accesses.
    ///
    /// # Errors
    ///
    /// `EIO`: the device is broken.
    pub(crate) fn finish_invalidation(&self, pending: Pending) -> Result {
        self.finish(pending).map(|_| ())
    }

    /// Sends a command on the queue that its context uses.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: the ring is full. `EIO`: the device is broken.
    pub(crate) fn command(&self, message: KBox<Request<CommandTag>>) -> Result {
        if self.is_broken() {
            return Err(EIO);
        }
        let queue = &self.command[message.data.context.number as usize % self.command.len()];
        queue.send(message).map_err(|(error, _)| error)
    }

    /// Looks for a while for the answer to a command of `context`, until `done` says that it is there.
    pub(crate) fn poll_command(&self, context: u32, done: impl Fn() -> bool) {
        let index = context as usize % self.command.len();
        self.poll(wire::QUEUE_COMMAND + index as u16, || done().then_some(()));
    }

    /// Opens a context under `number`, which is free on the device.
    ///
    /// # Errors
    ///
    /// Those of [`Self::control`]; `EIO` also where the device gives no generation.
    pub(crate) fn open_context(&self, number: u32) -> Result<ContextId> {
        let id = ContextId {
            number,
            generation: 0,
        };
        let generation = self.control(wire::CONTROL_CONTEXT_OPEN, Some(id), 0, 0, &mut [])?;
        if generation == 0 {
            self.stats.device_errors.add(1);
            return Err(EIO);
        }
        Ok(ContextId { number, generation })
    }

    /// Closes a context on the device and takes all that the device asked and answered for it, in
    /// this order: after it nothing of the context is in the rings. Its commands end.
    pub(crate) fn close_context(&self, id: ContextId, commands: &Commands) {
        // A broken device answers nothing and is told nothing.
        let _ = self.control(wire::CONTROL_CONTEXT_CLOSE, Some(id), 0, 0, &mut []);
        self.take_requests();
        self.take_all_commands();
        commands.fail_all(ENODEV);
    }

    /// Number of command queues.
    pub(crate) fn command_queues(&self) -> usize {
        self.command.len()
    }

    /// Gives the device buffers for all the requests it may have outstanding.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EIO`: the device is broken.
    pub(crate) fn post_request_buffers(&self, count: u32) -> Result {
        for _ in 0..count {
            let buffer = Request::new(0, size_of::<wire::DeviceRequest>(), (), GFP_KERNEL)?;
            self.request.send(buffer).map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    /// Takes what the device answered or asks on queue `index`; callable from interrupts.
    pub(crate) fn take(&self, index: u16) {
        match index {
            wire::QUEUE_CONTROL => answer_all(&self.control),
            wire::QUEUE_COPY => answer_all(&self.copy),
            wire::QUEUE_TRANSLATION => answer_all(&self.translation),
            wire::QUEUE_REQUEST => self.take_requests(),
            _ => self.take_commands(index),
        }
    }

    /// Takes all requests that are in the ring. After the answer to the closing of a context this
    /// leaves none of it.
    fn take_requests(&self) {
        while let Some((mut buffer, len)) = self.request.pop() {
            match wire::DeviceRequest::read_from_bytes(buffer.writable()) {
                Ok(request) if len == size_of::<wire::DeviceRequest>() => {
                    self.contexts.dispatch(&request, self);
                }
                _ => self.stats.device_errors.add(1),
            }
            buffer.clear_writable();
            // Fails only when the device is going.
            let _ = self.request.send(buffer);
        }
    }

    fn take_commands(&self, index: u16) {
        let Some(queue) = self.command.get(usize::from(index - wire::QUEUE_COMMAND)) else {
            return;
        };
        while let Some((message, len)) = queue.pop() {
            let reply = wire::CommandReply::read_from_bytes(message.writable());
            let reply = if len == size_of::<wire::CommandReply>() {
                reply.map_err(|_| EIO)
            } else {
                Err(EIO)
            };
            if reply.is_err() {
                self.stats.device_errors.add(1);
            }
            self.contexts.command_done(message.data, reply);
        }
    }

    /// Takes all answered commands; after a context is closed this leaves none of it running.
    fn take_all_commands(&self) {
        for index in 0..self.command.len() as u16 {
            self.take_commands(wire::QUEUE_COMMAND + index);
        }
    }

    /// Empties and closes all queues; the device is reset.
    pub(crate) fn drain(&self) {
        for queue in [&self.control, &self.copy, &self.translation] {
            while let Some(message) = queue.detach_unused() {
                answer(message);
            }
            queue.close();
        }
        while self.request.detach_unused().is_some() {}
        self.request.close();
        for queue in &self.command {
            while let Some(message) = queue.detach_unused() {
                self.contexts.command_done(message.data, Err(ENODEV));
            }
            queue.close();
        }
    }
}

/// A message of the sizes given, to be sent by a [`Link`].
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

fn answer_all(queue: &Queue<Option<Arc<Waiter>>>) {
    while let Some((message, _)) = queue.pop() {
        answer(message);
    }
}

fn answer(mut message: KBox<CallRequest>) {
    if let Some(waiter) = message.data.take() {
        *waiter.answer.lock() = Some(message);
        waiter.done.complete_all();
    }
}

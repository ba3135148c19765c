// SPDX-License-Identifier: GPL-2.0

//! The driver's side of the queues: sending messages, waiting for their answers, and the fence after which
//! there will be none.
//!
//! The device answers every message sent here without waiting for a fault (commands, which may wait for
//! one, are not waited for here). Who waits looks into the ring for a while before sleeping, since most
//! answers come sooner than an interrupt would; then it waits for the answer or a fence, however long that
//! takes (`lifetime`).
//!
//! Lock order: `requests` → context table → a context's command table or request ring → a queue's lock. All
//! of them are taken with interrupts disabled, because interrupt handlers take them too. `fenced` is taken
//! before them, by whoever fences.

mod control;
mod pages;
mod soon;

pub(crate) use crate::call::{new_message, put, CallRequest, Pending};
use crate::{
    call::{hand_back, Call, Reply, Waiter},
    charges::{Account, Charges},
    commands::Commands,
    context_table::{ContextId, ContextTable},
    kapi::{
        completion::Waited,
        irqlock::IrqSpinLock,
        misc::need_resched,
        virtio::Resetter,
        virtqueue::{Queue, RawQueue, Request},
        work::Workqueue,
    },
    lifetime::Lifetime,
    new_irqlock, new_queue,
    stall::STEP_MS,
    stats::Stats,
    users::{User, Users, MOST_USERS},
    wire,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
    time::{delay::fsleep, Delta, Instant, Monotonic},
};
use zerocopy::FromBytes;

/// Longest look for an answer before the caller sleeps, 200 µs: about what a sleep and the interrupt
/// that ends it cost, and what most answers, a copy of a megabyte among them, take.
const POLL_LIMIT: Delta = Delta::from_micros(200);
/// The same for an invalidation, 50 µs: that is answered within some microseconds unless an engine has lost its
/// processor in the middle of a step, and it has one again the sooner, the fewer look.
const INVALIDATION_POLL_LIMIT: Delta = Delta::from_micros(50);
/// Pause before a full ring is tried again.
const FULL_RING_PAUSE: Delta = Delta::from_micros(50);

/// How long who waits for an answer is ready to wait.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// Until there is an answer, or a fence.
    Endless,
    /// The same, or until the caller is killed.
    Killable,
    /// The same, for so many milliseconds.
    Millis(u32),
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
    /// `F_ACCESS_NOTIFICATION`.
    pub(crate) access_notification: bool,
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
    /// Taken while requests are taken and handed on, so that they reach their contexts in order. Buffers go back
    /// in the end: the device cannot send as fast as they are taken.
    #[pin]
    requests: IrqSpinLock<KVec<KBox<Request<()>>>>,
    /// Whether the queues are closed, after a reset.
    #[pin]
    fenced: Mutex<bool>,
    resetter: Arc<Resetter>,
    /// Whether the device is there.
    pub(crate) lifetime: Arc<Lifetime>,
    /// What was agreed on.
    pub(crate) features: Features,
    /// Who handles the device's requests.
    #[pin]
    pub(crate) contexts: ContextTable,
    /// Whose the device memory is.
    #[pin]
    pub(crate) users: IrqSpinLock<Users<KVec<User<Account>>>>,
    /// What of it is charged to whose cgroup.
    #[pin]
    pub(crate) charges: Charges,
    /// Runs the contexts' workers.
    pub(crate) workqueue: Workqueue,
    /// Runs what ends contexts, which may take long.
    pub(crate) endings: Workqueue,
    /// Counters.
    pub(crate) stats: Stats,
}

impl Link {
    /// Takes over the queues of device `number`, in the order of the device ABI.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL`: no command queue.
    pub(crate) fn new(
        queues: KVec<RawQueue>,
        resetter: Arc<Resetter>,
        number: u32,
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
        let workqueue = Workqueue::per_cpu()?;
        let endings = Workqueue::unbound()?;
        let lifetime = Lifetime::new(number)?;
        let requests = KVec::with_capacity(wire::QUEUE_SIZE.into(), GFP_KERNEL)?;
        let contexts = ContextTable::new(max_contexts)?;
        let charges = Charges::new()?;
        let mut users = KVec::new();
        users.resize(MOST_USERS, User::FREE, GFP_KERNEL)?;
        let link = Arc::pin_init(
            pin_init!(Self {
                control <- new_queue!(control, "coax_control"),
                copy <- new_queue!(copy, "coax_copy"),
                translation <- new_queue!(translation, "coax_translation"),
                request <- new_queue!(request, "coax_request"),
                command,
                requests <- new_irqlock!(requests, "coax_requests_taken"),
                fenced <- new_mutex!(false, "coax_fenced"),
                resetter,
                lifetime,
                features,
                contexts <- contexts,
                users <- new_irqlock!(Users::new(users), "coax_users"),
                charges <- charges,
                workqueue,
                endings,
                stats: Stats::new(),
            }),
            GFP_KERNEL,
        )?;
        link.copy.silence();
        link.translation.silence();
        Ok(link)
    }

    /// What the device is reset with.
    pub(crate) fn resetter(&self) -> &Resetter {
        &self.resetter
    }

    /// Resets the device because of `why`, so that it touches no memory any more, and ends all that waits for
    /// it. When this returns it is silent. Sleeps; callable under the locks that invalidations are sent under.
    pub(crate) fn fence(&self, why: &str) {
        let mut fenced = self.fenced.lock();
        if *fenced {
            return;
        }
        if !self.lifetime.is_leaving() {
            pr_err!(
                "coax{}: the device {}; it is reset and used no more: unbind and bind the driver to recover\n",
                self.lifetime.number(),
                why
            );
        }
        self.resetter.reset();
        self.close();
        *fenced = true;
    }

    /// Ends all that waits for the device, which is reset.
    pub(crate) fn drain(&self) {
        let mut fenced = self.fenced.lock();
        if !*fenced {
            self.close();
            *fenced = true;
        }
    }

    /// Empties and closes all queues.
    fn close(&self) {
        self.lifetime.fall_silent();
        for (index, queue) in [
            (wire::QUEUE_CONTROL, &self.control),
            (wire::QUEUE_COPY, &self.copy),
            (wire::QUEUE_TRANSLATION, &self.translation),
        ] {
            // What it answered before counts.
            self.take(index);
            queue.close().for_each(|message| hand_back(message, None));
        }
        self.request.close().for_each(drop);
        self.take_all_commands();
        let error = self.lifetime.error();
        for queue in &self.command {
            for message in queue.close() {
                self.contexts.command_done(message.data, Err(error));
            }
        }
        self.contexts.end_commands(error);
    }

    /// Fences a device that does not work any more, or not as it should. Its interrupts have that done too,
    /// but not before the driver has started it.
    pub(crate) fn look_after(&self) {
        if self.lifetime.is_silent() {
            return;
        }
        if let Some(offence) = self.lifetime.offence() {
            self.fence(offence);
        } else if self.resetter.needs_reset() {
            self.fence("does not work any more");
        }
    }

    /// The device sent `what` no working device sends, and whose command waits for an answer to it is not
    /// known. Callable from interrupts.
    pub(crate) fn accuse(&self, what: &'static str) {
        self.stats.device_errors.add(1);
        self.lifetime.accuse(what);
    }

    /// Fences a device that was accused. Sleeps.
    fn judge(&self) {
        if self.lifetime.offence().is_some() {
            self.look_after();
        }
    }

    /// Sends a message; waits while the ring is full, which the device always empties.
    fn send(&self, index: u16, mut message: KBox<CallRequest>) -> Result {
        let queue = match index {
            wire::QUEUE_CONTROL => &self.control,
            wire::QUEUE_COPY => &self.copy,
            _ => &self.translation,
        };
        let mut wait = self.lifetime.stall.wait("taken a message");
        let mut began = Instant::<Monotonic>::now();
        loop {
            match queue.send(message) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error == ENOSPC || error == ENOMEM => message = back,
                Err(_) => return Err(self.lifetime.error()),
            }
            // Others may all be here too, with nobody left who takes answers.
            if answer_all(queue) {
                continue;
            }
            if began.elapsed().as_millis() > STEP_MS.into() {
                began = Instant::<Monotonic>::now();
                wait.step();
                self.look_after();
            }
            fsleep(FULL_RING_PAUSE);
        }
    }

    fn begin(&self, queue: u16, call: Call) -> Result<Pending> {
        let (message, pending) = call.split(queue);
        self.send(queue, message)?;
        Ok(pending)
    }

    /// Waits for what becomes of a message.
    pub(crate) fn finish(&self, pending: Pending) -> Reply {
        let mut pending = pending;
        loop {
            match self.finish_by(pending, Patience::Endless) {
                Ok(reply) => return reply,
                Err(back) => pending = back,
            }
        }
    }

    /// Waits for what becomes of a message; gives the wait back if the caller loses its patience first.
    pub(crate) fn finish_by(&self, pending: Pending, patience: Patience) -> Result<Reply, Pending> {
        if let Some(reply) = self.poll(pending.queue, || pending.take()) {
            return Ok(reply);
        }
        let silent = self.silent(pending.queue);
        if silent.is_some_and(|queue| !queue.begin_sleep()) {
            self.take(pending.queue);
        }
        self.sleep(&pending, patience);
        if let Some(queue) = silent {
            queue.end_sleep();
        }
        pending.take().ok_or(pending)
    }

    fn sleep(&self, pending: &Pending, patience: Patience) {
        let mut wait = self.lifetime.stall.wait(match pending.queue {
            wire::QUEUE_CONTROL => "answered a control request",
            wire::QUEUE_COPY => "copied pages",
            _ => "given translations up",
        });
        let done = pending.done();
        loop {
            let ended = match patience {
                Patience::Endless => done.wait(STEP_MS),
                Patience::Killable => !matches!(done.wait_killable(STEP_MS), Waited::TimedOut),
                // One wait is all of it.
                Patience::Millis(limit) => {
                    let _ = done.wait(limit);
                    true
                }
            };
            if ended {
                return;
            }
            wait.step();
            self.look_after();
        }
    }

    /// The queue of that index if its answers come without interrupts while nobody sleeps: each copy and
    /// each invalidation has somebody who looks for its answer, and completions and responses have none.
    fn silent(&self, queue: u16) -> Option<&Queue<Option<Arc<Waiter>>>> {
        match queue {
            wire::QUEUE_COPY => Some(&self.copy),
            wire::QUEUE_TRANSLATION => Some(&self.translation),
            _ => None,
        }
    }

    /// Looks for what comes by `queue` until `done` is satisfied, for [`POLL_LIMIT`] at most or until others
    /// want the CPU.
    fn poll<T>(&self, queue: u16, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        let began = Instant::<Monotonic>::now();
        let limit = match queue {
            wire::QUEUE_TRANSLATION => INVALIDATION_POLL_LIMIT,
            _ => POLL_LIMIT,
        };
        loop {
            if let Some(result) = done() {
                return Some(result);
            }
            if need_resched() || began.elapsed().as_nanos() > limit.as_nanos() {
                return None;
            }
            self.take(queue);
        }
    }

    /// Sends a command on the queue that its context uses, which has so many in flight, this one among them:
    /// no more than there is still room for, so that however many contexts are greedy there is room for one
    /// more.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: the context's share is used up. `EIO`: the device is silent.
    pub(crate) fn command(&self, message: KBox<Request<CommandTag>>, in_flight: usize) -> Result {
        let queue = &self.command[message.data.context.number as usize % self.command.len()];
        if in_flight > queue.room() && !self.lifetime.is_silent() {
            return Err(ENOSPC);
        }
        queue.send(message).map_err(|(error, _)| match error {
            error if error == ENOSPC || error == ENOMEM => error,
            _ => self.lifetime.error(),
        })
    }

    /// Takes all that the device asked and answered for a context that it has closed, whose commands end:
    /// after this nothing of the context is in the rings.
    pub(crate) fn take_closed(&self, commands: &Commands) {
        self.take_requests();
        self.take_all_commands();
        commands.end(ENODEV);
        self.judge();
    }

    /// Number of command queues.
    pub(crate) fn command_queues(&self) -> usize {
        self.command.len()
    }

    /// Gives the device `count` buffers for requests, more than it may have outstanding, or as many as the queue
    /// has room for: with fewer, requests wait for one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EIO`: the device is silent.
    pub(crate) fn post_request_buffers(&self, count: u32) -> Result {
        for _ in 0..count {
            let buffer = Request::new(0, size_of::<wire::DeviceRequest>(), (), GFP_KERNEL)?;
            match self.request.send(buffer) {
                Ok(()) => {}
                Err((error, _)) if error == ENOSPC => break,
                Err(_) => return Err(self.lifetime.error()),
            }
        }
        Ok(())
    }

    /// Takes what the device answered or asks on queue `index`; callable from interrupts.
    pub(crate) fn take(&self, index: u16) {
        match index {
            wire::QUEUE_CONTROL => {
                answer_all(&self.control);
            }
            wire::QUEUE_COPY => {
                answer_all(&self.copy);
            }
            wire::QUEUE_TRANSLATION => {
                answer_all(&self.translation);
            }
            wire::QUEUE_REQUEST => self.take_requests(),
            _ => self.take_commands(index),
        }
    }

    /// Takes all requests that are in the ring. After the answer to the closing of a context this
    /// leaves none of it.
    fn take_requests(&self) {
        let mut taken = self.requests.lock();
        while let Some((buffer, len)) = self.request.pop() {
            match wire::DeviceRequest::read_from_bytes(buffer.written(len)) {
                Ok(request) => self.contexts.dispatch(&request, self),
                Err(_) => self.accuse("asks with something that is no request"),
            }
            // There is room for as many as were ever sent.
            let _ = taken.push_within_capacity(buffer);
        }
        while let Some(mut buffer) = taken.pop() {
            buffer.clear_writable();
            // Fails only when the device is silent.
            let _ = self.request.send(buffer);
        }
    }

    fn take_commands(&self, index: u16) {
        let Some(queue) = self.command.get(usize::from(index - wire::QUEUE_COMMAND)) else {
            return;
        };
        while let Some((message, len)) = queue.pop() {
            let reply = wire::CommandReply::read_from_bytes(message.written(len));
            let reply = reply.map_err(|_| EIO);
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
}

/// Hands back all that was answered; whether that is anything.
fn answer_all(queue: &Queue<Option<Arc<Waiter>>>) -> bool {
    let mut any = false;
    while let Some((message, len)) = queue.pop() {
        hand_back(message, Some(len));
        any = true;
    }
    any
}

// SPDX-License-Identifier: GPL-2.0

//! Answering the device's requests for one context.
//!
//! A request means "translate, else make it so", and is answered once. First it is looked at what is there
//! (`stands`): if that will do, it is the answer. Else, under `POLICY_ON_FAULT`, pages move to device memory
//! (`moving`), what is missing is faulted in, and what is there then is the answer (`answer`); pages that
//! cannot move the device uses where they are, so that every request ends. A request for atomic operations
//! takes pages of system memory from the CPUs (`exclusive`).
//!
//! The loop is that of `Documentation/mm/hmm.rst`: read the sequence, look at the page table, then, under
//! the mirror's lock, post the answer if nothing changed meanwhile, else begin anew.
//!
//! Requests come by interrupt into a ring and are handled in order by the context's worker, or by a caller who
//! waits for a command and finds them first ([`Helper`]). Neither waits for anybody: a fault that has to wait for
//! a device or a program goes on in a thread of its own (`wait`), and the requests behind it are answered
//! meanwhile. Contexts do not wait for each other. Neither workers nor threads hold a lock of the driver while
//! they migrate or fault pages in, because both call the notifier.
//!
//! What the device only tells of (`hot`) is moved by the worker, after all requests.
//!
//! Teardown: first the mirror is closed, after which no thread begins, then the worker is cancelled and the
//! threads are ended. A caller who is in the middle of an answer then holds a guard of the lifetime.

mod answer;
mod exclusive;
mod hot;
mod moving;
mod stands;
mod wait;

use crate::{
    device::Device,
    hot::Hot,
    kapi::{
        hmm::HmmPfn,
        irqlock::IrqSpinLock,
        migrate::PageArrays,
        misc::this_cpu,
        mm,
        notifier::{IntervalNotifier, EVERYWHERE},
        thread::Thread,
        trace,
        work::{Work, Worker, Workqueue},
    },
    memory::DeviceMemory,
    migration::WINDOW_PAGES,
    mirror::Mirror,
    new_irqlock, wire,
};
use answer::Answered;
use core::cell::Cell;
use kernel::{
    alloc::AllocError,
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, Mutex,
    },
    time::{delay::fsleep, Delta},
};
use wait::Waiting;
use zerocopy::FromZeros;

/// Longest attempt to answer one request while the mappings keep changing.
const RETRY_LIMIT: Delta = Delta::from_secs(5);
/// Pause before the device is told to ask again because memory is short, which others need time to change.
const SHORTAGE_PAUSE: Delta = Delta::from_millis(10);
/// Requests waiting for the worker: all that the device may have outstanding.
const RING: usize = wire::MAX_PAGE_REQUESTS as usize;

const PAGE_SIZE: u64 = wire::PAGE_SIZE;

/// What a thread that answers uses again for each request.
struct Scratch {
    pfns: KVec<HmmPfn>,
    arrays: PageArrays,
}

impl Scratch {
    fn new() -> Result<Self> {
        let mut pfns = KVec::new();
        pfns.resize(WINDOW_PAGES, HmmPfn::NONE, GFP_KERNEL)?;
        Ok(Scratch {
            pfns,
            arrays: PageArrays::default(),
        })
    }
}

/// Access that a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Reading.
    Read,
    /// Writing, which includes reading.
    Write,
    /// Atomic operations, which include both.
    Atomic,
}

impl Want {
    fn of(request: &wire::DeviceRequest) -> Self {
        let flags = request.flags.get();
        match (
            flags & wire::ACCESS_ATOMIC != 0,
            flags & wire::ACCESS_WRITE != 0,
        ) {
            (true, _) => Want::Atomic,
            (false, true) => Want::Write,
            (false, false) => Want::Read,
        }
    }

    /// Whether pages must be writable.
    fn writes(self) -> bool {
        self != Want::Read
    }

    /// Whether a page found so lacks what is wanted.
    fn lacks(self, pfn: HmmPfn) -> bool {
        pfn.page().is_none() || self.writes() && !pfn.is_writable()
    }
}

/// Why a request is not answered with translations.
enum Refusal {
    /// No such page, or no such right.
    Invalid,
    /// The process is gone, or the device.
    Failure,
    /// Something that passes: the device is to ask again.
    Later,
    /// Somebody has to be waited for before the first page is there.
    Wait,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        if error == EFAULT || error == EPERM || error == EINVAL {
            Refusal::Invalid
        } else if error == ESRCH || error == EIO || error == ENODEV {
            Refusal::Failure
        } else {
            if error == ENOMEM {
                fsleep(SHORTAGE_PAUSE);
            }
            Refusal::Later
        }
    }
}

impl From<AllocError> for Refusal {
    fn from(_: AllocError) -> Self {
        ENOMEM.into()
    }
}

/// A request being answered.
#[derive(Clone, Copy)]
struct Asked<'a> {
    request: &'a wire::DeviceRequest,
    memory: &'a dyn DeviceMemory,
    mm: &'a MmWithUser,
    want: Want,
    va: u64,
    /// It is known, and counted, that something has to be done.
    worked: bool,
}

/// Answers the requests of one context, from whichever thread.
#[pin_data]
pub(crate) struct Resolver {
    device: Arc<Device>,
    mirror: Arc<Mirror>,
    /// Watches the process's mappings.
    #[pin]
    notifier: IntervalNotifier<Mirror>,
    /// Requests that wait for somebody.
    #[pin]
    waiting: Mutex<KVec<Thread<Waiting>>>,
}

impl Resolver {
    /// Takes a request, and answers it unless it has to wait.
    fn take(
        self: &Arc<Self>,
        memory: &dyn DeviceMemory,
        request: wire::DeviceRequest,
        s: &mut Scratch,
    ) {
        let stats = &self.device.link.stats;
        stats.translation_requests.add(1);
        if !self.is_sensible(&request) {
            stats.device_errors.add(1);
            // It ends the command and stops the context.
            return self.respond(&request, wire::RESPONSE_FAILURE);
        }
        if let Err(Refusal::Wait) = self.serve(memory, &request, false, s) {
            self.wait_for(request);
        }
    }

    /// Whether a working device would ask so.
    fn is_sensible(&self, request: &wire::DeviceRequest) -> bool {
        let (npages, around) = (request.npages.get(), request.around.get());
        let flags = request.flags.get();
        (1..=wire::MAX_RANGE_PAGES).contains(&npages)
            && (npages..=wire::MAX_RANGE_PAGES).contains(&around)
            && request.va.get() % PAGE_SIZE == 0
            && request.kind.get() == wire::REQUEST_PAGE
            && (flags & wire::ACCESS_ATOMIC == 0 || self.device.link.features.atomic)
    }

    /// Answers a request, for which something was done before if `worked` says so, but for one that has to
    /// wait ([`Refusal::Wait`]).
    fn serve(
        &self,
        memory: &dyn DeviceMemory,
        request: &wire::DeviceRequest,
        worked: bool,
        scratch: &mut Scratch,
    ) -> Result<(), Refusal> {
        let Some(mm) = mm::get(self.notifier.mm()) else {
            self.respond(request, wire::RESPONSE_FAILURE);
            return Ok(());
        };
        let _charged = mm::charge_to(&mm);
        let asked = Asked {
            request,
            memory,
            mm: &mm,
            want: Want::of(request),
            va: request.va.get(),
            worked,
        };
        let stands = self.as_it_stands(asked, scratch);
        if !worked {
            if let Ok(None) = stands {
                return Ok(());
            }
            self.count_page_request(request);
        }
        let answered = stands.and_then(|found| match found {
            Some(found) => self.resolve(asked, found, scratch),
            None => Ok(()),
        });
        match answered {
            Ok(()) => self.count_response(request, wire::RESPONSE_SUCCESS),
            Err(Refusal::Wait) => return Err(Refusal::Wait),
            Err(Refusal::Invalid) => self.respond(request, wire::RESPONSE_INVALID),
            Err(Refusal::Failure) => self.respond(request, wire::RESPONSE_FAILURE),
            Err(Refusal::Later) => self.respond(request, wire::RESPONSE_SUCCESS),
        }
        Ok(())
    }

    /// Makes the pages usable and posts a message with their translations.
    fn resolve(
        &self,
        asked: Asked<'_>,
        found: stands::Found,
        scratch: &mut Scratch,
    ) -> Result<(), Refusal> {
        if found.moves && asked.want.writes() {
            self.break_copy_on_write(asked, &found, scratch)?;
        }
        let moved = match found.moves {
            true => self.migrate(asked, &found, scratch),
            false => None,
        };
        if asked.want == Want::Atomic {
            return self.answer_exclusive(asked, &found, scratch);
        }
        let reach = moved.clone().map_or(0, |window| window.end);
        if moved.is_some() {
            if let Answered::No = self.answer(asked, &found, reach, true, scratch)? {
                // What had been elsewhere (private pages of another device) is in system memory only now.
                self.migrate(asked, &found, scratch);
            } else {
                return Ok(());
            }
        }
        self.answer(asked, &found, reach, false, scratch)?;
        Ok(())
    }

    /// Answers a request with `code` and no translations.
    fn respond(&self, request: &wire::DeviceRequest, code: u32) {
        self.count_response(request, code);
        let head = head(request, wire::MSG_PAGE_RESPONSE, code);
        let post = || answer::message_for(head, 0).and_then(|m| self.mirror.lock().post(m, 0, 0));
        // Without an answer the command would wait for ever. Else this fails when the device is broken or has
        // closed the context, and then nobody waits for it.
        while post() == Err(ENOMEM) {
            fsleep(SHORTAGE_PAUSE);
        }
    }

    fn count_page_request(&self, request: &wire::DeviceRequest) {
        let (va, npages, flags) = (request.va.get(), request.npages.get(), request.flags.get());
        trace::page_request(request.context.get(), va, npages, flags);
        self.device.link.stats.page_requests.add(1);
        self.mirror.stats.page_requests.add(1);
    }

    fn count_response(&self, request: &wire::DeviceRequest, code: u32) {
        let stats = &self.device.link.stats;
        match code {
            wire::RESPONSE_SUCCESS => stats.responses_success.add(1),
            wire::RESPONSE_INVALID => stats.responses_invalid.add(1),
            _ => stats.responses_failure.add(1),
        }
        trace::group_response(request.context.get(), request.tag.get(), code);
    }
}

fn head(request: &wire::DeviceRequest, kind: u32, code: u32) -> wire::TranslationMessage {
    wire::TranslationMessage {
        kind: kind.into(),
        context: request.context,
        generation: request.generation,
        tag: request.tag,
        code: code.into(),
        ..wire::TranslationMessage::new_zeroed()
    }
}

/// Takes the requests of one context.
#[pin_data(PinnedDrop)]
pub(crate) struct Faults {
    resolver: Arc<Resolver>,
    #[pin]
    ring: IrqSpinLock<KVec<wire::DeviceRequest>>,
    /// What the device has told of.
    #[pin]
    hot: IrqSpinLock<Hot>,
    /// Whether the device was told to.
    #[pin]
    watched: Mutex<bool>,
    #[pin]
    scratch: Mutex<Scratch>,
    /// Callers who answer requests while they wait for their commands.
    helpers: Atomic<u32>,
    /// CPU that submitted last. What the program has just written is in this CPU's batch of pages
    /// not yet on the LRU lists, which a migration empties cheaply only for its own CPU.
    pub(crate) cpu: Atomic<u32>,
}

impl Faults {
    /// Handles requests about `mm`, which must be in use.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new(
        device: Arc<Device>,
        mm: &MmWithUser,
        mirror: Arc<Mirror>,
    ) -> Result<impl PinInit<Self, Error>> {
        let resolver = Arc::pin_init(
            try_pin_init!(Resolver {
                device,
                notifier <- IntervalNotifier::new(mm, EVERYWHERE, mirror.clone()),
                mirror,
                waiting <- new_mutex!(KVec::new(), "coax_waiting"),
            }? Error),
            GFP_KERNEL,
        )?;
        let ring = KVec::with_capacity(RING, GFP_KERNEL)?;
        let scratch = Scratch::new()?;
        Ok(try_pin_init!(Self {
            resolver,
            ring <- new_irqlock!(ring, "coax_requests"),
            hot <- new_irqlock!(Hot::new(), "coax_hot"),
            watched <- new_mutex!(false, "coax_watched"),
            scratch <- new_mutex!(scratch, "coax_scratch"),
            helpers: Atomic::new(0),
            cpu: Atomic::new(this_cpu()),
        }? Error))
    }

    /// The context's mirror.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.resolver.mirror
    }

    /// Takes a request; callable from interrupts.
    ///
    /// # Errors
    ///
    /// What no working device does.
    pub(crate) fn push(&self, request: &wire::DeviceRequest) -> Result<(), &'static str> {
        if request.kind.get() == wire::NOTIFY_ACCESS {
            return match self.told(request) {
                true => Ok(()),
                false => Err("tells of what it was not asked for"),
            };
        }
        let pushed = self.ring.lock().push_within_capacity(*request);
        pushed.map_err(|_| "has more requests outstanding than it may")
    }

    /// Whether the worker has to look after what was just pushed: callers who wait for commands answer requests
    /// in its place. Callable from interrupts.
    pub(crate) fn is_for_worker(&self, request: &wire::DeviceRequest) -> bool {
        // Ordered with the last look of a helper that leaves, which finds what this did not leave to the worker.
        request.kind.get() == wire::NOTIFY_ACCESS || self.helpers.fetch_add(0, Full) == 0
    }

    /// Answers the requests that are there; `scratch` is this context's.
    fn answer_all(&self, memory: &dyn DeviceMemory, scratch: &mut Scratch) {
        while !self.resolver.mirror.is_closed() {
            let request = {
                let mut ring = self.ring.lock();
                match ring.is_empty() {
                    true => return,
                    false => ring.remove(0),
                }
            };
            match request {
                Ok(request) => self.resolver.take(memory, request, scratch),
                Err(_) => return,
            }
        }
    }

    /// Tells the device where pages are before it asks; of what changes meanwhile it will ask.
    ///
    /// # Errors
    ///
    /// `ESRCH`: the process is gone. `ENOMEM`. `EIO`: the device is broken.
    pub(crate) fn tell_ahead(&self, memory: &dyn DeviceMemory, va: u64, npages: usize) -> Result {
        self.resolver.tell_ahead(memory, va, npages)
    }
}

/// Has the worker answer what was pushed; callable from interrupts.
pub(crate) fn queue(worker: &Worker<Faults>, on: &Workqueue) {
    worker.queue(on, worker.data().cpu.load(Relaxed));
}

/// A caller who answers requests of a context, in place of its worker, until this is dropped: what comes while it
/// waits for a command is mostly of that, and to wake the worker up costs more than many an answer.
pub(crate) struct Helper<'a> {
    worker: &'a Worker<Faults>,
    workqueue: &'a Workqueue,
    helped: Cell<bool>,
}

impl<'a> Helper<'a> {
    /// Begins to answer.
    pub(crate) fn new(worker: &'a Worker<Faults>, workqueue: &'a Workqueue) -> Self {
        worker.data().helpers.fetch_add(1, Full);
        Helper {
            worker,
            workqueue,
            helped: Cell::new(false),
        }
    }

    /// Whether there are requests.
    pub(crate) fn is_needed(&self) -> bool {
        !self.worker.data().ring.lock().is_empty()
    }

    /// Answers what is there, unless that is being done or takes a device that is out of service: those are the
    /// worker's affair. Whether anything was answered. The caller may sleep.
    pub(crate) fn help(&self) -> bool {
        if !self.is_needed() {
            return false;
        }
        let faults = self.worker.data();
        match (faults.resolver.device.memory(), faults.scratch.try_lock()) {
            (Ok(memory), Some(mut scratch)) => {
                self.helped.set(true);
                faults.answer_all(&*memory, &mut scratch);
                true
            }
            _ => {
                queue(self.worker, self.workqueue);
                false
            }
        }
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        let faults = self.worker.data();
        faults.helpers.fetch_sub(1, Full);
        if self.is_needed() {
            queue(self.worker, self.workqueue);
        } else if self.helped.get() {
            if let Ok(memory) = faults.resolver.device.memory() {
                memory.clear_ahead();
            }
        }
    }
}

/// Whether stopping `worker` may take long.
pub(crate) fn is_busy(worker: &Worker<Faults>) -> bool {
    worker.is_busy() || worker.data().resolver.is_waiting()
}

/// Waits until `worker` does nothing more, and its requests wait for nobody any more: those go unanswered.
/// To be called when no more requests come.
pub(crate) fn stop(worker: &Worker<Faults>) {
    worker.cancel();
    worker.data().resolver.stop_waiting();
}

#[pinned_drop]
impl PinnedDrop for Faults {
    /// The worker is cancelled before.
    fn drop(self: Pin<&mut Self>) {
        self.resolver.stop_waiting();
    }
}

impl Work for Faults {
    fn run(&self) {
        // Without memory the device is out of service, and its commands have ended.
        let Ok(memory) = self.resolver.device.memory() else {
            return;
        };
        let mut scratch = self.scratch.lock();
        self.answer_all(&*memory, &mut scratch);
        self.move_hot(&*memory, &mut scratch);
        memory.clear_ahead();
    }
}

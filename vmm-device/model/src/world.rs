// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is around the machine in the model: engines' threads, a driver, and the truth.

use std::collections::VecDeque;

use shuttle::rand::{thread_rng, Rng};
use shuttle::thread;

use crate::access::{Access, Miss};
use crate::commands::{End, Outcome, Waited};
use crate::ledger::{Known, Ledger};
use crate::machine::{Machine, Outside, Pace};
use crate::mmu::atc::Translation;
use crate::mmu::{ContextId, Space};
use crate::resolve::service::TranslationService;
use crate::resolve::windows::Want;
use crate::resolve::{Request, ResponseCode};
use crate::sync::{lock, Arc, Condvar, Mutex, PoisonError};

/// Bytes of a page.
pub const PAGE: u64 = coax_abi::wire::PAGE_SIZE;
/// Engines.
pub const ENGINES: usize = 2;
/// Context numbers.
pub const CONTEXTS: u32 = 2;
/// Pages that commands use in each context.
pub const PAGES: u64 = 3;
/// Buffers of the request queue.
const BUFFERS: usize = 2;
/// Requests that may be outstanding.
const REQUESTS: u32 = 3;
/// Times that a command may miss in a row before it fails.
const MAX_FRUITLESS: u32 = 3;

/// A command: it uses pages one after the other.
#[derive(Debug)]
pub struct Job {
    name: usize,
    engine: usize,
    space: Arc<Space>,
    life: u64,
    pages: Vec<u64>,
    fruitless: u32,
    ledger: Arc<Ledger>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.ledger.dropped(self.name);
    }
}

/// The world around the machine.
#[derive(Debug)]
pub struct World {
    /// What is true.
    pub ledger: Arc<Ledger>,
    service: Service,
    wakers: Vec<Waker>,
    /// Life of the command queues.
    life: Mutex<u64>,
    /// Life that each engine's thread has seen last.
    seen: Mutex<[u64; ENGINES]>,
    /// The engines' threads are to end.
    done: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Waker {
    woken: Mutex<bool>,
    changed: Condvar,
}

/// The request queue.
#[derive(Debug, Default)]
struct Service {
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// The device has found no buffer and asks for a kick.
    refused: bool,
    life: u64,
    done: bool,
}

impl TranslationService for Service {
    fn request(&self, request: &Request) -> bool {
        let mut queue = lock(&self.queue);
        let room = queue.requests.len() < BUFFERS;
        if room {
            queue.requests.push_back(*request);
            self.came.notify_all();
        } else {
            queue.refused = true;
        }
        room
    }

    fn flush(&self) {}

    fn life(&self) -> u64 {
        lock(&self.queue).life
    }
}

/// The machine in its world.
pub type Device = Machine<World>;

/// A device at power-on.
pub fn device() -> Arc<Device> {
    let world = World {
        ledger: Arc::default(),
        service: Service::default(),
        wakers: (0..ENGINES).map(|_| Waker::default()).collect(),
        life: Mutex::new(0),
        seen: Mutex::default(),
        done: Mutex::new(false),
    };
    Arc::new(Machine::new(CONTEXTS, ENGINES, REQUESTS, world))
}

impl World {
    /// Begins another life of all queues, as a driver does that starts anew without a reset.
    pub fn restart(&self) {
        let mut life = lock(&self.life);
        *life += 1;
        self.ledger.forget_all();
        drop(life);
        let mut queue = lock(&self.service.queue);
        queue.life += 1;
        queue.requests.clear();
        drop(queue);
        (0..ENGINES).for_each(|engine| self.wake(engine));
    }

    /// Ends the engines' threads.
    pub fn finish_engines(&self) {
        *lock(&self.done) = true;
        (0..ENGINES).for_each(|engine| self.wake(engine));
    }

    /// Ends the driver's thread.
    pub fn finish_driver(&self) {
        lock(&self.service.queue).done = true;
        self.service.came.notify_all();
    }
}

impl Outside for World {
    type Job = Job;

    fn step(&self, job: &mut Job, pace: Pace) -> Outcome {
        if pace == Pace::Full {
            let seen = lock(&self.seen)[job.engine];
            assert_eq!(job.life, seen, "a step for a driver of another life");
        }
        let space = Arc::clone(&job.space);
        let inside = space.enter();
        while let Some(&vpn) = job.pages.first() {
            let found = inside.leaf(vpn).and_then(|leaf| leaf.page(vpn));
            let Some(page) = found else {
                self.ledger.missed(space.id(), vpn);
                return job.missed();
            };
            // The time that the access takes.
            thread::yield_now();
            self.ledger.used(space.id(), page.gpa);
            job.pages.remove(0);
            job.fruitless = 0;
            if pace == Pace::Brief || thread_rng().gen_bool(0.5) {
                return Outcome::More;
            }
        }
        Outcome::Ended(End::Status(0))
    }

    fn steps_at_once(&self, _engine: usize, job: &Job, idle: bool) -> bool {
        *lock(&self.life) == job.life && (idle || job.fruitless > 0)
    }

    fn waited(&self, _job: &mut Job, _waited: &Waited) {}

    fn end(&self, _engine: usize, job: Job, end: End) {
        // As a port does: an answer to a queue of another life is dropped.
        let life = lock(&self.life);
        if *life == job.life {
            self.ledger.ended(job.name, Known::Ended(end));
        }
    }

    fn wake(&self, engine: usize) {
        *lock(&self.wakers[engine].woken) = true;
        self.wakers[engine].changed.notify_all();
    }

    fn service(&self) -> &dyn TranslationService {
        &self.service
    }

    fn deferred(&self, _requests: u64) {}

    fn evicted(&self, _translations: u64) {}
}

impl Job {
    fn missed(&mut self) -> Outcome {
        self.fruitless += 1;
        if self.fruitless == MAX_FRUITLESS {
            let va = self.pages[0] * PAGE;
            return Outcome::Ended(End::Failure { va });
        }
        let want = |(n, &vpn): (usize, &u64)| Want {
            miss: Miss {
                va: vpn * PAGE,
                bytes: 1,
                access: Access::READ,
                around: false,
            },
            ahead: n > 0,
        };
        Outcome::Missing(self.pages.iter().enumerate().map(want).collect())
    }
}

/// Submits a command that uses some pages; it is in the ledger from then on.
pub fn submit(device: &Device, engine: usize, context: ContextId, pages: Vec<u64>) {
    let world = &device.outside;
    let Some(space) = device.mmu.get(context) else {
        return;
    };
    let (life, name) = {
        let life = lock(&world.life);
        (*life, world.ledger.submitted(context))
    };
    let job = Job {
        name,
        engine,
        space,
        life,
        pages,
        fruitless: 0,
        ledger: Arc::clone(&world.ledger),
    };
    if let Err(job) = device.submit(engine, life, context, job) {
        world.ledger.refused(job.name);
    }
}

/// An engine's thread.
pub fn run_engine(device: &Device, engine: usize) {
    let world = &device.outside;
    let waker = &world.wakers[engine];
    loop {
        device.awake(engine);
        let life = *lock(&world.life);
        lock(&world.seen)[engine] = life;
        if device.run(engine, life) {
            continue;
        }
        let mut woken = lock(&waker.woken);
        while !*woken {
            woken = waker
                .changed
                .wait(woken)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *woken = false;
        drop(woken);
        if *lock(&world.done) {
            return;
        }
    }
}

/// The driver and the thread of the translation queue, which does what the driver's messages say in
/// their order.
pub fn run_driver(device: &Device) {
    let service = &device.outside.service;
    let mut held: Vec<Request> = Vec::new();
    let mut granted: Vec<(ContextId, u64, u64)> = Vec::new();
    loop {
        let mut queue = lock(&service.queue);
        while queue.requests.is_empty() && held.is_empty() && !queue.done {
            queue = service
                .came
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let request = queue.requests.pop_front();
        let refused = std::mem::take(&mut queue.refused);
        let done = queue.done;
        drop(queue);
        if refused {
            device.send();
        }
        match request {
            // Not answered in order.
            Some(request) if thread_rng().gen_bool(0.3) => held.push(request),
            Some(request) => answer(device, &request, &mut granted),
            None => match held.pop() {
                Some(request) => answer(device, &request, &mut granted),
                None if done => return,
                None => {}
            },
        }
        if !granted.is_empty() && thread_rng().gen_bool(0.4) {
            let at = thread_rng().gen_range(0..granted.len());
            let (context, vpn, place) = granted.swap_remove(at);
            device.outside.ledger.taking_back(context, vpn);
            device.invalidate(context, vpn, 1);
            device.outside.ledger.taken_back(place);
        }
    }
}

fn answer(device: &Device, request: &Request, granted: &mut Vec<(ContextId, u64, u64)>) {
    let context = request.context;
    let vpn = request.miss.va / PAGE;
    let mut entries = Vec::new();
    let code = match thread_rng().gen_range(0..20) {
        0..=7 => None,
        8..=14 => Some(ResponseCode::Success),
        // A shortage that may pass.
        15..=16 => return respond(device, request, Some(ResponseCode::Success), &[]),
        17..=18 => Some(ResponseCode::InvalidRequest),
        _ => Some(ResponseCode::ResponseFailure),
    };
    if matches!(code, None | Some(ResponseCode::Success)) {
        // What was granted before for the page is the same page, unless it was taken back.
        let before = granted.iter().find(|&&(c, v, _)| (c, v) == (context, vpn));
        let place = match before {
            Some(&(_, _, place)) => place,
            None => {
                let place = device.outside.ledger.grant(context);
                granted.push((context, vpn, place));
                place
            }
        };
        entries.push(Translation {
            vpn,
            gpa: place,
            npages: 1,
            access: Access::READ,
        });
    }
    if thread_rng().gen_bool(0.1) {
        // Ahead of the answer, by itself.
        filling(device, context, &entries, || device.fill(context, &entries));
    }
    respond(device, request, code, &entries);
}

fn respond(
    device: &Device,
    request: &Request,
    code: Option<ResponseCode>,
    entries: &[Translation],
) {
    let &Request { context, tag, .. } = request;
    filling(device, context, entries, || {
        device.answered(context, tag, code, entries)
    });
    if thread_rng().gen_bool(0.1) {
        let again = device.answered(context, tag, code, entries);
        assert!(!again, "a request is answered twice");
    }
}

/// Gives the device translations, by what tells whether it took them.
fn filling(
    device: &Device,
    context: ContextId,
    entries: &[Translation],
    fill: impl FnOnce() -> bool,
) {
    let ledger = &device.outside.ledger;
    let since = ledger.filling();
    if fill() {
        for entry in entries {
            ledger.filled(since, context, entry.vpn);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plays a sequence of events to the device's commands and requests, and keeps books of its own.
//!
//! Bytes choose the events, so that a fuzzer can: three for each. Beside the state machines this
//! keeps what must be so, in the simplest way, and compares after every event.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use vhost_device_coax::access::{Access, Miss};
use vhost_device_coax::commands::{CommandId, Commands, Effect, End, Held, Outcome};
use vhost_device_coax::mmu::ContextId;
use vhost_device_coax::resolve::tags::Answered;
use vhost_device_coax::resolve::windows::Want;
use vhost_device_coax::resolve::{Request, ResponseCode};

const ENGINES: usize = 2;
const CAPACITY: u32 = 6;
const NUMBERS: u32 = 3;
/// A context that is never open.
const CLOSED: ContextId = ContextId {
    number: 0,
    generation: u32::MAX,
};

/// Where a command is, as its events say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Runnable,
    Stepping,
    Waiting,
    /// Handed out to be answered, or let go of.
    Gone,
}

/// A command; it says when it is dropped.
#[derive(Debug)]
struct Job {
    name: usize,
    dropped: Rc<RefCell<Vec<usize>>>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.dropped.borrow_mut().push(self.name);
    }
}

#[derive(Debug)]
struct Book {
    place: Place,
    context: ContextId,
    engine: usize,
}

struct Player {
    commands: Commands<Job>,
    books: Vec<Book>,
    dropped: Rc<RefCell<Vec<usize>>>,
    /// Contexts that are open, and the generation given out last.
    open: Vec<ContextId>,
    generation: u32,
    stepping: Vec<(CommandId, Held<Job>)>,
    /// Requests that the driver has.
    sent: Vec<Request>,
    /// Requests whose answers are late.
    stale: Vec<Request>,
    outstanding: HashMap<ContextId, u32>,
    allocation: u32,
    lives: [u64; ENGINES],
    /// The thread of an engine is at work, or was told to be.
    awake: [bool; ENGINES],
}

/// Plays the events that the bytes choose, and brings everything to an end.
pub fn play(bytes: &[u8]) {
    let mut player = Player::new();
    for event in bytes.chunks_exact(3) {
        player.event(event[0], event[1].into(), event[2].into());
        player.check();
    }
    player.wind_down();
}

fn pick<T: Copy>(from: &[T], at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[at % from.len()])
}

impl Player {
    fn new() -> Self {
        Self {
            commands: Commands::new(ENGINES, CAPACITY),
            books: Vec::new(),
            dropped: Rc::default(),
            open: Vec::new(),
            generation: 0,
            stepping: Vec::new(),
            sent: Vec::new(),
            stale: Vec::new(),
            outstanding: HashMap::new(),
            allocation: CAPACITY,
            lives: [0; ENGINES],
            awake: [false; ENGINES],
        }
    }

    fn event(&mut self, kind: u8, a: usize, b: usize) {
        match kind % 21 {
            0 => self.open_context(a),
            1..=4 => self.submit(a % ENGINES, b),
            5..=7 => self.take(a % ENGINES),
            8..=10 => self.settle(a, b),
            11..=12 => self.request(a),
            13..=15 => self.answer(a, b),
            16 => self.abort(a, b % 2 == 0),
            17 => self.late_answer(a, b),
            18 => self.restart(a, b),
            19 => self.late_submit(a % ENGINES, b),
            _ => match b % 8 {
                0 => self.reset(),
                n => {
                    let requests = n as u64 % u64::from(CAPACITY) + 1;
                    assert!(self.commands.resolve.set_allocation(requests));
                    self.allocation = requests as u32;
                }
            },
        }
    }

    fn open_context(&mut self, number: usize) {
        let number = number as u32 % NUMBERS;
        if self.open.iter().all(|context| context.number != number) {
            self.generation += 1;
            let id = ContextId {
                number,
                generation: self.generation,
            };
            self.commands.open(id);
            self.open.push(id);
        }
    }

    fn submit(&mut self, engine: usize, at: usize) {
        if !self.commands.has_room(engine) {
            return;
        }
        // Now and then for a context that is not open.
        let context = match pick(&self.open, at) {
            Some(context) if at < 240 => context,
            _ => CLOSED,
        };
        let name = self.books.len();
        let job = Job {
            name,
            dropped: Rc::clone(&self.dropped),
        };
        self.books.push(Book {
            place: Place::Runnable,
            context,
            engine,
        });
        let mut effects = Vec::new();
        let life = self.lives[engine];
        let refused = self
            .commands
            .submit(engine, life, context, job, &mut effects);
        assert_eq!(refused.is_err(), context == CLOSED);
        if refused.is_err() {
            self.books[name].place = Place::Gone;
        }
        drop(refused);
        self.perform(effects);
    }

    /// A thread comes with a command that it has taken from a queue which began another life since, and
    /// looks for the next one.
    fn late_submit(&mut self, engine: usize, at: usize) {
        let Some(life) = self.lives[engine].checked_sub(1) else {
            return;
        };
        let name = self.books.len();
        let job = Job {
            name,
            dropped: Rc::clone(&self.dropped),
        };
        let context = pick(&self.open, at).unwrap_or(CLOSED);
        self.books.push(Book {
            place: Place::Stepping,
            context,
            engine,
        });
        let mut effects = Vec::new();
        let refused = self
            .commands
            .submit(engine, life, context, job, &mut effects);
        assert!(refused.is_ok());
        self.perform(effects);
        assert_eq!(self.books[name].place, Place::Gone);
        let mut effects = Vec::new();
        assert!(self.commands.take(engine, life, &mut effects).is_none());
        assert!(effects.is_empty());
    }

    fn take(&mut self, engine: usize) {
        let mut effects = Vec::new();
        let life = self.lives[engine];
        let taken = self.commands.take(engine, life, &mut effects);
        self.perform(effects);
        self.awake[engine] = taken.is_some();
        let runnable = |book: &Book| book.engine == engine && book.place == Place::Runnable;
        assert_eq!(taken.is_some(), self.books.iter().any(runnable));
        if let Some((id, held)) = taken {
            assert_eq!(held.engine, engine);
            self.move_to(held.job.name, Place::Runnable, Place::Stepping);
            self.stepping.push((id, held));
        }
    }

    fn move_to(&mut self, name: usize, from: Place, to: Place) {
        let place = &mut self.books[name].place;
        assert_eq!(*place, from, "command {name}");
        *place = to;
    }

    fn settle(&mut self, at: usize, what: usize) {
        if self.stepping.is_empty() {
            return;
        }
        let (id, held) = self.stepping.remove(at % self.stepping.len());
        let wants = (0..what % 5).map(|n| Want {
            miss: Miss {
                va: (n as u64) << 21,
                bytes: 1,
                access: Access::READ,
                around: false,
            },
            ahead: n > 0,
        });
        let outcome = match what / 64 {
            0 => Outcome::More,
            1..=2 => Outcome::Missing(wants.collect()),
            _ => Outcome::Ended(End::Status(0)),
        };
        let (name, before) = (held.job.name, outcome.clone());
        let mut effects = Vec::new();
        self.commands.settle(id, held, outcome, &mut effects);
        // It is where the outcome says, unless it ends.
        let to = match before {
            Outcome::More => Place::Runnable,
            Outcome::Missing(_) => Place::Waiting,
            Outcome::Ended(_) => Place::Stepping,
        };
        self.move_to(name, Place::Stepping, to);
        self.perform(effects);
        let ended = matches!(before, Outcome::Ended(_));
        assert!(!ended || self.books[name].place == Place::Gone);
    }

    fn request(&mut self, room: usize) {
        let outstanding = self.commands.resolve.outstanding();
        let free = self.allocation.saturating_sub(outstanding);
        let due = self.commands.resolve.has_due();
        let Some(request) = self.commands.request(Instant::now()) else {
            // Somebody always has a share when nothing is outstanding.
            assert!(!due || outstanding > 0, "requests wait for nothing");
            self.commands.resolve.count_deferred();
            return;
        };
        if room % 8 == 0 {
            self.commands.resolve.unsent(&request);
            self.stale.push(request);
            return;
        }
        let mine = self.outstanding.entry(request.context).or_default();
        assert!(*mine < free, "{mine} of a context with {free} free");
        *mine += 1;
        self.sent.push(request);
    }

    fn answer(&mut self, at: usize, code: usize) {
        if self.sent.is_empty() {
            return;
        }
        let request = self.sent.remove(at % self.sent.len());
        self.stale.push(request);
        let answered = self.commands.resolve.answer(request.context, request.tag);
        *self.outstanding.entry(request.context).or_default() -= 1;
        let code = match code % 8 {
            0..=2 => None,
            3..=5 => Some(ResponseCode::Success),
            6 => Some(ResponseCode::InvalidRequest),
            _ => Some(ResponseCode::ResponseFailure),
        };
        let mut effects = Vec::new();
        let (id, want) = match answered {
            Answered::Unknown => panic!("a request that was sent is not known"),
            Answered::Aborted => return,
            Answered::Orphan => {
                if code == Some(ResponseCode::ResponseFailure) {
                    self.commands.stop(request.context, &mut effects);
                    self.perform(effects);
                }
                return;
            }
            Answered::Waiting(asked) => asked,
        };
        assert_eq!(want.miss, request.miss);
        let ready = self.commands.resolved(id, &want, code, &mut effects);
        self.perform(effects);
        if let Some((id, held, _)) = ready {
            assert_eq!(held.context, request.context);
            self.move_to(held.job.name, Place::Waiting, Place::Stepping);
            self.stepping.push((id, held));
        }
    }

    fn late_answer(&mut self, at: usize, forged: usize) {
        if let Some(mut request) = pick(&self.stale, at) {
            if forged % 4 == 0 {
                if let Some(context) = pick(&self.open, forged) {
                    request.context = context;
                }
            }
            let answered = self.commands.resolve.answer(request.context, request.tag);
            assert_eq!(answered, Answered::Unknown, "a late answer is taken");
        }
    }

    fn abort(&mut self, at: usize, close: bool) {
        let Some(context) = pick(&self.open, at) else {
            return;
        };
        let mut effects = Vec::new();
        if close {
            assert!(self.commands.close(context, &mut effects));
        } else {
            self.commands.abort(context, &mut effects);
        }
        self.perform(effects);
        self.only_steps_are_left(|book| book.context == context);
        let steps = self
            .stepping
            .iter()
            .any(|(_, held)| held.context == context);
        assert_eq!(self.commands.drained(context), !steps);
        if close {
            self.let_steps_end(|held| held.context == context);
            self.forget(context);
        }
    }

    fn only_steps_are_left(&self, of: impl Fn(&Book) -> bool) {
        for book in self.books.iter().filter(|book| of(book)) {
            assert!(matches!(book.place, Place::Gone | Place::Stepping));
        }
    }

    /// Has steps come back that were aborted: they end.
    fn let_steps_end(&mut self, of: impl Fn(&Held<Job>) -> bool) {
        while let Some(at) = self.stepping.iter().position(|(_, held)| of(held)) {
            let name = self.stepping[at].1.job.name;
            self.settle(at, 0);
            assert_eq!(self.books[name].place, Place::Gone);
        }
    }

    /// A context is drained and its number free.
    fn forget(&mut self, context: ContextId) {
        assert!(self.commands.drained(context));
        self.commands.closed(context);
        self.open.retain(|&other| other != context);
        self.outstanding.remove(&context);
        let gone = |request: &Request| request.context == context;
        self.stale.extend(self.sent.iter().copied().filter(gone));
        self.sent.retain(|request| !gone(request));
    }

    /// Queues begin another life.
    fn restart(&mut self, which: usize, requests: usize) {
        let engine = which % ENGINES;
        self.lives[engine] += 1;
        // Its thread is told, and finds only what came since.
        for book in &mut self.books {
            if book.engine == engine && matches!(book.place, Place::Runnable | Place::Waiting) {
                book.place = Place::Gone;
            }
        }
        let mut effects = Vec::new();
        let taken = self.commands.take(engine, self.lives[engine], &mut effects);
        assert!(taken.is_none());
        self.perform(effects);
        self.awake[engine] = false;
        if requests % 2 == 0 {
            self.commands.resolve.resend();
            self.stale.append(&mut self.sent);
            self.outstanding.clear();
        }
    }

    fn reset(&mut self) {
        for book in &mut self.books {
            if matches!(book.place, Place::Runnable | Place::Waiting) {
                book.place = Place::Gone;
            }
        }
        let mut effects = Vec::new();
        let contexts = self.commands.reset(&mut effects);
        assert!(effects
            .iter()
            .all(|effect| !matches!(effect, Effect::End(..))));
        self.perform(effects);
        self.let_steps_end(|_| true);
        self.stale.append(&mut self.sent);
        self.outstanding.clear();
        self.allocation = CAPACITY;
        for context in contexts {
            self.forget(context);
        }
        assert!(self.open.is_empty());
    }

    fn perform(&mut self, effects: Vec<Effect<Job>>) {
        for effect in effects {
            match effect {
                Effect::Wake(engine) => self.awake[engine] = true,
                Effect::Drop(job) => self.books[job.name].place = Place::Gone,
                Effect::End(held, _, _) => {
                    let (job, rest) = held.split();
                    let book = &mut self.books[job.name];
                    assert_ne!(book.place, Place::Gone, "command {} ends twice", job.name);
                    assert_eq!(book.context, rest.context);
                    book.place = Place::Gone;
                    self.commands.released(&rest);
                }
            }
        }
    }

    fn check(&self) {
        for engine in 0..ENGINES {
            let runnable = |book: &Book| book.engine == engine && book.place == Place::Runnable;
            let lost = self.books.iter().any(runnable) && !self.awake[engine];
            assert!(!lost, "engine {engine} sleeps with commands to run");
        }
        let sent: u32 = self.outstanding.values().sum();
        assert_eq!(sent, self.commands.resolve.outstanding());
        let mut dropped = self.dropped.borrow_mut();
        for name in dropped.drain(..) {
            assert_eq!(
                self.books[name].place,
                Place::Gone,
                "command {name} is lost"
            );
        }
    }

    /// Everything that is left comes to an end when the driver answers and the engines run.
    fn wind_down(&mut self) {
        for _ in 0..100_000 {
            self.settle(0, 255);
            for engine in 0..ENGINES {
                self.take(engine);
            }
            self.request(1);
            self.answer(0, 0);
            self.check();
            if self.books.iter().all(|book| book.place == Place::Gone) && self.sent.is_empty() {
                assert_eq!(self.commands.resolve.outstanding(), 0);
                return;
            }
        }
        panic!("commands do not end");
    }
}

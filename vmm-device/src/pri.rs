// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Missing translations: commands that are parked, and the requests they wait for.
//!
//! A parked command has one request for each window of 2 MiB that it is certain to need, within a
//! limit: see `windows`. The driver translates what is there and makes what is not. When all of a
//! command's requests are answered it takes its step again. Invalid Request for a window that it
//! cannot go on without ends it, in a window ahead it ends nothing: the command finds the address
//! when it gets there. Response Failure ends it, and all further requests of its context.
//!
//! Requests are bounded by the allocation and by the free buffers of the request queue. What
//! exceeds a bound waits here, first come first served; `send` sends it. `answer` takes the answers.
//!
//! No thread waits here: answers come in on the thread of the translation queue, and jobs go back
//! to their engines through their inboxes. Requests of an epoch that has ended are neither sent
//! nor, if sent before, answered to anyone: see [`crate::tags`].
//!
//! Lock order: the state of this file, then the ring of the request queue or an inbox. The locks of the
//! contexts are never taken while the state is locked, and invalidations do not take it at all.
#![forbid(unsafe_code)]

mod answer;
mod send;
mod windows;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use coax_abi::wire::PAGE_SIZE;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::context::{ContextId, Fill};
use crate::engine::Miss;
use crate::guest_log::GuestLog;
use crate::job::{Inbox, Job, Resumed, Verdict};
use crate::queue::Ring;
use crate::stats::Stats;
use crate::sync::lock;
use crate::tags::Tags;
use windows::Want;

/// Times in a row that a command may be parked without gaining anything. Pages that the CPU
/// takes back at once can cost some rounds; a driver that answers Success and never translates
/// must not keep a command for ever.
const MAX_FRUITLESS: u32 = 256;

/// Parked commands and outstanding requests of the device.
#[derive(Debug)]
pub struct Pri {
    state: Mutex<State>,
    inboxes: Vec<Inbox>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    stats: Arc<Stats>,
    log: Arc<GuestLog>,
}

struct State {
    capacity: u32,
    allocation: u32,
    ring: Option<Ring>,
    parked: HashMap<u64, Parked>,
    next_id: u64,
    /// Requests to send.
    due: VecDeque<Due>,
    /// Requests that were sent, each with its parked command.
    tags: Tags<(u64, Want)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("allocation", &self.allocation)
            .field("outstanding", &self.tags.outstanding())
            .field("parked", &self.parked.len())
            .finish_non_exhaustive()
    }
}

struct Parked {
    job: Box<Job>,
    /// Requests without an answer.
    unanswered: usize,
    /// When the first request was sent.
    asked_at: Option<Instant>,
    /// A request became a page request.
    faulted: bool,
}

/// A request to send.
#[derive(Clone, Copy)]
struct Due {
    parked: u64,
    want: Want,
    /// It was put off because the allocation was used up.
    deferred: bool,
}

impl Pri {
    /// No request outstanding; the allocation is the whole capacity.
    pub fn new(
        capacity: u32,
        inboxes: Vec<Inbox>,
        memory: GuestMemoryAtomic<GuestMemoryMmap>,
        stats: Arc<Stats>,
        log: Arc<GuestLog>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                capacity,
                allocation: capacity,
                ring: None,
                parked: HashMap::new(),
                next_id: 0,
                due: VecDeque::new(),
                tags: Tags::default(),
            }),
            inboxes,
            memory,
            stats,
            log,
        }
    }

    /// Inbox of an engine.
    pub fn inbox(&self, engine: usize) -> Option<&Inbox> {
        self.inboxes.get(engine)
    }

    /// Makes all engines look into their inboxes.
    pub fn wake_all(&self) {
        self.inboxes.iter().for_each(Inbox::wake);
    }

    /// Sets how many requests may be outstanding; false if out of range.
    pub fn set_allocation(&self, requests: u64) -> bool {
        let mut state = lock(&self.state);
        match u32::try_from(requests) {
            Ok(requests) if requests >= 1 && requests <= state.capacity => {
                state.allocation = requests;
                self.pump(&mut state);
                true
            }
            _ => false,
        }
    }

    /// Sends what waits for buffers; `ring` is the request queue, which has some again.
    pub fn buffers_came(&self, ring: &Ring) {
        let mut state = lock(&self.state);
        state.ring = Some(ring.clone());
        self.pump(&mut state);
    }

    /// Parks a job until its misses are resolved.
    pub fn park(&self, mut job: Box<Job>, misses: Vec<Miss>) {
        self.stats.commands_parked.bump();
        let advance = job.operation.advance();
        if job.parked_at.replace(advance) == Some(advance) {
            job.fruitless += 1;
        } else {
            job.fruitless = 0;
        }
        let first = misses.first().map_or(0, |miss| miss.va);
        let exhausted = job.fruitless == MAX_FRUITLESS;
        let wants = wants_of(&job, &misses);
        let stopped = job.member.fill().requests_stopped();
        let mut state = lock(&self.state);
        // The epoch is read under the lock: an abort that is not seen here finds the job
        // parked when it gets the lock.
        let verdict = if job.member.aborted() {
            Verdict::Aborted
        } else if exhausted || stopped || wants.is_empty() {
            Verdict::Failure { va: first }
        } else {
            let id = state.next_id;
            state.next_id += 1;
            state.due.extend(wants.iter().map(|&want| Due {
                parked: id,
                want,
                deferred: false,
            }));
            state.parked.insert(
                id,
                Parked {
                    job,
                    unanswered: wants.len(),
                    asked_at: None,
                    faulted: false,
                },
            );
            self.pump(&mut state);
            return;
        };
        drop(state);
        if exhausted {
            self.log.warn(format_args!(
                "address {first:#x} is not translated after {MAX_FRUITLESS} attempts"
            ));
        }
        self.hand_back(job, verdict, None);
    }

    /// Hands back every parked job of an epoch that has ended, and makes the engines look for
    /// such jobs among theirs.
    pub fn abort_parked(&self) {
        let mut state = lock(&self.state);
        let ids: Vec<u64> = state
            .parked
            .iter()
            .filter(|(_, parked)| parked.job.member.aborted())
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            self.resume(&mut state, id, Verdict::Aborted);
        }
        self.pump(&mut state);
        self.wake_all();
    }

    /// Forgets the requests of a context that was closed.
    pub fn forget(&self, context: ContextId) {
        let mut state = lock(&self.state);
        state.tags.forget(|id| id == context);
        self.pump(&mut state);
    }

    /// Returns to the state at power-on; all jobs must have been aborted.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        state.allocation = state.capacity;
        state.ring = None;
        state.tags.forget(|_| true);
    }

    /// Ends the wait of a parked command; what it still waits for is nobody's.
    fn resume(&self, state: &mut State, id: u64, verdict: Verdict) {
        if let Some(parked) = state.parked.remove(&id) {
            if parked.unanswered > 0 {
                state.due.retain(|due| due.parked != id);
                state.tags.orphan(|&(parked, _)| parked == id);
            }
            let asked_at = parked.fault_began();
            self.hand_back(parked.job, verdict, asked_at);
        }
    }

    fn hand_back(&self, job: Box<Job>, verdict: Verdict, asked_at: Option<Instant>) {
        match self.inboxes.get(job.engine) {
            Some(inbox) => inbox.put(Resumed {
                job,
                verdict,
                asked_at,
            }),
            None => log::error!("command of an engine that does not exist"),
        }
    }
}

/// What a job asks for: windows ahead only while it gains something, so that a command which
/// contends for its pages waits for no others, and as many as can be cached as things stand.
fn wants_of(job: &Job, misses: &[Miss]) -> Vec<Want> {
    let atc = job.member.context().atc();
    let room = if job.fruitless == 0 {
        atc.room().saturating_sub(misses.len())
    } else {
        0
    };
    windows::wants(misses, room, |miss| {
        let vpn = miss.va / PAGE_SIZE;
        atc.leaf(vpn)
            .and_then(|leaf| leaf.page(vpn))
            .is_some_and(|page| page.access.contains(miss.access))
    })
}

impl Parked {
    /// When its fault began, if it is one: what is translated as things stand is none.
    fn fault_began(&self) -> Option<Instant> {
        self.asked_at.filter(|_| self.faulted)
    }
}

impl State {
    fn context(&self, id: u64) -> Option<ContextId> {
        Some(self.parked.get(&id)?.job.member.context().id())
    }

    fn fill(&self, id: u64) -> Option<Fill> {
        Some(self.parked.get(&id)?.job.member.fill())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Missing translations: commands that are parked, and the requests they wait for.
//!
//! A parked command first asks what may be used as things stand (ATS Translation Request, one
//! for each window of 2 MiB that it is certain to need, within a limit: see `windows`). Where
//! the first page is not among the answers with the right needed, it asks to have it made so (a
//! PRI page request group with one request for each such window). Success resumes the command,
//! which takes its step again; Invalid Request and Response Failure end it. Since a group is
//! answered as a whole, a group of several requests that is answered by Invalid Request is asked
//! again one by one, which finds the address refused; in a window ahead that ends nothing.
//!
//! Page requests are bounded by the allocation, translation requests by the number of tags,
//! and both by the free buffers of the request queue. What exceeds a bound waits here, first
//! come first served; `send` sends it. `answer` takes the answers.
//!
//! No thread waits here: answers come in on the thread of the translation queue, and jobs go back to their engines through their inboxes.
//! Requests of an epoch that has ended are neither sent nor, if sent before, answered to
//! anyone: see [`crate::tags`].
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

use crate::context::Fill;
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
    /// Page requests outstanding for commands that were not aborted.
    outstanding: u32,
    ring: Option<Ring>,
    parked: HashMap<u64, Parked>,
    next_id: u64,
    /// Translation requests to send, each with its parked command.
    translations_due: VecDeque<(u64, Want)>,
    /// Parked commands whose next page request group is to be sent.
    groups_due: VecDeque<u64>,
    translations: Tags<(u64, Want)>,
    groups: Tags<Group>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("allocation", &self.allocation)
            .field("outstanding", &self.outstanding)
            .field("parked", &self.parked.len())
            .finish_non_exhaustive()
    }
}

struct Parked {
    job: Box<Job>,
    /// Translation requests without an answer.
    unanswered: usize,
    /// What is to be asked by page requests, windows ahead last.
    lacking: Vec<Want>,
    /// Groups have one request only, to find the one that is invalid.
    singly: bool,
    asked_at: Option<Instant>,
    deferred: bool,
}

struct Group {
    parked: u64,
    wants: Vec<Want>,
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
                outstanding: 0,
                ring: None,
                parked: HashMap::new(),
                next_id: 0,
                translations_due: VecDeque::new(),
                groups_due: VecDeque::new(),
                translations: Tags::default(),
                groups: Tags::default(),
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

    /// Sets how many page requests may be outstanding; false if out of range.
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
        let mut state = lock(&self.state);
        // The epoch is read under the lock: an abort that is not seen here finds the job
        // parked when it gets the lock.
        let verdict = if job.member.aborted() {
            Verdict::Aborted
        } else if exhausted || wants.is_empty() {
            Verdict::Failure { va: first }
        } else {
            let id = state.next_id;
            state.next_id += 1;
            state
                .translations_due
                .extend(wants.iter().map(|&want| (id, want)));
            state.parked.insert(
                id,
                Parked {
                    job,
                    unanswered: wants.len(),
                    lacking: Vec::new(),
                    singly: false,
                    asked_at: None,
                    deferred: false,
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
        for &id in &ids {
            self.resume(&mut state, id, Verdict::Aborted);
        }
        let state = &mut *state;
        let parked = &state.parked;
        state
            .translations_due
            .retain(|(id, _)| parked.contains_key(id));
        state.groups_due.retain(|id| parked.contains_key(id));
        state
            .translations
            .orphan(|(id, _)| !parked.contains_key(id));
        for group in state
            .groups
            .orphan(|group| !parked.contains_key(&group.parked))
        {
            state.outstanding -= group.wants.len() as u32;
        }
        self.pump(state);
        self.wake_all();
    }

    /// Returns to the state at power-on; all jobs must have been aborted.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        state.allocation = state.capacity;
        state.ring = None;
        state.translations.forget_orphans();
        state.groups.forget_orphans();
    }

    fn resume(&self, state: &mut State, id: u64, verdict: Verdict) {
        if let Some(parked) = state.parked.remove(&id) {
            self.hand_back(parked.job, verdict, parked.asked_at);
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
    /// Adds what is to be asked by a page request.
    fn lack(&mut self, want: Want) {
        let at = if want.ahead {
            self.lacking.len()
        } else {
            self.decisive()
        };
        self.lacking.insert(at, want);
    }

    /// How many of those lacking the command cannot go on without.
    fn decisive(&self) -> usize {
        self.lacking.partition_point(|want| !want.ahead)
    }
}

impl State {
    fn context(&self, id: u64) -> Option<u32> {
        Some(self.parked.get(&id)?.job.member.context().number())
    }

    fn fill(&self, id: u64) -> Option<Fill> {
        Some(self.parked.get(&id)?.job.member.fill())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Missing translations: commands that are parked, and the requests they wait for.
//!
//! A parked command first asks what may be used as things stand (ATS Translation Request, one
//! for each miss). If the first page of a miss is not among the answers with the right needed,
//! it asks to have it made so (a PRI page request group with one request for each such miss).
//! Success resumes the command, which takes its step again; Invalid Request and Response
//! Failure end it. Since a group is answered as a whole, a group of several requests that is
//! answered by Invalid Request is asked again one by one, which finds the address refused.
//!
//! Page requests are bounded by the allocation, translation requests by the number of tags,
//! and both by the free buffers of the request queue. What exceeds a bound waits here, first
//! come first served; `send` sends it.
//!
//! No thread waits here: answers come in through [`Pri::complete`] and [`Pri::respond`] on the
//! thread of the translation queue, and jobs go back to their engines through their inboxes.
//! Requests of an epoch that has ended are neither sent nor, if sent before, answered to
//! anyone: see [`crate::tags`].
//!
//! Lock order: the state of this file, then the ring of the request queue or an inbox. The locks of the
//! contexts are never taken while the state is locked, and invalidations do not take it at all.
#![forbid(unsafe_code)]

mod send;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use coax_abi::wire::PAGE_SIZE;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::atc::Translation;
use crate::context::Fill;
use crate::engine::Miss;
use crate::guest_log::GuestLog;
use crate::job::{Inbox, Job, Resumed, Verdict};
use crate::message::ResponseCode;
use crate::queue::Ring;
use crate::stats::Stats;
use crate::sync::lock;
use crate::tags::{Answered, Tags};

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
    /// Translation requests to send: parked command and miss.
    translations_due: VecDeque<(u64, Miss)>,
    /// Parked commands whose next page request group is to be sent.
    groups_due: VecDeque<u64>,
    translations: Tags<(u64, Miss)>,
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
    /// Misses to be asked by page requests.
    lacking: Vec<Miss>,
    /// Groups have one request only, to find the one that is invalid.
    singly: bool,
    asked_at: Option<Instant>,
    deferred: bool,
}

struct Group {
    parked: u64,
    misses: Vec<Miss>,
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
        let mut state = lock(&self.state);
        // The epoch is read under the lock: an abort that is not seen here finds the job
        // parked when it gets the lock.
        let verdict = if job.member.aborted() {
            Verdict::Aborted
        } else if exhausted || misses.is_empty() {
            Verdict::Failure { va: first }
        } else {
            let id = state.next_id;
            state.next_id += 1;
            state
                .translations_due
                .extend(misses.iter().map(|&miss| (id, miss)));
            state.parked.insert(
                id,
                Parked {
                    job,
                    unanswered: misses.len(),
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

    /// Takes the answer to a translation request; false if there is no such request.
    pub fn complete(&self, context: u32, tag: u32, entries: &[Translation]) -> bool {
        let mut state = lock(&self.state);
        let (id, miss) = match state.translations.answer(tag, context) {
            Answered::Waiting(asked) => asked,
            Answered::Orphan => return true,
            Answered::Unknown => return false,
        };
        let Some(fill) = state.fill(id) else {
            return true;
        };
        drop(state);
        self.fill(&fill, entries);
        let stopped = fill.requests_stopped();

        let mut state = lock(&self.state);
        // The command may have been aborted in between.
        if let Some(parked) = state.parked.get_mut(&id) {
            parked.unanswered = parked.unanswered.saturating_sub(1);
            if !grants(entries, &miss) {
                parked.lacking.push(miss);
            }
            let done = parked.unanswered == 0;
            match (done, parked.lacking.first().map(|miss| miss.va)) {
                (false, _) => {}
                (true, None) => self.resume(&mut state, id, Verdict::Retry),
                (true, Some(va)) if stopped => {
                    self.resume(&mut state, id, Verdict::Failure { va });
                }
                (true, Some(_)) => state.groups_due.push_back(id),
            }
        }
        self.pump(&mut state);
        true
    }

    /// Takes the answer to a page request group; false if there is no such group.
    pub fn respond(
        &self,
        context: u32,
        tag: u32,
        code: ResponseCode,
        entries: &[Translation],
    ) -> bool {
        match code {
            ResponseCode::Success => self.stats.responses_success.bump(),
            ResponseCode::InvalidRequest => self.stats.responses_invalid.bump(),
            ResponseCode::ResponseFailure => self.stats.responses_failure.bump(),
        }
        let mut state = lock(&self.state);
        let group = match state.groups.answer(tag, context) {
            Answered::Waiting(group) => group,
            Answered::Orphan => return true,
            Answered::Unknown => return false,
        };
        state.outstanding -= group.misses.len() as u32;
        let fill = state.fill(group.parked);
        drop(state);
        if let Some(fill) = fill {
            match code {
                ResponseCode::Success => self.fill(&fill, entries),
                ResponseCode::InvalidRequest => {}
                ResponseCode::ResponseFailure => fill.stop_requests(),
            }
        }

        let mut state = lock(&self.state);
        self.conclude(&mut state, group, code);
        self.pump(&mut state);
        true
    }

    fn conclude(&self, state: &mut State, group: Group, code: ResponseCode) {
        let id = group.parked;
        let Some(parked) = state.parked.get_mut(&id) else {
            return;
        };
        let Some(&first) = group.misses.first() else {
            return;
        };
        match code {
            ResponseCode::Success if parked.lacking.is_empty() => {
                self.resume(state, id, Verdict::Retry);
            }
            ResponseCode::Success => state.groups_due.push_back(id),
            ResponseCode::InvalidRequest if group.misses.len() > 1 => {
                parked.singly = true;
                parked.lacking = group.misses;
                state.groups_due.push_back(id);
            }
            ResponseCode::InvalidRequest => {
                let verdict = Verdict::Fault {
                    va: first.va,
                    access: first.access,
                };
                self.resume(state, id, verdict);
            }
            ResponseCode::ResponseFailure => {
                self.resume(state, id, Verdict::Failure { va: first.va });
            }
        }
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
            state.outstanding -= group.misses.len() as u32;
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

    fn fill(&self, fill: &Fill, entries: &[Translation]) {
        self.stats.atc_evictions.add(fill.fill(entries));
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

impl State {
    fn context(&self, id: u64) -> Option<u32> {
        Some(self.parked.get(&id)?.job.member.context().number())
    }

    fn fill(&self, id: u64) -> Option<Fill> {
        Some(self.parked.get(&id)?.job.member.fill())
    }
}

/// Whether the entries grant what a miss needs for its first page.
fn grants(entries: &[Translation], miss: &Miss) -> bool {
    let vpn = miss.va / PAGE_SIZE;
    entries.iter().any(|entry| {
        vpn.checked_sub(entry.vpn)
            .is_some_and(|offset| offset < entry.npages)
            && entry.access.contains(miss.access)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn miss(va: u64) -> Miss {
        Miss {
            va,
            bytes: 1,
            access: Access::READ,
            around: false,
        }
    }

    #[test]
    fn grant_needs_the_first_page_and_the_right() {
        let entry = Translation {
            vpn: 4,
            gpa: 0,
            npages: 2,
            access: Access::READ,
        };
        assert!(grants(&[entry], &miss(0x5fff)));
        assert!(!grants(&[entry], &miss(0x6000)));
        assert!(!grants(&[entry], &miss(0x3fff)));
        let write = Miss {
            access: Access::WRITE,
            ..miss(0x4000)
        };
        assert!(!grants(&[entry], &write));
    }
}

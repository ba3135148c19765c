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
//! come first served.
//!
//! No thread waits here: answers come in through [`Pri::complete`] and [`Pri::respond`] on the
//! thread of the translation queue, and jobs go back to their engines through their inboxes.
//! Requests of an epoch that has ended are neither sent nor, if sent before, answered to
//! anyone: see [`crate::tags`].
//!
//! Lock order: the state of this file, then the ring of the request queue. The locks of the
//! contexts are never taken while the state is locked, and invalidations do not take it at all.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use coax_abi::wire::{
    DeviceRequest, MAX_RANGE_PAGES, PAGE_SIZE, REQUEST_LAST, REQUEST_PAGE, REQUEST_TRANSLATION,
};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::atc::{Translation, LEAF_PAGES};
use crate::context::Fill;
use crate::engine::Miss;
use crate::guest_log::GuestLog;
use crate::job::{Inbox, Job, Resumed, Verdict};
use crate::message::ResponseCode;
use crate::queue::{self, Ring};
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
    /// Translation requests to send: parked command and index of its miss.
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

/// A request that cannot be sent at present.
enum Blocked {
    /// No tag is free, or the allocation is used up.
    Bound,
    /// The request queue has no buffer.
    Buffer,
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

    /// Sends what can be sent.
    fn pump(&self, state: &mut State) {
        if state.translations_due.is_empty() && state.groups_due.is_empty() {
            return;
        }
        let Some(ring) = state.ring.clone() else {
            return;
        };
        let memory = self.memory.memory();
        let mut sent = false;
        let result = loop {
            match self.send_next(state, &ring, &memory) {
                Ok(Ok(())) => sent = true,
                Ok(Err(Blocked::Bound)) => break Ok(()),
                Ok(Err(Blocked::Buffer)) => match more_buffers(&ring, &memory) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        let result = result.and_then(|()| {
            if sent {
                queue::notify(&ring, &memory)?;
            }
            Ok(())
        });
        if let Err(error) = result {
            self.stats.guest_errors.bump();
            self.log.warn(format_args!("request queue: {error}"));
        }
    }

    /// Sends one translation request or one page request group.
    fn send_next(
        &self,
        state: &mut State,
        ring: &Ring,
        memory: &GuestMemoryMmap,
    ) -> Result<Result<(), Blocked>, queue::Error> {
        let translation = self.send_translation(state, ring, memory)?;
        if translation.is_ok() {
            return Ok(Ok(()));
        }
        let group = self.send_group(state, ring, memory)?;
        Ok(match (translation, group) {
            (_, Ok(())) => Ok(()),
            (Err(Blocked::Buffer), _) | (_, Err(Blocked::Buffer)) => Err(Blocked::Buffer),
            _ => Err(Blocked::Bound),
        })
    }

    fn send_translation(
        &self,
        state: &mut State,
        ring: &Ring,
        memory: &GuestMemoryMmap,
    ) -> Result<Result<(), Blocked>, queue::Error> {
        let Some((id, miss)) = state.translations_due.pop_front() else {
            return Ok(Err(Blocked::Bound));
        };
        let Some(context) = state.context(id) else {
            return Ok(Ok(()));
        };
        if queue::available(ring, memory)? == 0 {
            state.translations_due.push_front((id, miss));
            return Ok(Err(Blocked::Buffer));
        }
        let tag = match state.translations.give(context, (id, miss)) {
            Ok(tag) => tag,
            Err(due) => {
                state.translations_due.push_front(due);
                return Ok(Err(Blocked::Bound));
            }
        };
        let message = request(REQUEST_TRANSLATION, context, &miss, tag, 0);
        if !queue::push(ring, memory, message.as_bytes())? {
            state.translations.answer(tag, context);
            state.translations_due.push_front((id, miss));
            return Ok(Err(Blocked::Buffer));
        }
        self.stats.translation_requests.bump();
        Ok(Ok(()))
    }

    fn send_group(
        &self,
        state: &mut State,
        ring: &Ring,
        memory: &GuestMemoryMmap,
    ) -> Result<Result<(), Blocked>, queue::Error> {
        let Some(&id) = state.groups_due.front() else {
            return Ok(Err(Blocked::Bound));
        };
        let Some((context, count)) = state.context(id).zip(state.group_size(id)) else {
            state.groups_due.pop_front();
            return Ok(Ok(()));
        };
        if state.outstanding + count as u32 > state.allocation {
            self.defer(state, id, count);
            return Ok(Err(Blocked::Bound));
        }
        if usize::from(queue::available(ring, memory)?) < count {
            return Ok(Err(Blocked::Buffer));
        }
        let Some(parked) = state.parked.get_mut(&id) else {
            return Ok(Ok(()));
        };
        let misses: Vec<Miss> = parked.lacking.drain(..count).collect();
        let group = Group {
            parked: id,
            misses: misses.clone(),
        };
        let tag = match state.groups.give(context, group) {
            Ok(tag) => tag,
            Err(group) => {
                parked.lacking.splice(..0, group.misses);
                return Ok(Err(Blocked::Bound));
            }
        };
        state.groups_due.pop_front();
        state.outstanding += count as u32;
        parked.asked_at.get_or_insert_with(Instant::now);
        parked.job.page_requests += count as u64;
        for (n, miss) in misses.iter().enumerate() {
            let last = if n + 1 == count { REQUEST_LAST } else { 0 };
            let message = request(REQUEST_PAGE, context, miss, tag, last);
            if !queue::push(ring, memory, message.as_bytes())? {
                // The driver offered buffers that are too small: the group cannot be completed
                // and is left to its fate; the command ends.
                self.stats.guest_errors.bump();
                state.groups.orphan(|group| group.parked == id);
                state.outstanding -= count as u32;
                self.resume(state, id, Verdict::Failure { va: miss.va });
                return Ok(Ok(()));
            }
            self.stats.page_requests.bump();
        }
        Ok(Ok(()))
    }

    /// Counts the requests of a group that wait for the allocation, once.
    fn defer(&self, state: &mut State, id: u64, count: usize) {
        if let Some(parked) = state.parked.get_mut(&id) {
            if !std::mem::replace(&mut parked.deferred, true) {
                self.stats.requests_deferred.add(count as u64);
            }
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

    /// Requests in the next group of a parked command.
    fn group_size(&self, id: u64) -> Option<usize> {
        let parked = self.parked.get(&id)?;
        let most = if parked.singly { 1 } else { self.allocation };
        Some(parked.lacking.len().min(most as usize))
    }
}

/// Asks for a kick when the driver adds buffers; true if it did so in the meantime.
fn more_buffers(ring: &Ring, memory: &GuestMemoryMmap) -> Result<bool, queue::Error> {
    let before = queue::available(ring, memory)?;
    queue::await_kick(ring, memory)?;
    Ok(queue::available(ring, memory)? != before)
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

/// The message for a miss. A page request names the pages that are certain to be needed, a
/// translation request also those that are likely, both up to the next 2 MiB border.
fn request(kind: u32, context: u32, miss: &Miss, tag: u32, flags: u32) -> DeviceRequest {
    let vpn = miss.va / PAGE_SIZE;
    let to_border = LEAF_PAGES - vpn % LEAF_PAGES;
    let certain = (miss.va % PAGE_SIZE)
        .saturating_add(miss.bytes)
        .div_ceil(PAGE_SIZE);
    let npages = if kind == REQUEST_TRANSLATION && miss.around {
        to_border
    } else {
        certain.clamp(1, to_border)
    };
    DeviceRequest {
        kind: kind.into(),
        context: context.into(),
        va: (vpn * PAGE_SIZE).into(),
        npages: (npages.min(MAX_RANGE_PAGES.into()) as u32).into(),
        flags: (miss.access.wire() | flags).into(),
        tag: tag.into(),
        reserved: 0.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn miss(va: u64, bytes: u64, around: bool) -> Miss {
        Miss {
            va,
            bytes,
            access: Access::READ,
            around,
        }
    }

    fn pages(kind: u32, miss: &Miss) -> u32 {
        request(kind, 0, miss, 0, 0).npages.get()
    }

    #[test]
    fn requests_cover_the_range_up_to_the_2_mib_border() {
        // One byte beyond a page border needs two pages.
        assert_eq!(pages(REQUEST_PAGE, &miss(0x1fff, 2, false)), 2);
        assert_eq!(pages(REQUEST_PAGE, &miss(0x1000, u64::MAX, false)), 511);
        assert_eq!(pages(REQUEST_TRANSLATION, &miss(0, 1 << 40, false)), 512);
    }

    #[test]
    fn neighbours_are_asked_for_by_translation_requests_only() {
        assert_eq!(pages(REQUEST_TRANSLATION, &miss(0x1008, 1, true)), 511);
        assert_eq!(pages(REQUEST_PAGE, &miss(0x1008, 1, true)), 1);
    }

    #[test]
    fn address_of_a_request_is_that_of_the_page() {
        let message = request(REQUEST_PAGE, 9, &miss(u64::MAX, 1, false), 4, REQUEST_LAST);
        assert_eq!(message.va.get(), u64::MAX - 0xfff);
        assert_eq!(message.npages.get(), 1);
        assert_eq!(message.flags.get(), Access::READ.wire() | REQUEST_LAST);
    }

    #[test]
    fn grant_needs_the_first_page_and_the_right() {
        let entry = Translation {
            vpn: 4,
            gpa: 0,
            npages: 2,
            access: Access::READ,
        };
        assert!(grants(&[entry], &miss(0x5fff, 1, false)));
        assert!(!grants(&[entry], &miss(0x6000, 1, false)));
        assert!(!grants(&[entry], &miss(0x3fff, 2, false)));
        let write = Miss {
            access: Access::WRITE,
            ..miss(0x4000, 1, false)
        };
        assert!(!grants(&[entry], &write));
    }
}

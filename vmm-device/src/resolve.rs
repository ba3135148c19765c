// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests for translations: which wait, which are outstanding, and whose turn it is.
//!
//! A pure state machine: no thread, no lock, no clock, no queue. A [`service`] sends what it gives out.
//!
//! At most the *allocation* is outstanding. A context may have as many requests outstanding as are
//! still free, one at least, and contexts take turns: one whose requests are never answered leaves
//! half of what it finds to the others. A request counts until it is answered or its context is
//! closed, also when its command has ended: the driver still has it.
#![forbid(unsafe_code)]

pub mod service;
pub mod tags;
pub mod windows;

use std::collections::HashMap;

use crate::access::Miss;
use crate::fair::Fair;
use crate::mmu::ContextId;
use tags::{Answered, Tags};
use windows::Want;

/// How a request ended that the pages as they stood did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// The pages are there.
    Success,
    /// No such page, or no such right.
    InvalidRequest,
    /// The driver could not handle it.
    ResponseFailure,
}

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the request in its answer.
    pub tag: u32,
    /// Context of the address.
    pub context: ContextId,
    /// What is missing.
    pub miss: Miss,
}

/// Requests of commands that `C` names.
#[derive(Debug)]
pub struct Resolve<C> {
    capacity: u32,
    allocation: u32,
    due: Fair<ContextId, Due<C>>,
    tags: Tags<(C, Want)>,
    shares: HashMap<ContextId, Share>,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
struct Due<C> {
    command: C,
    want: Want,
    /// It was put off because the allocation, or the share of its context, was used up.
    deferred: bool,
}

/// What one context has.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    outstanding: u32,
    /// Response Failure was answered: no further requests.
    stopped: bool,
}

impl<C: Copy + PartialEq> Resolve<C> {
    /// Nothing outstanding; the allocation is the whole capacity.
    pub fn new(capacity: u32) -> Self {
        Self {
            capacity,
            allocation: capacity,
            due: Fair::default(),
            tags: Tags::default(),
            shares: HashMap::new(),
        }
    }

    /// Sets how many requests may be outstanding; false if out of range.
    pub fn set_allocation(&mut self, requests: u64) -> bool {
        match u32::try_from(requests) {
            Ok(requests) if requests >= 1 && requests <= self.capacity => {
                self.allocation = requests;
                true
            }
            _ => false,
        }
    }

    /// Adds requests of a command; false if the context makes none any more.
    pub fn add(&mut self, context: ContextId, command: C, wants: &[Want]) -> bool {
        if self.stopped(context) {
            return false;
        }
        for &want in wants {
            let due = Due {
                command,
                want,
                deferred: false,
            };
            self.due.push(context, due);
        }
        true
    }

    fn stopped(&self, context: ContextId) -> bool {
        self.shares.get(&context).is_some_and(|share| share.stopped)
    }

    /// Whether requests wait.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next request that may be sent, and its command. It is outstanding from now on.
    pub fn take(&mut self) -> Option<(C, Request)> {
        let free = self.allocation.saturating_sub(self.tags.outstanding());
        if free == 0 {
            return None;
        }
        let shares = &self.shares;
        let (context, due) = self.due.pop(|context| {
            let share = shares.get(&context).copied().unwrap_or_default();
            share.outstanding < free
        })?;
        let Due { command, want, .. } = due;
        match self.tags.give(context, (command, want)) {
            Ok(tag) => {
                self.shares.entry(context).or_default().outstanding += 1;
                let miss = want.miss;
                Some((command, Request { tag, context, miss }))
            }
            Err(_) => {
                self.due.put_back(context, due);
                None
            }
        }
    }

    /// A request could not be sent: it is the next one again.
    pub fn unsent(&mut self, request: &Request) {
        if let Answered::Waiting((command, want)) = self.answer(request.context, request.tag) {
            let due = Due {
                command,
                want,
                deferred: false,
            };
            self.due.put_back(request.context, due);
        }
    }

    /// Counts the requests that wait for the allocation or a share, each once.
    pub fn count_deferred(&mut self) -> u64 {
        let mut count = 0;
        for queue in self.due.latest_first() {
            for due in queue.take_while(|due| !due.deferred) {
                due.deferred = true;
                count += 1;
            }
        }
        count
    }

    /// Takes the request that an answer belongs to.
    pub fn answer(&mut self, context: ContextId, tag: u32) -> Answered<(C, Want)> {
        let answered = self.tags.answer(tag, context);
        if answered != Answered::Unknown {
            if let Some(share) = self.shares.get_mut(&context) {
                share.outstanding -= 1;
            }
        }
        answered
    }

    /// Stops the requests of a context that has made one; returns the commands that wait for one not yet sent, and
    /// what for.
    pub fn stop(&mut self, context: ContextId) -> Vec<(C, Want)> {
        if let Some(share) = self.shares.get_mut(&context) {
            share.stopped = true;
        }
        let waiting = self.due.values(context);
        waiting.map(|due| (due.command, due.want)).collect()
    }

    /// Lets a context make requests again; answers to those of before do not stop it.
    pub fn restart(&mut self, context: ContextId) {
        self.tags.abort(context);
        if let Some(share) = self.shares.get_mut(&context) {
            share.stopped = false;
        }
    }

    /// Drops the requests of a command that has ended; those that were sent stay outstanding.
    pub fn cancel(&mut self, context: ContextId, command: C) {
        self.due.remove(context, |due| due.command == command);
        self.tags.orphan(|&(other, _)| other == command);
    }

    /// Forgets a context that was closed: nobody answers its requests any more.
    pub fn forget(&mut self, context: ContextId) {
        self.due.remove(context, |_| true);
        self.tags.orphan_of(context);
        self.tags.forget(|other| other == context);
        self.shares.remove(&context);
    }

    /// What was sent is lost and will not be answered: what is still waited for is sent again.
    pub fn resend(&mut self) {
        for (context, (command, want)) in self.tags.take_all() {
            let due = Due {
                command,
                want,
                deferred: false,
            };
            self.due.push(context, due);
        }
        for share in self.shares.values_mut() {
            share.outstanding = 0;
        }
    }

    /// Forgets everything, but no tag that was given out.
    pub fn reset(&mut self) {
        self.tags.take_all();
        self.due = Fair::default();
        self.shares.clear();
        self.allocation = self.capacity;
    }

    /// Requests that the driver may still answer.
    pub fn outstanding(&self) -> u32 {
        self.tags.outstanding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn id(number: u32) -> ContextId {
        ContextId {
            number,
            generation: 1,
        }
    }

    fn wants(count: u64) -> Vec<Want> {
        (0..count)
            .map(|n| Want {
                miss: Miss {
                    va: n << 21,
                    bytes: 1,
                    access: Access::READ,
                    around: false,
                },
                ahead: false,
            })
            .collect()
    }

    fn send_all(resolve: &mut Resolve<u32>) -> Vec<(u32, Request)> {
        std::iter::from_fn(|| resolve.take()).collect()
    }

    #[test]
    fn context_that_is_never_answered_leaves_half_to_each_after_it() {
        let mut resolve = Resolve::new(128);
        let mut counts = Vec::new();
        for context in 0..7 {
            assert!(resolve.add(id(context), context, &wants(1000)));
            counts.push(send_all(&mut resolve).len());
        }
        assert_eq!(counts, [64, 32, 16, 8, 4, 2, 1]);
        // The first ones get no more when others are answered than the others do.
        assert_eq!(resolve.outstanding(), 127);
    }

    #[test]
    fn contexts_take_turns_and_deferred_requests_are_counted_once() {
        let mut resolve = Resolve::new(8);
        resolve.add(id(0), 0, &wants(10));
        resolve.add(id(1), 1, &wants(2));
        let order: Vec<u32> = send_all(&mut resolve).iter().map(|sent| sent.0).collect();
        assert_eq!(order, [0, 1, 0, 1, 0]);
        assert_eq!(resolve.count_deferred(), 7);
        assert_eq!(resolve.count_deferred(), 0);
        resolve.add(id(1), 1, &wants(1));
        assert_eq!(resolve.count_deferred(), 1);
    }

    #[test]
    fn one_request_at_a_time_is_enough_to_go_on() {
        let mut resolve = Resolve::new(128);
        assert!(!resolve.set_allocation(0) && !resolve.set_allocation(129));
        assert!(resolve.set_allocation(1));
        resolve.add(id(0), 0, &wants(2));
        resolve.add(id(1), 1, &wants(1));
        for expected in [0, 1, 0] {
            let (command, request) = send_all(&mut resolve)[0];
            assert_eq!(command, expected);
            resolve.answer(request.context, request.tag);
        }
        assert_eq!(resolve.take(), None);
        assert_eq!(resolve.outstanding(), 0);
    }

    #[test]
    fn request_that_could_not_be_sent_is_the_next_one() {
        let mut resolve = Resolve::new(8);
        resolve.add(id(0), 0, &wants(2));
        resolve.add(id(1), 1, &wants(1));
        let first = resolve.take();
        if let Some((_, request)) = first {
            resolve.unsent(&request);
        }
        assert_eq!(resolve.outstanding(), 0);
        let again = resolve.take();
        assert_eq!(
            first.map(|(_, request)| (request.context, request.miss)),
            again.map(|(_, request)| (request.context, request.miss))
        );
        // An answer to the one that was never sent is nobody's.
        let stale = first.map(|(_, request)| resolve.answer(request.context, request.tag));
        assert_eq!(stale, Some(Answered::Unknown));
    }

    #[test]
    fn cancelled_requests_are_outstanding_until_answered_or_forgotten() {
        let mut resolve = Resolve::new(4);
        resolve.add(id(0), 0, &wants(3));
        let sent = send_all(&mut resolve);
        assert_eq!(sent.len(), 2);
        resolve.cancel(id(0), 0);
        assert!(!resolve.has_due());
        assert_eq!(resolve.outstanding(), 2);
        let request = sent[0].1;
        assert_eq!(resolve.answer(id(0), request.tag), Answered::Orphan);
        resolve.forget(id(0));
        assert_eq!(resolve.outstanding(), 0);
        assert_eq!(resolve.answer(id(0), sent[1].1.tag), Answered::Unknown);
    }

    #[test]
    fn stopped_context_asks_for_nothing_until_it_is_restarted() {
        let mut resolve = Resolve::new(2);
        resolve.add(id(0), 7, &wants(2));
        assert_eq!(send_all(&mut resolve).len(), 1);
        assert_eq!(resolve.stop(id(0)).len(), 1);
        assert!(!resolve.add(id(0), 7, &wants(1)));
        assert!(resolve.add(id(1), 8, &wants(1)));
        resolve.restart(id(0));
        assert!(resolve.add(id(0), 7, &wants(1)));
    }

    #[test]
    fn lost_requests_are_sent_again_unless_nobody_waits() {
        let mut resolve = Resolve::new(8);
        resolve.add(id(0), 0, &wants(1));
        resolve.add(id(1), 1, &wants(1));
        let sent = send_all(&mut resolve);
        resolve.cancel(id(0), 0);
        resolve.resend();
        assert_eq!(resolve.outstanding(), 0);
        let again = send_all(&mut resolve);
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].0, 1);
        assert_ne!(again[0].1.tag, sent[1].1.tag);
        let stale = resolve.answer(id(1), sent[1].1.tag);
        assert_eq!(stale, Answered::Unknown);
    }
}

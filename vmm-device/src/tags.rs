// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tags of outstanding requests.
//!
//! Tags are given out in turn, so that one is reused as late as possible. When the command
//! behind a request is aborted its tag becomes an *orphan*: the answer may still come, and
//! must not be taken for the answer to another request. An orphan is reused only when no tag
//! is free.
#![forbid(unsafe_code)]

use coax_abi::wire::MAX_PAGE_REQUESTS;

/// Table of the tags of one kind of request.
#[derive(Debug)]
pub struct Tags<T> {
    slots: Vec<Slot<T>>,
    next: usize,
}

#[derive(Debug)]
struct Slot<T> {
    context: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Free,
    Waiting(T),
    Orphan,
}

/// What an answer with a certain tag is the answer to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered<T> {
    /// This request.
    Waiting(T),
    /// A request of an aborted command.
    Orphan,
    /// No outstanding request.
    Unknown,
}

impl<T> Default for Tags<T> {
    fn default() -> Self {
        Self {
            slots: (0..MAX_PAGE_REQUESTS)
                .map(|_| Slot {
                    context: 0,
                    state: State::Free,
                })
                .collect(),
            next: 0,
        }
    }
}

impl<T> Tags<T> {
    /// Gives out a tag, or `value` back if all are waiting.
    pub fn give(&mut self, context: u32, value: T) -> Result<u32, T> {
        let Some(at) = self
            .find(|state| matches!(state, State::Free))
            .or_else(|| self.find(|state| matches!(state, State::Orphan)))
        else {
            return Err(value);
        };
        self.slots[at] = Slot {
            context,
            state: State::Waiting(value),
        };
        self.next = (at + 1) % self.slots.len();
        Ok(at as u32)
    }

    fn find(&self, wanted: impl Fn(&State<T>) -> bool) -> Option<usize> {
        let count = self.slots.len();
        (self.next..self.next + count)
            .map(|at| at % count)
            .find(|&at| wanted(&self.slots[at].state))
    }

    /// Takes the request that an answer belongs to; its tag is free again.
    pub fn answer(&mut self, tag: u32, context: u32) -> Answered<T> {
        let Some(slot) = self
            .slots
            .get_mut(tag as usize)
            .filter(|slot| slot.context == context)
        else {
            return Answered::Unknown;
        };
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Free => Answered::Unknown,
            State::Waiting(value) => Answered::Waiting(value),
            State::Orphan => Answered::Orphan,
        }
    }

    /// The request that an answer in parts belongs to, which stays outstanding.
    pub fn peek(&self, tag: u32, context: u32) -> Answered<&T> {
        match self.slots.get(tag as usize) {
            Some(slot) if slot.context == context => match &slot.state {
                State::Free => Answered::Unknown,
                State::Waiting(value) => Answered::Waiting(value),
                State::Orphan => Answered::Orphan,
            },
            _ => Answered::Unknown,
        }
    }

    /// Makes orphans of the requests that `wanted` picks, and returns them.
    pub fn orphan(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut values = Vec::new();
        for slot in &mut self.slots {
            if matches!(&slot.state, State::Waiting(value) if wanted(value)) {
                if let State::Waiting(value) = std::mem::replace(&mut slot.state, State::Orphan) {
                    values.push(value);
                }
            }
        }
        values
    }

    /// Forgets all orphans: their answers cannot come any more.
    pub fn forget_orphans(&mut self) {
        for slot in &mut self.slots {
            if matches!(slot.state, State::Orphan) {
                slot.state = State::Free;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_tag_is_unknown_afterwards() {
        let mut tags = Tags::default();
        assert_eq!(tags.give(3, 'a'), Ok(0));
        assert_eq!(tags.answer(0, 3), Answered::Waiting('a'));
        assert_eq!(tags.answer(0, 3), Answered::Unknown);
    }

    #[test]
    fn request_that_was_peeked_at_stays_outstanding() {
        let mut tags = Tags::default();
        assert_eq!(tags.give(3, 'a'), Ok(0));
        assert_eq!(tags.peek(0, 3), Answered::Waiting(&'a'));
        assert_eq!(tags.peek(0, 4), Answered::Unknown);
        assert_eq!(tags.peek(1, 3), Answered::Unknown);
        assert_eq!(tags.peek(MAX_PAGE_REQUESTS, 3), Answered::Unknown);
        assert_eq!(tags.orphan(|_| true), vec!['a']);
        assert_eq!(tags.peek(0, 3), Answered::Orphan);
        assert_eq!(tags.answer(0, 3), Answered::Orphan);
    }

    #[test]
    fn answer_for_another_context_or_out_of_range_is_unknown() {
        let mut tags = Tags::default();
        assert_eq!(tags.give(3, 'a'), Ok(0));
        assert_eq!(tags.answer(0, 4), Answered::Unknown);
        assert_eq!(tags.answer(MAX_PAGE_REQUESTS, 3), Answered::Unknown);
        assert_eq!(tags.answer(0, 3), Answered::Waiting('a'));
    }

    #[test]
    fn tags_are_used_in_turn_and_orphans_last() {
        let mut tags = Tags::default();
        for n in 0..MAX_PAGE_REQUESTS {
            assert_eq!(tags.give(0, n), Ok(n));
        }
        assert_eq!(tags.give(0, 999), Err(999));
        assert_eq!(tags.orphan(|&n| n == 5), vec![5]);
        assert_eq!(tags.answer(7, 0), Answered::Waiting(7));
        assert_eq!(tags.give(0, 1000), Ok(7));
        assert_eq!(tags.give(0, 1001), Ok(5));
    }

    #[test]
    fn late_answer_to_an_orphan_frees_its_tag_quietly() {
        let mut tags = Tags::default();
        assert_eq!(tags.give(1, 'a'), Ok(0));
        assert_eq!(tags.orphan(|_| true), vec!['a']);
        assert_eq!(tags.answer(0, 1), Answered::Orphan);
        assert_eq!(tags.answer(0, 1), Answered::Unknown);
    }
}

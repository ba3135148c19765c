// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tags of outstanding requests.
//!
//! A tag is an index and a sequence number that changes each time the index is given out, so that
//! an answer is never taken for the answer to another request. When the command behind a request
//! ends early its tag becomes an *orphan*: the driver still has the request, which therefore counts
//! as outstanding until it is answered or its context is closed.
#![forbid(unsafe_code)]

use coax_abi::wire::MAX_PAGE_REQUESTS;

use crate::mmu::ContextId;

/// Bits of a tag that are the index.
const INDEX_BITS: u32 = 8;
const _: () = assert!(MAX_PAGE_REQUESTS <= 1 << INDEX_BITS);

/// Table of tags.
#[derive(Debug)]
pub struct Tags<T> {
    slots: Vec<Slot<T>>,
    outstanding: u32,
}

#[derive(Debug)]
struct Slot<T> {
    sequence: u32,
    /// The request, unless the tag is free.
    asked: Option<Asked<T>>,
}

#[derive(Debug)]
struct Asked<T> {
    context: ContextId,
    /// `None` for an orphan.
    value: Option<T>,
    /// Its context was aborted since.
    aborted: bool,
}

/// What an answer with a certain tag is the answer to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered<T> {
    /// This request.
    Waiting(T),
    /// A request of a command that has ended.
    Orphan,
    /// A request of a command that was aborted with all of its context.
    Aborted,
    /// No outstanding request.
    Unknown,
}

impl<T> Default for Tags<T> {
    fn default() -> Self {
        Self {
            slots: (0..MAX_PAGE_REQUESTS)
                .map(|_| Slot {
                    sequence: 0,
                    asked: None,
                })
                .collect(),
            outstanding: 0,
        }
    }
}

impl<T> Tags<T> {
    /// Requests that the driver may still answer.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Gives out a tag, or `value` back if none is free.
    pub fn give(&mut self, context: ContextId, value: T) -> Result<u32, T> {
        let Some((index, slot)) = (0u32..)
            .zip(&mut self.slots)
            .find(|(_, slot)| slot.asked.is_none())
        else {
            return Err(value);
        };
        slot.sequence = slot.sequence.wrapping_add(1);
        slot.asked = Some(Asked {
            context,
            value: Some(value),
            aborted: false,
        });
        self.outstanding += 1;
        Ok(index | slot.sequence << INDEX_BITS)
    }

    /// Takes the request that an answer belongs to; its tag is free again.
    pub fn answer(&mut self, tag: u32, context: ContextId) -> Answered<T> {
        let (index, sequence) = (tag % (1 << INDEX_BITS), tag >> INDEX_BITS);
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return Answered::Unknown;
        };
        let current = slot.sequence << INDEX_BITS >> INDEX_BITS == sequence;
        let asked = slot
            .asked
            .take_if(|asked| current && asked.context == context);
        match asked {
            None => Answered::Unknown,
            Some(asked) => {
                self.outstanding -= 1;
                match asked.value {
                    Some(value) => Answered::Waiting(value),
                    None if asked.aborted => Answered::Aborted,
                    None => Answered::Orphan,
                }
            }
        }
    }

    /// Makes orphans of the requests that `wanted` picks.
    pub fn orphan(&mut self, wanted: impl Fn(&T) -> bool) {
        for asked in self.slots.iter_mut().filter_map(|slot| slot.asked.as_mut()) {
            asked.value.take_if(|value| wanted(value));
        }
    }

    /// Makes orphans of the requests of a context.
    pub fn orphan_of(&mut self, context: ContextId) {
        for asked in self.slots.iter_mut().filter_map(|slot| slot.asked.as_mut()) {
            asked.value.take_if(|_| asked.context == context);
        }
    }

    /// The commands of a context were aborted: what is answered from now on was asked before that.
    pub fn abort(&mut self, context: ContextId) {
        let asked = self.slots.iter_mut().filter_map(|slot| slot.asked.as_mut());
        for asked in asked.filter(|asked| asked.context == context) {
            asked.aborted = true;
        }
    }

    /// Takes back all tags; returns what is waited for.
    pub fn take_all(&mut self) -> Vec<(ContextId, T)> {
        self.outstanding = 0;
        let asked = self.slots.iter_mut().filter_map(|slot| slot.asked.take());
        asked
            .filter_map(|asked| Some((asked.context, asked.value?)))
            .collect()
    }

    /// Forgets the orphans of contexts that `gone` picks: they were closed, so nobody answers.
    pub fn forget(&mut self, gone: impl Fn(ContextId) -> bool) {
        for slot in &mut self.slots {
            let forgotten = slot
                .asked
                .take_if(|asked| asked.value.is_none() && gone(asked.context));
            self.outstanding -= u32::from(forgotten.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ContextId = ContextId {
        number: 3,
        generation: 1,
    };
    const B: ContextId = ContextId {
        number: 3,
        generation: 2,
    };

    #[test]
    fn answered_tag_is_unknown_afterwards_and_never_given_out_again_soon() {
        let mut tags = Tags::default();
        let mut given = std::collections::HashSet::new();
        for _ in 0..1000 {
            let tag = tags.give(A, 'a').unwrap_or(u32::MAX);
            assert!(given.insert(tag));
            assert_eq!(tags.answer(tag, A), Answered::Waiting('a'));
            assert_eq!(tags.answer(tag, A), Answered::Unknown);
        }
        assert_eq!(tags.outstanding(), 0);
    }

    #[test]
    fn answer_for_another_opening_or_out_of_range_is_unknown() {
        let mut tags = Tags::default();
        let tag = tags.give(A, 'a').unwrap_or(u32::MAX);
        assert_eq!(tags.answer(tag, B), Answered::Unknown);
        for wrong in [tag + 1, tag ^ 1 << 31, tag ^ 1 << INDEX_BITS, u32::MAX] {
            assert_eq!(tags.answer(wrong, A), Answered::Unknown);
        }
        assert_eq!(tags.answer(tag, A), Answered::Waiting('a'));
    }

    #[test]
    fn orphans_are_outstanding_until_answered_or_forgotten() {
        let mut tags = Tags::default();
        let mut given: Vec<u32> = (0..MAX_PAGE_REQUESTS)
            .filter_map(|n| tags.give(if n % 2 == 0 { A } else { B }, n).ok())
            .collect();
        assert_eq!(given.len(), MAX_PAGE_REQUESTS as usize);
        tags.orphan(|_| true);
        assert_eq!(tags.give(A, 999), Err(999));
        assert_eq!(tags.answer(given[0], A), Answered::Orphan);
        assert_eq!(tags.answer(given[0], A), Answered::Unknown);
        assert_eq!(tags.outstanding(), MAX_PAGE_REQUESTS - 1);
        tags.forget(|context| context == B);
        assert_eq!(tags.outstanding(), MAX_PAGE_REQUESTS / 2 - 1);
        assert_eq!(tags.answer(given.remove(1), B), Answered::Unknown);
    }

    #[test]
    fn orphans_of_before_an_abort_are_told_from_later_ones() {
        let mut tags = Tags::default();
        let before = tags.give(A, 'a').unwrap_or(u32::MAX);
        let other = tags.give(B, 'b').unwrap_or(u32::MAX);
        tags.orphan(|_| true);
        tags.abort(A);
        let after = tags.give(A, 'a').unwrap_or(u32::MAX);
        tags.orphan(|_| true);
        assert_eq!(tags.answer(before, A), Answered::Aborted);
        assert_eq!(tags.answer(other, B), Answered::Orphan);
        assert_eq!(tags.answer(after, A), Answered::Orphan);
        assert_eq!(tags.outstanding(), 0);
    }

    #[test]
    fn sequence_numbers_wrap_within_their_bits() {
        let mut tags = Tags::default();
        tags.slots[0].sequence = u32::MAX >> INDEX_BITS;
        let tag = tags.give(A, 'a').unwrap_or(u32::MAX);
        assert_eq!(tags.answer(tag, A), Answered::Waiting('a'));
    }
}

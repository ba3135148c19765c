// SPDX-License-Identifier: GPL-2.0

//! Which addresses are being looked at, so that a change of others does not make a look outdated.
//!
//! A process's notifier covers all of its addresses, and the kernel counts changes for a notifier as a
//! whole. So a change says here what it changes: one that no look is concerned with is recorded instead of
//! counted, until it is over, because a look may begin meanwhile that is.
//!
//! Both tables may say too much but never too little. The owner's lock guards them.
//!
//! No kernel imports: `make test` runs the tests below on the host.

use core::ops::Range;

/// Looks that are told apart: the context's worker and a few threads that waited. More than these are
/// concerned with every change.
const LOOKS: usize = 8;
/// Changes under way at once that are told apart; of more the last are taken together.
const PASSED: usize = 8;

/// Addresses being looked at and changed.
pub(crate) struct Looks {
    looks: [Option<Range<u64>>; LOOKS],
    more: u32,
    /// What the changes under way change that no look was concerned with; the first `passed`.
    changes: [Range<u64>; PASSED],
    passed: usize,
    /// Number of those changes: they are over when others have another one.
    number: u64,
}

/// A look that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(Option<usize>);

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Looks {
    /// Nothing is looked at, nothing changes.
    pub(crate) const fn new() -> Self {
        Looks {
            looks: [const { None }; LOOKS],
            more: 0,
            changes: [const { 0..0 }; PASSED],
            passed: 0,
            number: 0,
        }
    }

    /// Begins a look at `range`. If a change of any of it is under way, its number, for the look to wait
    /// until it is over.
    pub(crate) fn begin(&mut self, range: Range<u64>) -> (Ticket, Option<u64>) {
        let changes = &self.changes[..self.passed];
        let changing = changes.iter().any(|change| overlap(change, &range));
        let free = self.looks.iter().position(Option::is_none);
        match free {
            Some(i) => self.looks[i] = Some(range),
            None => self.more += 1,
        }
        (Ticket(free), changing.then_some(self.number))
    }

    /// Ends a look.
    pub(crate) fn end(&mut self, ticket: Ticket) {
        match ticket.0 {
            Some(i) => self.looks[i] = None,
            None => self.more -= 1,
        }
    }

    /// Takes note of a change of `range` with that number; whether any look is concerned with it.
    pub(crate) fn change(&mut self, range: Range<u64>, number: u64) -> bool {
        if number != self.number {
            self.number = number;
            self.passed = 0;
        }
        if self.more > 0
            || self
                .looks
                .iter()
                .flatten()
                .any(|look| overlap(look, &range))
        {
            return true;
        }
        if self.passed < PASSED {
            self.changes[self.passed] = range;
            self.passed += 1;
        } else {
            let last = &mut self.changes[PASSED - 1];
            *last = last.start.min(range.start)..last.end.max(range.end);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_concerns_the_looks_at_what_it_changes() {
        let mut looks = Looks::new();
        let (here, _) = looks.begin(10..20);
        assert!(looks.change(19..30, 1));
        assert!(!looks.change(20..30, 1));
        assert!(!looks.change(0..10, 3));
        looks.end(here);
        assert!(!looks.change(10..20, 5));
    }

    #[test]
    fn look_at_what_is_changing_waits_for_the_change() {
        let mut looks = Looks::new();
        assert!(!looks.change(10..20, 7));
        assert_eq!(looks.begin(15..16).1, Some(7));
        assert_eq!(looks.begin(20..30).1, None);
        // Changes of another number: those before are over.
        assert!(!looks.change(40..50, 9));
        assert_eq!(looks.begin(12..13).1, None);
        assert_eq!(looks.begin(45..46).1, Some(9));
    }

    #[test]
    fn change_that_a_look_is_concerned_with_ends_those_before_too() {
        let mut looks = Looks::new();
        assert!(!looks.change(10..20, 7));
        let _ = looks.begin(30..40);
        assert!(looks.change(30..31, 9));
        assert_eq!(looks.begin(10..20).1, None);
    }

    #[test]
    fn more_looks_than_are_told_apart_are_concerned_with_everything() {
        let mut looks = Looks::new();
        let tickets: Vec<_> = (0..LOOKS as u64 + 2)
            .map(|n| looks.begin(n * 10..n * 10 + 1).0)
            .collect();
        assert!(looks.change(1 << 40..1 << 41, 1));
        for ticket in tickets {
            looks.end(ticket);
        }
        assert!(!looks.change(0..u64::MAX, 1));
    }

    #[test]
    fn more_changes_than_are_told_apart_are_taken_together() {
        let mut looks = Looks::new();
        for n in 0..PASSED as u64 + 2 {
            assert!(!looks.change(n * 10..n * 10 + 1, 1));
        }
        let last = PASSED as u64 + 1;
        for n in 0..=last {
            let (ticket, wait) = looks.begin(n * 10..n * 10 + 1);
            assert_eq!(wait, Some(1), "{n}");
            looks.end(ticket);
        }
        let between = last * 10 - 5..last * 10 - 4;
        assert_eq!(looks.begin(between).1, Some(1));
        assert_eq!(looks.begin(5..6).1, None);
    }
}

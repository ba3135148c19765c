// SPDX-License-Identifier: GPL-2.0

//! Where the device has told that it uses pages often, until they are moved.
//!
//! What finds the table full is forgotten: the device tells it again when it has used it twice as often. Ranges
//! of which nothing moves are left alone for a while, since each attempt takes pages from the device and gives
//! them back. The owner's lock guards the table.
//!
//! No kernel imports: `make test` runs the tests below on the host.

/// Ranges that are remembered.
const TOLD: usize = 64;
/// Ranges that are left alone at once; of more the one that was first is not any more.
const RESTING: usize = 16;
/// How long they are, in nanoseconds: a second.
const REST_NS: u64 = 1_000_000_000;

/// Ranges, each named by its first address.
pub(crate) struct Hot {
    told: [u64; TOLD],
    count: usize,
    /// Ranges, and when they are left alone no more.
    resting: [(u64, u64); RESTING],
    next: usize,
}

impl Hot {
    /// Nothing was told.
    pub(crate) const fn new() -> Self {
        Hot {
            told: [0; TOLD],
            count: 0,
            resting: [(0, 0); RESTING],
            next: 0,
        }
    }

    /// Remembers a range that was told of `now`, in nanoseconds.
    pub(crate) fn add(&mut self, address: u64, now: u64) {
        let rests = |rest: &(u64, u64)| rest.0 == address && now < rest.1;
        let known = self.told[..self.count].contains(&address);
        if known || self.count == TOLD || self.resting.iter().any(rests) {
            return;
        }
        self.told[self.count] = address;
        self.count += 1;
    }

    /// Takes the range that was told of first.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let first = *self.told[..self.count].first()?;
        self.told.copy_within(1..self.count, 0);
        self.count -= 1;
        Some(first)
    }

    /// Nothing of a range has moved `now`.
    pub(crate) fn rest(&mut self, address: u64, now: u64) {
        self.resting[self.next] = (address, now.saturating_add(REST_NS));
        self.next = (self.next + 1) % RESTING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once_in_the_order_in_which_they_were_told() {
        let mut hot = Hot::new();
        for address in [3, 1, 3, 2, 1] {
            hot.add(address, 0);
        }
        assert_eq!(
            [(); 4].map(|()| hot.take()),
            [Some(3), Some(1), Some(2), None]
        );
        hot.add(3, 0);
        assert_eq!(hot.take(), Some(3));
    }

    #[test]
    fn a_device_that_tells_without_end_fills_the_table_and_no_more() {
        let mut hot = Hot::new();
        (0..1000).for_each(|address| hot.add(address, 0));
        let taken = core::iter::from_fn(|| hot.take());
        assert!(taken.eq(0..TOLD as u64));
    }

    #[test]
    fn what_does_not_move_is_left_alone_for_a_while() {
        let mut hot = Hot::new();
        hot.rest(7, 5);
        hot.add(7, 5 + REST_NS - 1);
        assert_eq!(hot.take(), None);
        hot.add(7, 5 + REST_NS);
        assert_eq!(hot.take(), Some(7));
        // Address 0 is one like others, and the last of many are remembered.
        hot.add(0, 0);
        assert_eq!(hot.take(), Some(0));
        (0..=RESTING as u64).for_each(|address| hot.rest(address, 5));
        for address in [0, RESTING as u64] {
            hot.add(address, 6);
        }
        assert_eq!((hot.take(), hot.take()), (Some(0), None));
    }
}

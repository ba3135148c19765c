// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbers that follow from a seed (splitmix64).

use std::ops::Range;
use std::time::Duration;

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed and this number: sequences of other numbers have nothing in common with it.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut rng = Rng(seed);
        let mixed = rng.next();
        Rng(mixed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next number.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number of the range, which is not empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        let span = range.len().max(1) as u64;
        range.start + usize::try_from(self.next() % span).unwrap_or(0)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, share: usize) -> bool {
        self.within(0..100) < share
    }

    /// A time of the range, to the millisecond.
    pub fn milliseconds(&mut self, range: Range<usize>) -> Duration {
        Duration::from_millis(self.within(range) as u64)
    }

    /// Puts the items into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.within(0..end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_number_give_the_same_sequence_and_others_do_not() {
        let first = |seed, number| Rng::new(seed, number).next();
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
    }

    #[test]
    fn shuffled_items_are_the_same_items() {
        let mut items: Vec<u32> = (0..20).collect();
        Rng::new(5, 0).shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}

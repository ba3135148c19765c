// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Repeatable random numbers: SplitMix64, after Steele, Lea and Flood (OOPSLA 2014).
#![forbid(unsafe_code)]

/// The generator; equal seeds give equal numbers, so that a failure can be repeated.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to before `bound`, which is far below 2⁶⁴, so that the bias of the
    /// remainder does not matter here.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// An integer from `-limit` to `limit`.
    pub fn signed(&mut self, limit: i64) -> i64 {
        self.below(2 * limit.unsigned_abs() as usize + 1) as i64 - limit
    }

    /// Puts a slice into random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, slice: &mut [T]) {
        for last in (1..slice.len()).rev() {
            slice.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        // First output for seed 0 of the published algorithm.
        assert_eq!(Rng::new(0).next(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn shuffle_keeps_every_element() {
        let mut numbers: Vec<u32> = (0..100).collect();
        Rng::new(1).shuffle(&mut numbers);
        assert_ne!(numbers, (0..100).collect::<Vec<_>>());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn signed_numbers_reach_both_limits() {
        let mut rng = Rng::new(2);
        let numbers: Vec<i64> = (0..200).map(|_| rng.signed(3)).collect();
        assert_eq!(numbers.iter().min(), Some(&-3));
        assert_eq!(numbers.iter().max(), Some(&3));
    }
}

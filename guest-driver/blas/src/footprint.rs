// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pages that the matrices of a call lie in, each counted once: blocks of one larger matrix, as
//! LAPACK's calls have them, share pages.
#![forbid(unsafe_code)]

use coax::abi::wire::PAGE_SIZE;
use coax::PageRange;

use crate::matrix::Matrix;

/// Pages that are asked for to know where all are.
const SPOTS: u64 = 16;

/// Pages of the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Footprint {
    /// Ranges without a page in common, in order.
    pub ranges: Vec<PageRange>,
    /// Pages of matrices whose columns are far from each other, which are not looked for one by one.
    pub spread: f64,
}

/// Pages, counted by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Those that the device uses where they are: in its memory, or of files and shared.
    pub in_place: f64,
    /// Those of them that come to the CPU when it touches them.
    pub to_come_back: f64,
}

impl Footprint {
    /// The pages of some matrices, those between columns that are near each other included.
    pub fn of<T>(matrices: &[Matrix<T>]) -> Self {
        let spread = matrices.iter().filter(|matrix| matrix.is_spread());
        let spread = spread.map(Matrix::pages).sum();
        let mut all: Vec<PageRange> = matrices.iter().filter_map(Matrix::range).collect();
        all.sort_by_key(|range| range.addr);
        let mut ranges: Vec<PageRange> = Vec::with_capacity(all.len());
        for range in all {
            match ranges.last_mut() {
                Some(last) if range.addr <= last.addr + last.len => {
                    let end = (range.addr + range.len).max(last.addr + last.len);
                    last.len = end - last.addr;
                }
                _ => ranges.push(range),
            }
        }
        Self { ranges, spread }
    }

    /// A few pages from all over the ranges, or all if there are few: where those are the others will be.
    pub fn spots(&self) -> Vec<PageRange> {
        let pages: u64 = self.ranges.iter().map(|range| range.pages()).sum();
        let count = pages.min(SPOTS);
        let mut wanted = (0..count)
            .map(|n| (2 * n + 1) * pages / (2 * count))
            .peekable();
        let (mut spots, mut before) = (Vec::with_capacity(count as usize), 0);
        for range in &self.ranges {
            while let Some(page) = wanted.next_if(|&page| page < before + range.pages()) {
                spots.push(PageRange::new(
                    range.addr + (page - before) * PAGE_SIZE,
                    PAGE_SIZE,
                ));
            }
            before += range.pages();
        }
        spots
    }

    /// All of them.
    pub fn pages(&self) -> f64 {
        let near: u64 = self.ranges.iter().map(|range| range.pages()).sum();
        near as f64 + self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(address: usize, rows: usize, cols: usize, ld: usize) -> Matrix<f64> {
        Matrix {
            at: std::ptr::without_provenance_mut(address),
            rows,
            cols,
            ld,
        }
    }

    #[test]
    fn blocks_of_one_matrix_share_their_pages() {
        // Columns of two pages: an upper and a lower block, whose pages lie between each other.
        let whole = matrix(0x10000, 1024, 64, 1024);
        let (upper, lower) = (whole.block(0, 8, 64, 56), whole.block(64, 8, 960, 56));
        let alone = Footprint::of(&[lower]).pages();
        assert_eq!(Footprint::of(&[upper, lower]).pages(), alone);
        assert_eq!(Footprint::of(&[lower, upper]).ranges.len(), 1);
    }

    #[test]
    fn matrices_apart_are_ranges_of_their_own() {
        let (low, high) = (matrix(0x10000, 512, 2, 512), matrix(0x40000, 512, 3, 512));
        let footprint = Footprint::of(&[high, low]);
        assert_eq!(footprint.ranges.len(), 2);
        assert_eq!(footprint.pages(), 5.0);
    }

    #[test]
    fn spots_are_pages_of_all_ranges_by_their_size() {
        let (low, high) = (matrix(0x10000, 512, 8, 512), matrix(0x40000, 512, 24, 512));
        let spots = Footprint::of(&[low, high]).spots();
        assert_eq!(spots.len(), 16);
        assert_eq!(spots.iter().filter(|spot| spot.addr < 0x40000).count(), 4);
        assert!(spots
            .iter()
            .all(|spot| spot.len == PAGE_SIZE && spot.addr < 0x40000 + 24 * 4096));
        let few = Footprint::of(&[matrix(0x10000, 512, 3, 512)]);
        let addresses: Vec<_> = few.spots().iter().map(|spot| spot.addr).collect();
        assert_eq!(addresses, [0x10000, 0x11000, 0x12000]);
        assert!(Footprint::default().spots().is_empty());
    }

    #[test]
    fn columns_far_from_each_other_are_counted_and_not_listed() {
        let spread = matrix(0x10000, 512, 8, 1 << 20);
        let footprint = Footprint::of(&[spread]);
        assert!(footprint.ranges.is_empty());
        assert_eq!(footprint.pages(), spread.pages());
    }
}

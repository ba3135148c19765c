// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes of tiles, and who may have large ones.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

/// Operations that have large tiles at the same time; 2.6 MiB each in double precision.
const LARGE_TILES: usize = 4;

/// Largest extents of tiles.
#[derive(Clone, Copy, Debug)]
pub struct TileSize {
    pub m: u64,
    pub n: u64,
    pub k: u64,
}

impl TileSize {
    /// Largest depth of tiles of `m` rows and `n` columns of C: deeper where these are few, in the same
    /// room, since each step has its own cost.
    pub fn depth(self, m: u64, n: u64) -> u64 {
        let room = self.k * self.m.min(self.n);
        self.k.max(room / m.max(n).max(1))
    }
}

/// Rows and columns of C and depth of large tiles. A multiplication of two of them takes some
/// milliseconds, which is also how long others wait for it.
pub const LARGE: TileSize = TileSize {
    m: 384,
    n: 384,
    k: 256,
};
/// The same of small tiles, 40 KiB in double precision.
pub const SMALL: TileSize = TileSize {
    m: 32,
    n: 32,
    k: 64,
};
/// Tiles are cut at multiples of this where possible, which suits the kernels.
const TILE_ALIGN: u64 = 16;

/// Large tiles that are free.
#[derive(Clone, Debug)]
pub struct TilePool(Arc<AtomicUsize>);

impl Default for TilePool {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(LARGE_TILES)))
    }
}

impl TilePool {
    /// One of them, if there is one.
    pub fn take(&self) -> Option<Permit> {
        self.0
            .fetch_update(Relaxed, Relaxed, |free| free.checked_sub(1))
            .ok()
            .map(|_| Permit(Arc::clone(&self.0)))
    }
}

/// Permission to have large tiles; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Size of tiles that cuts `total` into as few tiles as `most` allows, of about equal size.
pub fn balanced(total: u64, most: u64) -> u64 {
    match total.div_ceil(most) {
        0 => 0,
        1 => total,
        parts => total.div_ceil(parts).next_multiple_of(TILE_ALIGN).min(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_balanced_and_within_their_bound() {
        assert_eq!(balanced(0, 384), 0);
        assert_eq!(balanced(7, 384), 7);
        assert_eq!(balanced(1024, 384), 352);
        assert_eq!(balanced(385, 384), 208);
        assert_eq!(balanced(u64::MAX, 384), 384);
    }

    #[test]
    fn tiles_of_few_rows_and_columns_are_deep_and_no_larger() {
        assert_eq!(LARGE.depth(384, 384), 256);
        assert_eq!(LARGE.depth(352, 1), 279);
        assert_eq!(LARGE.depth(1, 1), 384 * 256);
        assert_eq!(LARGE.depth(0, 0), 384 * 256);
        for (m, n) in [(1, 1), (5, 100), (384, 3)] {
            assert!(LARGE.depth(m, n) * m.max(n) <= 384 * 256);
        }
    }

    #[test]
    fn pool_runs_out_and_recovers() {
        let pool = TilePool::default();
        let permits: Vec<_> = (0..LARGE_TILES).map(|_| pool.take()).collect();
        assert!(permits.iter().all(Option::is_some));
        assert!(pool.take().is_none());
        drop(permits);
        assert!(pool.take().is_some());
    }
}

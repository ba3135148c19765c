// SPDX-License-Identifier: GPL-2.0

//! A bounded set of address ranges that may say too much but never too little.
//!
//! The driver records here which addresses the device may have cached, so that an invalidation
//! of anything else costs nothing. When the table is full the two ranges with the smallest gap
//! are joined: an invalidation may then be sent that was not needed, and none is missed.
//!
//! No kernel imports: `make test` runs the tests below on the host.

/// Ranges in a set: 2 KiB of memory, and more than a process's busy mappings usually number.
pub(crate) const MAX_RANGES: usize = 128;

/// Addresses `start` … `end`, `end` not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First address.
    pub(crate) start: u64,
    /// First address after it.
    pub(crate) end: u64,
}

/// The set.
///
/// # Invariants
///
/// `ranges[..len]` is sorted, its ranges are not empty and neither overlap nor touch.
pub(crate) struct RangeSet {
    ranges: [Range; MAX_RANGES],
    len: usize,
}

impl RangeSet {
    /// An empty set.
    pub(crate) const fn new() -> Self {
        RangeSet {
            ranges: [Range { start: 0, end: 0 }; MAX_RANGES],
            len: 0,
        }
    }

    /// Makes the set empty.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Index of the first range that ends at or after `address`.
    fn first_ending_at_or_after(&self, address: u64) -> usize {
        self.ranges[..self.len].partition_point(|r| r.end < address)
    }

    /// Whether any address of `start` … `end` is in the set.
    pub(crate) fn overlaps(&self, start: u64, end: u64) -> bool {
        let i = self.ranges[..self.len].partition_point(|r| r.end <= start);
        i < self.len && self.ranges[i].start < end
    }

    /// Adds `start` … `end`; does nothing if it is empty.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.first_ending_at_or_after(start);
        let mut new = Range { start, end };
        let mut after = first;
        while after < self.len && self.ranges[after].start <= end {
            new.start = new.start.min(self.ranges[after].start);
            new.end = new.end.max(self.ranges[after].end);
            after += 1;
        }
        if after > first {
            // Replaces those that it overlaps or touches.
            self.ranges[first] = new;
            self.ranges.copy_within(after..self.len, first + 1);
            self.len -= after - first - 1;
            return;
        }
        if self.len == MAX_RANGES {
            self.join_nearest();
            return self.insert(start, end);
        }
        self.ranges.copy_within(first..self.len, first + 1);
        self.ranges[first] = new;
        self.len += 1;
    }

    /// Removes `start` … `end`. Where this would need a range more than there is room for, the
    /// whole range stays.
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        let mut i = self.ranges[..self.len].partition_point(|r| r.end <= start);
        while i < self.len && self.ranges[i].start < end {
            let r = self.ranges[i];
            match (r.start < start, end < r.end) {
                (true, true) => {
                    if self.len < MAX_RANGES {
                        self.ranges.copy_within(i..self.len, i + 1);
                        self.ranges[i].end = start;
                        self.ranges[i + 1].start = end;
                        self.len += 1;
                    }
                    return;
                }
                (true, false) => {
                    self.ranges[i].end = start;
                    i += 1;
                }
                (false, true) => {
                    self.ranges[i].start = end;
                    return;
                }
                (false, false) => {
                    self.ranges.copy_within(i + 1..self.len, i);
                    self.len -= 1;
                }
            }
        }
    }

    /// Joins the two neighbours with the smallest gap.
    fn join_nearest(&mut self) {
        let mut best = 0;
        for i in 1..self.len - 1 {
            let gap = |k: usize| self.ranges[k + 1].start - self.ranges[k].end;
            if gap(i) < gap(best) {
                best = i;
            }
        }
        self.ranges[best].end = self.ranges[best + 1].end;
        self.ranges.copy_within(best + 2..self.len, best + 1);
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(set: &RangeSet) -> Vec<(u64, u64)> {
        set.ranges[..set.len]
            .iter()
            .map(|r| (r.start, r.end))
            .collect()
    }

    #[test]
    fn touching_and_overlapping_ranges_become_one() {
        let mut set = RangeSet::new();
        set.insert(10, 20);
        set.insert(30, 40);
        set.insert(20, 30);
        assert_eq!(contents(&set), [(10, 40)]);
        set.insert(5, 100);
        assert_eq!(contents(&set), [(5, 100)]);
    }

    #[test]
    fn removal_splits_trims_and_deletes() {
        let mut set = RangeSet::new();
        set.insert(0, 100);
        set.remove(40, 60);
        assert_eq!(contents(&set), [(0, 40), (60, 100)]);
        set.remove(30, 70);
        assert_eq!(contents(&set), [(0, 30), (70, 100)]);
        set.remove(0, 80);
        assert_eq!(contents(&set), [(80, 100)]);
        assert!(!set.overlaps(0, 80) && set.overlaps(0, 81) && !set.overlaps(100, 200));
    }

    #[test]
    fn a_full_set_joins_neighbours_and_forgets_nothing() {
        let mut set = RangeSet::new();
        for i in 0..4 * MAX_RANGES as u64 {
            set.insert(i * 10, i * 10 + 1);
        }
        assert!(set.len <= MAX_RANGES);
        for i in 0..4 * MAX_RANGES as u64 {
            assert!(set.overlaps(i * 10, i * 10 + 1));
        }
    }

    #[test]
    fn agrees_with_a_set_of_addresses() {
        let mut set = RangeSet::new();
        let mut model = std::collections::BTreeSet::new();
        // A fixed linear congruential sequence: repeatable, and any other would do.
        let mut x = 12345u64;
        let mut next = |n: u64| {
            x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        for _ in 0..20_000 {
            let start = next(500);
            let end = start + next(20);
            if next(2) == 0 {
                set.insert(start, end);
                model.extend(start..end);
            } else {
                set.remove(start, end);
                model.retain(|a| !(start..end).contains(a));
            }
            let probe = next(520);
            // Too much is allowed, too little is not; with this few ranges both agree.
            assert_eq!(set.overlaps(probe, probe + 1), model.contains(&probe));
        }
    }
}

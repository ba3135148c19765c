// SPDX-License-Identifier: GPL-2.0

//! A bounded map from address ranges to values.
//!
//! A change replaces what was said of its range and splits the ranges that it cuts; neighbours of the
//! same value become one. A change for which there is no room is refused, and the map stays as it was.
//!
//! No kernel imports: `make test` runs the tests below on the host.

use core::ops::{DerefMut, Range};

/// One value's addresses `start` … `end`, `end` not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry<V> {
    /// First address.
    pub(crate) start: u64,
    /// First address after it.
    pub(crate) end: u64,
    /// What is said of them.
    pub(crate) value: V,
}

/// There is no room for the ranges that a change would make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The map over storage `S`, whose length is the limit.
///
/// # Invariants
///
/// `entries[..len]` is sorted, its ranges are not empty and do not overlap, and those that touch have
/// different values.
pub(crate) struct RangeMap<S> {
    entries: S,
    len: usize,
}

impl<V: Copy + PartialEq, S: DerefMut<Target = [Entry<V>]>> RangeMap<S> {
    /// An empty map.
    pub(crate) fn new(entries: S) -> Self {
        RangeMap { entries, len: 0 }
    }

    /// Ranges in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn used(&self) -> &[Entry<V>] {
        &self.entries[..self.len]
    }

    /// The first range that ends after `address`.
    pub(crate) fn next(&self, address: u64) -> Option<Entry<V>> {
        let i = self.used().partition_point(|e| e.end <= address);
        self.used().get(i).copied()
    }

    /// What is said of `address`, and of which addresses around it the same entry, or none, says it.
    pub(crate) fn at(&self, address: u64) -> (Range<u64>, Option<V>) {
        let used = self.used();
        let i = used.partition_point(|e| e.end <= address);
        match used.get(i) {
            Some(e) if e.start <= address => (e.start..e.end, Some(e.value)),
            next => {
                let start = i.checked_sub(1).map_or(0, |last| used[last].end);
                (start..next.map_or(u64::MAX, |e| e.start), None)
            }
        }
    }

    /// Says `value` of `start` … `end`, or nothing any more; does nothing if the range is empty.
    ///
    /// # Errors
    ///
    /// [`Full`]: the map is as it was.
    pub(crate) fn set(&mut self, start: u64, end: u64, value: Option<V>) -> Result<(), Full> {
        if start >= end {
            return Ok(());
        }
        let used = self.used();
        // All that overlap or touch, less those that touch and say something else.
        let mut from = used.partition_point(|e| e.end < start);
        let mut to = used.partition_point(|e| e.start <= end);
        if from < to && used[from].end == start && Some(used[from].value) != value {
            from += 1;
        }
        if from < to && used[to - 1].start == end && Some(used[to - 1].value) != value {
            to -= 1;
        }
        let concerned = &used[from..to];
        let mut head = concerned.first().filter(|e| e.start < start).copied();
        let mut tail = concerned.last().filter(|e| e.end > end).copied();
        let mut middle = value.map(|value| Entry { start, end, value });
        if let Some(new) = &mut middle {
            if let Some(same) = head.take_if(|e| e.value == new.value) {
                new.start = same.start;
            }
            if let Some(same) = tail.take_if(|e| e.value == new.value) {
                new.end = same.end;
            }
        }
        if let Some(head) = &mut head {
            head.end = start;
        }
        if let Some(tail) = &mut tail {
            tail.start = end;
        }
        let count = [head, middle, tail].iter().flatten().count();
        let len = self.len - (to - from) + count;
        if len > self.entries.len() {
            return Err(Full);
        }
        self.entries.copy_within(to..self.len, from + count);
        for (slot, new) in self.entries[from..]
            .iter_mut()
            .zip([head, middle, tail].into_iter().flatten())
        {
            *slot = new;
        }
        self.len = len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(limit: usize) -> RangeMap<Vec<Entry<u8>>> {
        RangeMap::new(vec![Entry::default(); limit])
    }

    fn contents(map: &RangeMap<Vec<Entry<u8>>>) -> Vec<(u64, u64, u8)> {
        map.used()
            .iter()
            .map(|e| (e.start, e.end, e.value))
            .collect()
    }

    #[test]
    fn a_change_splits_what_it_cuts() {
        let mut map = map(8);
        map.set(0, 100, Some(1)).expect("room");
        map.set(40, 60, Some(2)).expect("room");
        assert_eq!(contents(&map), [(0, 40, 1), (40, 60, 2), (60, 100, 1)]);
        map.set(50, 70, None).expect("room");
        assert_eq!(contents(&map), [(0, 40, 1), (40, 50, 2), (70, 100, 1)]);
        map.set(30, 80, Some(3)).expect("room");
        assert_eq!(contents(&map), [(0, 30, 1), (30, 80, 3), (80, 100, 1)]);
    }

    #[test]
    fn neighbours_of_the_same_value_become_one() {
        let mut map = map(8);
        map.set(10, 20, Some(1)).expect("room");
        map.set(30, 40, Some(1)).expect("room");
        map.set(40, 50, Some(2)).expect("room");
        map.set(20, 30, Some(1)).expect("room");
        assert_eq!(contents(&map), [(10, 40, 1), (40, 50, 2)]);
        map.set(40, 50, Some(1)).expect("room");
        assert_eq!(contents(&map), [(10, 50, 1)]);
        map.set(20, 30, Some(1)).expect("room");
        assert_eq!(contents(&map), [(10, 50, 1)]);
    }

    #[test]
    fn a_look_tells_how_far_it_holds() {
        let mut map = map(8);
        assert_eq!(map.at(5), (0..u64::MAX, None));
        map.set(10, 20, Some(1)).expect("room");
        map.set(20, 30, Some(2)).expect("room");
        assert_eq!(map.at(9), (0..10, None));
        assert_eq!(map.at(10), (10..20, Some(1)));
        assert_eq!(map.at(20), (20..30, Some(2)));
        assert_eq!(map.at(30), (30..u64::MAX, None));
        assert_eq!(map.next(15).map(|e| e.start), Some(10));
        assert_eq!(map.next(20).map(|e| e.start), Some(20));
        assert_eq!(map.next(30), None);
    }

    #[test]
    fn a_full_map_refuses_and_stays_as_it_was() {
        let mut map = map(4);
        for i in 0..4 {
            map.set(i * 10, i * 10 + 5, Some(1)).expect("room");
        }
        let before = contents(&map);
        assert_eq!(map.set(100, 101, Some(1)), Err(Full));
        assert_eq!(map.set(2, 3, None), Err(Full));
        assert_eq!(map.set(2, 3, Some(2)), Err(Full));
        assert_eq!(contents(&map), before);
        // What needs no more ranges is done even so.
        map.set(0, 5, Some(2)).expect("as many as before");
        map.set(12, 15, None).expect("as many as before");
        map.set(5, 25, Some(3)).expect("fewer than before");
        assert_eq!(contents(&map), [(0, 5, 2), (5, 25, 3), (30, 35, 1)]);
    }

    #[test]
    fn no_room_at_all_is_full() {
        let mut map = map(0);
        assert_eq!(map.set(0, 1, Some(1)), Err(Full));
        map.set(0, 1, None).expect("nothing to do");
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn agrees_with_a_value_for_each_address() {
        const ADDRESSES: u64 = 300;
        let mut map = map(24);
        let mut model = vec![None; ADDRESSES as usize];
        // A fixed linear congruential sequence: repeatable, and any other would do.
        let mut x = 4711u64;
        let mut next = |n: u64| {
            x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        let mut refused = 0;
        for _ in 0..50_000 {
            let start = next(ADDRESSES);
            let end = (start + next(20)).min(ADDRESSES);
            let value = Some(next(4) as u8).filter(|value| *value > 0);
            match map.set(start, end, value) {
                Ok(()) => model[start as usize..end.max(start) as usize].fill(value),
                Err(Full) => refused += 1,
            }
            let seen: Vec<_> = (0..ADDRESSES).map(|a| map.at(a).1).collect();
            assert_eq!(seen, model);
            let joined = |w: &[Entry<u8>]| w[0].end < w[1].start || w[0].value != w[1].value;
            assert!(map
                .used()
                .windows(2)
                .all(|w| w[0].end <= w[1].start && joined(w)));
        }
        assert!(refused > 0, "the limit was never reached");
    }
}

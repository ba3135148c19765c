// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A queue whose users take turns.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Values first come, first served for each key; the keys take turns, one value each.
///
/// # Invariants
///
/// `turns` has each key of `queues` once, and no queue is empty.
#[derive(Debug)]
pub struct Fair<K, V> {
    queues: HashMap<K, VecDeque<V>>,
    turns: VecDeque<K>,
}

impl<K, V> Default for Fair<K, V> {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, V> Fair<K, V> {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Adds a value behind those of its key.
    pub fn push(&mut self, key: K, value: V) {
        let queue = self.queues.entry(key).or_default();
        if queue.is_empty() {
            self.turns.push_back(key);
        }
        queue.push_back(value);
    }

    /// Puts a value back that was taken: it is the next.
    pub fn put_back(&mut self, key: K, value: V) {
        self.queues.entry(key).or_default().push_front(value);
        self.turns.retain(|&other| other != key);
        self.turns.push_front(key);
    }

    /// Takes the next value of the keys whose turn `may` allows.
    pub fn pop(&mut self, may: impl Fn(K) -> bool) -> Option<(K, V)> {
        let at = self.turns.iter().position(|&key| may(key))?;
        let key = self.turns.remove(at)?;
        let queue = self.queues.get_mut(&key)?;
        let value = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        Some((key, value))
    }

    /// Removes the values of a key that `gone` picks.
    pub fn remove(&mut self, key: K, gone: impl Fn(&V) -> bool) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.retain(|value| !gone(value));
            if queue.is_empty() {
                self.queues.remove(&key);
                self.turns.retain(|&other| other != key);
            }
        }
    }

    /// Values of a key, in order.
    pub fn values(&self, key: K) -> impl Iterator<Item = &V> {
        self.queues.get(&key).into_iter().flatten()
    }

    /// All values of all keys, those that were added last first for each.
    pub fn latest_first(&mut self) -> impl Iterator<Item = impl Iterator<Item = &mut V>> {
        self.queues.values_mut().map(|queue| queue.iter_mut().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(fair: &mut Fair<char, u32>) -> Vec<(char, u32)> {
        std::iter::from_fn(|| fair.pop(|_| true)).collect()
    }

    #[test]
    fn keys_take_turns() {
        let mut fair = Fair::default();
        for n in 0..3 {
            fair.push('a', n);
        }
        fair.push('b', 10);
        fair.push('c', 20);
        fair.push('c', 21);
        let order = [
            ('a', 0),
            ('b', 10),
            ('c', 20),
            ('a', 1),
            ('c', 21),
            ('a', 2),
        ];
        assert_eq!(all(&mut fair), order);
        assert!(fair.is_empty());
    }

    #[test]
    fn key_that_may_not_is_passed_over_and_keeps_its_turn() {
        let mut fair = Fair::default();
        fair.push('a', 0);
        fair.push('b', 1);
        fair.push('b', 2);
        assert_eq!(fair.pop(|key| key != 'a'), Some(('b', 1)));
        assert_eq!(fair.pop(|_| false), None);
        fair.put_back('b', 1);
        assert_eq!(all(&mut fair), [('b', 1), ('a', 0), ('b', 2)]);
    }

    #[test]
    fn removed_values_leave_no_turn_behind() {
        let mut fair = Fair::default();
        fair.push('a', 0);
        fair.push('a', 1);
        fair.push('b', 2);
        fair.remove('a', |&value| value == 0);
        assert_eq!(fair.values('a').count(), 1);
        fair.remove('a', |_| true);
        fair.remove('z', |_| true);
        assert_eq!(all(&mut fair), [('b', 2)]);
    }
}

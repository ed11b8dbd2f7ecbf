//! Work that is due at a time.

use std::collections::{BTreeMap, BTreeSet};

/// Keys by the time at which each is due, every key at most once.
#[derive(Debug)]
pub(crate) struct DueQueue<K> {
    by_time: BTreeSet<(u64, K)>,
    times: BTreeMap<K, u64>,
}

impl<K> Default for DueQueue<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), times: BTreeMap::new() }
    }
}

impl<K: Clone + Ord> DueQueue<K> {
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.times.contains_key(&key)
    }

    /// Has a key due at this time, whatever was planned for it before.
    pub(crate) fn set(&mut self, key: K, at_ms: u64) {
        self.remove(key.clone());
        self.times.insert(key.clone(), at_ms);
        self.by_time.insert((at_ms, key));
    }

    /// Has a key due at this time at the latest: what is due already keeps its turn.
    pub(crate) fn hasten(&mut self, key: K, at_ms: u64) {
        if self.times.get(&key).is_none_or(|planned_ms| *planned_ms > at_ms) {
            self.set(key, at_ms);
        }
    }

    pub(crate) fn remove(&mut self, key: K) {
        if let Some(at_ms) = self.times.remove(&key) {
            self.by_time.remove(&(at_ms, key));
        }
    }

    /// The earliest time.
    pub(crate) fn first_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(at_ms, _)| *at_ms)
    }

    /// The first key whose time has come.
    pub(crate) fn due(&self, now_ms: u64) -> Option<K> {
        self.by_time.first().filter(|(at_ms, _)| *at_ms <= now_ms).map(|(_, key)| key.clone())
    }

    /// Takes the first key whose time has come.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<K> {
        let key = self.due(now_ms)?;
        self.remove(key.clone());
        Some(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.times.keys().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_due_once_at_the_time_that_was_set_last() {
        let mut queue = DueQueue::default();
        queue.set("a", 5);
        queue.set("b", 3);
        queue.set("a", 1);
        assert_eq!((queue.len(), queue.first_ms()), (2, Some(1)));
        queue.hasten("a", 4);
        queue.hasten("b", 2);
        assert_eq!((queue.first_ms(), queue.times["b"]), (Some(1), 2));
        assert_eq!(queue.pop_due(0), None);
        assert_eq!(queue.pop_due(9), Some("a"));
        queue.remove("b");
        assert!(queue.pop_due(9).is_none() && queue.first_ms().is_none() && !queue.contains("b"));
    }
}

//! Equal values held once.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
};

/// A value's hash: tells whether two values differ without keeping both. The same in every process of one build.
pub(crate) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Shares equal values among their owners. It keeps none alive.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    by_hash: BTreeMap<u64, Vec<Weak<T>>>,
    values: usize,
    values_max: usize,
}

impl<T: Eq + Hash> Pool<T> {
    /// A pool that shares at most `values_max` distinct values; further ones are held by each owner.
    pub(crate) fn new(values_max: usize) -> Self {
        Self { by_hash: BTreeMap::new(), values: 0, values_max }
    }

    /// The value, shared with whoever has an equal one.
    pub(crate) fn intern(&mut self, value: T) -> Arc<T> {
        let hash = hash_of(&value);
        let known = self.by_hash.get(&hash).into_iter().flatten().filter_map(Weak::upgrade);
        if let Some(known) = known.into_iter().find(|known| **known == value) {
            return known;
        }
        let value = Arc::new(value);
        if self.values >= self.values_max {
            self.sweep();
        }
        if self.values < self.values_max {
            self.by_hash.entry(hash).or_default().push(Arc::downgrade(&value));
            self.values += 1;
        }
        value
    }

    /// Forgets values that have no owner any more.
    pub(crate) fn sweep(&mut self) {
        self.by_hash.retain(|_, values| {
            values.retain(|value| value.strong_count() > 0);
            !values.is_empty()
        });
        self.values = self.by_hash.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_shared_as_long_as_someone_has_them() {
        let mut pool = Pool::new(2);
        let one = pool.intern("one");
        assert!(Arc::ptr_eq(&one, &pool.intern("one")));
        drop(pool.intern("two"));
        let three = pool.intern("three");
        assert!(Arc::ptr_eq(&three, &pool.intern("three")), "two has no owner and gives way");
        assert!(!Arc::ptr_eq(&pool.intern("four"), &pool.intern("four")), "the pool is full");
        drop((one, three));
        pool.sweep();
        assert!(pool.by_hash.is_empty());
    }
}

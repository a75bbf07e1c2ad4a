//! A bounded table that is read by many cores and forgets what is not asked for. Knows nothing of tokens.
//!
//! Each shard has a young and an old generation. What is put in, or is found in the old one, goes to the young one; when that is
//! full the old one is dropped and the young one becomes old. So an entry that is asked for at least once per generation stays,
//! nothing is ever searched for a victim, and the table holds at most as many entries as it was made for.

use std::{
    collections::HashMap,
    mem,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// The most shards; each is locked for a look-up alone.
const SHARDS_MAX: usize = 64;
/// Fewer entries than this are not worth another shard.
const SHARD_ENTRIES_MIN: usize = 64;

pub(super) struct Remembered<V> {
    shards: Box<[RwLock<Shard<V>>]>,
    generation_max: usize,
}

struct Shard<V> {
    young: HashMap<Box<str>, V>,
    old: HashMap<Box<str>, V>,
}

impl<V: Clone> Remembered<V> {
    /// A table for at most `entries_max` entries; fewer than 2 remember nothing.
    pub(super) fn new(entries_max: usize) -> Self {
        let shards = (entries_max / SHARD_ENTRIES_MIN).clamp(1, SHARDS_MAX);
        let empty = || RwLock::new(Shard { young: HashMap::new(), old: HashMap::new() });
        Self { shards: (0..shards).map(|_| empty()).collect(), generation_max: entries_max / (2 * shards) }
    }

    pub(super) fn get(&self, key: &str) -> Option<V> {
        let shard = self.shard(key);
        let old = {
            let shard = read(shard);
            if let Some(value) = shard.young.get(key) {
                return Some(value.clone());
            }
            shard.old.get(key).cloned()?
        };
        self.put(key, old.clone());
        Some(old)
    }

    pub(super) fn put(&self, key: &str, value: V) {
        if self.generation_max == 0 {
            return;
        }
        // Freed after the lock is.
        let _dropped;
        let mut shard = write(self.shard(key));
        shard.old.remove(key);
        if shard.young.len() >= self.generation_max && !shard.young.contains_key(key) {
            let full = mem::take(&mut shard.young);
            _dropped = mem::replace(&mut shard.old, full);
        }
        shard.young.insert(key.into(), value);
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(read).map(|shard| shard.young.len() + shard.old.len()).sum()
    }

    /// By the last bytes, which in a token are its signature's and evenly spread.
    fn shard(&self, key: &str) -> &RwLock<Shard<V>> {
        let tail = key.bytes().rev().take(8).fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        &self.shards[tail % self.shards.len()]
    }
}

/// A shard is whole between any two operations on its maps, also when a thread panicked while it held the lock.
fn read<V>(shard: &RwLock<Shard<V>>) -> RwLockReadGuard<'_, Shard<V>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<V>(shard: &RwLock<Shard<V>>) -> RwLockWriteGuard<'_, Shard<V>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        for entries_max in [2, 10, 1000] {
            let table = Remembered::new(entries_max);
            table.put("honest", 0);
            for n in 0..10_000 {
                table.put(&n.to_string(), n);
                assert_eq!(table.get("honest"), Some(0), "after {n}");
                assert!(table.len() <= entries_max, "{} of {entries_max}", table.len());
            }
            assert_eq!(table.get("0"), None);
            assert_eq!(table.get("9999"), Some(9999));
        }
    }

    #[test]
    fn a_table_for_nothing_remembers_nothing() {
        let table = Remembered::new(0);
        table.put("a", 1);
        assert_eq!((table.get("a"), table.len()), (None, 0));
    }

    #[test]
    fn a_new_value_replaces_an_old_one() {
        let table = Remembered::new(4);
        table.put("a", 1);
        table.put("b", 1);
        table.put("c", 1);
        table.put("a", 2);
        assert_eq!(table.get("a"), Some(2));
    }
}

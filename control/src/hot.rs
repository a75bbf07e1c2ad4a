//! A bounded cache of what was read, in front of whoever keeps it. Knows neither.
//!
//! Each shard has a young and an old generation. What is kept, or is found in the old one, goes to the young one; when that is full
//! the old one is dropped and the young one becomes old. So what is asked for at least once per generation stays, and the cache never
//! weighs more than it was made for. A write forgets its key, and a read that began before the write cannot bring the old value back:
//! it holds a [`Ticket`] that is void by then. Concurrent misses of one key each read for themselves.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    mem,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;

/// Each is locked for a look-up alone.
const SHARDS: usize = 16;

/// A cache. What it is asked for is cloned out, so values are cheap to clone.
pub(crate) struct Hot<K, V> {
    shards: Box<[RwLock<Shard<K, V>>]>,
    hasher: RandomState,
    generation_max: usize,
    weigh: fn(&K, &V) -> usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Shard<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    young_weight: usize,
    old_weight: usize,
    /// How often a key of this shard was forgotten.
    forgotten: u64,
}

/// A read that began; its result may be kept unless the key's shard has forgotten something since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket(u64);

impl<K: Hash + Eq + Clone, V: Clone> Hot<K, V> {
    /// A cache for at most `weight_max` in all, as `weigh` has it.
    pub(crate) fn new(weight_max: usize, weigh: fn(&K, &V) -> usize) -> Self {
        let empty = || Shard { young: HashMap::new(), old: HashMap::new(), young_weight: 0, old_weight: 0, forgotten: 0 };
        Self {
            shards: (0..SHARDS).map(|_| RwLock::new(empty())).collect(),
            hasher: RandomState::new(),
            generation_max: weight_max / (2 * SHARDS),
            weigh,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What is kept under `key`.
    pub(crate) fn find(&self, key: &K) -> Option<V> {
        let found = self.found(key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn found(&self, key: &K) -> Option<V> {
        let shard = self.shard(key);
        let (value, ticket) = {
            let shard = shard.read();
            if let Some(value) = shard.young.get(key) {
                return Some(value.clone());
            }
            (shard.old.get(key).cloned()?, Ticket(shard.forgotten))
        };
        self.keep(ticket, key.clone(), value.clone());
        Some(value)
    }

    /// To be taken before a value is read where it is kept for good.
    pub(crate) fn reading(&self, key: &K) -> Ticket {
        Ticket(self.shard(key).read().forgotten)
    }

    /// Keeps what was read, unless it may have been overtaken by a write.
    pub(crate) fn keep(&self, Ticket(forgotten): Ticket, key: K, value: V) {
        let weight = (self.weigh)(&key, &value);
        // Freed after the lock is.
        let _dropped;
        let mut shard = self.shard(&key).write();
        if shard.forgotten != forgotten || weight > self.generation_max {
            return;
        }
        shard.remove(&key, self.weigh);
        if shard.young_weight + weight > self.generation_max {
            shard.old_weight = mem::take(&mut shard.young_weight);
            let full = mem::take(&mut shard.young);
            _dropped = mem::replace(&mut shard.old, full);
        }
        shard.young_weight += weight;
        shard.young.insert(key, value);
    }

    /// To be called once a write of `key` is done, and before it is answered.
    pub(crate) fn forget(&self, key: &K) {
        let mut shard = self.shard(key).write();
        shard.forgotten += 1;
        shard.remove(key, self.weigh);
    }

    /// What is kept under `key`, or what `read` finds, which is kept if it finds something.
    pub(crate) async fn find_or<E>(&self, key: &K, read: impl Future<Output = Result<Option<V>, E>>) -> Result<Option<V>, E> {
        if let Some(value) = self.find(key) {
            return Ok(Some(value));
        }
        let ticket = self.reading(key);
        let value = read.await?;
        if let Some(value) = &value {
            self.keep(ticket, key.clone(), value.clone());
        }
        Ok(value)
    }

    /// Look-ups that found something, and those that did not, since it was made.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// How many values are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read()).map(|shard| shard.young.len() + shard.old.len()).sum()
    }

    fn shard(&self, key: &K) -> &RwLock<Shard<K, V>> {
        // The low bits of a hash choose the bucket in a map; these are others.
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    fn remove(&mut self, key: &K, weigh: fn(&K, &V) -> usize) {
        if let Some(value) = self.young.remove(key) {
            self.young_weight -= weigh(key, &value);
        }
        if let Some(value) = self.old.remove(key) {
            self.old_weight -= weigh(key, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_entries(entries_max: usize) -> Hot<u64, u64> {
        Hot::new(entries_max, |_, _| 1)
    }

    fn put(hot: &Hot<u64, u64>, key: u64, value: u64) {
        hot.keep(hot.reading(&key), key, value);
    }

    #[test]
    fn what_is_asked_for_stays_and_all_of_it_is_bounded() {
        let hot = of_entries(640);
        put(&hot, u64::MAX, 7);
        for key in 0..20_000 {
            put(&hot, key, key);
            assert_eq!(hot.find(&u64::MAX), Some(7), "after {key}");
            assert!(hot.len() <= 640, "{}", hot.len());
        }
        assert_eq!((hot.find(&0), hot.find(&19_999)), (None, Some(19_999)));
        assert_eq!(hot.counts(), (20_001, 1));
    }

    #[test]
    fn weights_count_and_not_entries() {
        let hot: Hot<u64, Vec<u8>> = Hot::new(SHARDS * 2 * 100, |_, value| value.len());
        for key in 0..1000 {
            hot.keep(hot.reading(&key), key, vec![0; 60]);
        }
        assert!(hot.len() <= SHARDS * 2, "{}", hot.len());
        hot.keep(hot.reading(&1), 1, vec![0; 101]);
        assert_eq!(hot.find(&1).map(|value| value.len()).filter(|len| *len == 101), None, "too heavy for a generation");
    }

    #[test]
    fn a_read_that_was_overtaken_by_a_write_is_not_kept() {
        let hot = of_entries(100);
        let ticket = hot.reading(&1);
        hot.forget(&1);
        hot.keep(ticket, 1, 0);
        assert_eq!(hot.find(&1), None);
        put(&hot, 1, 1);
        assert_eq!(hot.find(&1), Some(1));
        hot.forget(&1);
        assert_eq!(hot.find(&1), None);
    }

    #[tokio::test]
    async fn only_what_is_there_is_kept() {
        let hot = of_entries(100);
        let read = async |found: Option<u64>| hot.find_or(&1, async { Ok::<_, ()>(found) }).await.unwrap();
        assert_eq!(read(None).await, None);
        assert_eq!(read(Some(2)).await, Some(2));
        assert_eq!(read(Some(3)).await, Some(2), "from memory");
        assert_eq!(hot.find_or(&2, async { Err("down") }).await, Err("down"));
    }
}

//! What is known of objects: the current generation by key, under a byte budget of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use foyer_memory::{Cache, CacheBuilder, LruConfig};

/// Everything that is the same for all slices of one version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The strong entity tag, quotes included (RFC 9110 §8.8.3): two generations with the same one and the same length are the same bytes.
    pub validator: String,
    /// Bytes of the whole object.
    pub length: u64,
    /// Headers to replay with every answer, lower-case names.
    pub headers: Vec<(String, String)>,
    /// How long it may be served without asking the source again.
    pub fresh_for: Duration,
    /// How old the source said that it was when it came (`Age`, RFC 9111 §5.1).
    pub initial_age: Duration,
    /// What it can be purged by, together with others.
    pub tags: Vec<String>,
}

impl Generation {
    /// Whether both are the same bytes.
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.validator == other.validator && self.length == other.length
    }

    fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 32).sum();
        self.validator.len() + headers + tags + 256
    }
}

/// A generation, the number that its slices are filed under, and when the source last vouched for it.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) id: u64,
    pub(crate) generation: Arc<Generation>,
    vouched_at: Instant,
}

impl Known {
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.generation.fresh_for
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.vouched_at).saturating_add(self.generation.initial_age)
    }
}

/// The current generation of each object. What is forgotten for want of room is learnt again from the source.
pub(crate) struct Objects {
    table: Cache<Arc<str>, Known>,
    next_id: AtomicU64,
}

impl Objects {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let table = CacheBuilder::new(usize::try_from(bytes_max).unwrap_or(usize::MAX))
            .with_name("objects")
            .with_shards(4)
            .with_eviction_config(LruConfig { high_priority_pool_ratio: 0.0 })
            .with_weighter(|key: &Arc<str>, known: &Known| key.len() + known.generation.weight())
            .build();
        Self { table, next_id: AtomicU64::new(0) }
    }

    pub(crate) fn known(&self, key: &str) -> Option<Known> {
        self.table.get(key).map(|entry| entry.value().clone())
    }

    /// Files `generation` as the current one of `key`. The same bytes keep their number, and so their slices.
    pub(crate) fn learn(&self, key: &Arc<str>, generation: Generation, now: Instant) -> Known {
        let id = match self.known(key) {
            Some(known) if known.generation.same_bytes(&generation) => known.id,
            _ => self.next_id.fetch_add(1, Ordering::Relaxed),
        };
        let known = Known { id, generation: Arc::new(generation), vouched_at: now };
        self.table.insert(key.clone(), known.clone());
        known
    }

    /// The source vouched for `known` again.
    pub(crate) fn renew(&self, key: &Arc<str>, known: &Known, now: Instant) -> Known {
        let renewed = Known { vouched_at: now, ..known.clone() };
        self.table.insert(key.clone(), renewed.clone());
        renewed
    }

    pub(crate) fn forget(&self, key: &str) {
        self.table.remove(key);
    }

    /// Forgets `key` if `id` is still its current generation.
    pub(crate) fn forget_generation(&self, key: &str, id: u64) {
        if self.known(key).is_some_and(|known| known.id == id) {
            self.forget(key);
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.table.entries() as u64
    }
}

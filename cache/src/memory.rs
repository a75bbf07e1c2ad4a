//! The RAM tier: which slices stay. The memory itself is the slab's and is counted by the budget.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foyer_common::event::{Event, EventListener};
use foyer_memory::{Cache, CacheBuilder, EvictionConfig, FifoConfig, LfuConfig, LruConfig, S3FifoConfig, SieveConfig};
use parking_lot::Mutex;

use crate::slab::Slab;

/// The part of RAM for slices that were not asked for again yet, under S3-FIFO: the worst case over all kinds of traffic is least with it
/// (`docs/decisions/0010-what-each-tier-keeps.md`).
const SMALL_QUEUE: f64 = 0.25;

/// Who leaves when RAM is full. All are foyer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// S3-FIFO (Yang et al., SOSP 2023).
    S3Fifo,
    /// SIEVE (Zhang et al., NSDI 2024).
    Sieve,
    /// W-TinyLFU (Einziger et al., 2017).
    Lfu,
    /// Least recently used.
    Lru,
    /// First in, first out.
    Fifo,
}

impl Policy {
    const NAMES: [(Self, &str); 5] =
        [(Self::S3Fifo, "s3fifo"), (Self::Sieve, "sieve"), (Self::Lfu, "lfu"), (Self::Lru, "lru"), (Self::Fifo, "fifo")];

    /// As the RAM tier runs it.
    pub(crate) fn eviction(self) -> EvictionConfig {
        match self {
            Self::S3Fifo => S3FifoConfig { small_queue_capacity_ratio: SMALL_QUEUE, ..S3FifoConfig::default() }.into(),
            other => other.of_foyer(),
        }
    }

    /// As foyer has it by default.
    pub(crate) fn of_foyer(self) -> EvictionConfig {
        match self {
            Self::S3Fifo => S3FifoConfig::default().into(),
            Self::Sieve => SieveConfig.into(),
            Self::Lfu => LfuConfig::default().into(),
            Self::Lru => LruConfig::default().into(),
            Self::Fifo => FifoConfig::default().into(),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(policy, _)| policy == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(policy, _)| *policy).ok_or(UnknownPolicy)
    }
}

/// Not a policy's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a policy is one of s3fifo, sieve, lfu, lru, fifo")]
pub struct UnknownPolicy;

/// A slice is filed under its generation's number and its place in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    generation: u64,
    index: u64,
}

/// A slice, and the hash that it has outside of this run.
#[derive(Clone)]
struct Kept {
    slab: Arc<Slab>,
    hash: u64,
}

/// Slices in RAM.
pub(crate) struct Memory {
    table: Cache<Key, Kept>,
    account: Arc<Account>,
}

/// What is in the table, and what left it. Nothing can be listed of the table itself.
#[derive(Default)]
struct Account {
    evictions: AtomicU64,
    /// How often a hash is there: for a moment also what is replaced.
    held: Mutex<HashMap<u64, u32>>,
}

impl EventListener for Account {
    type Key = Key;
    type Value = Kept;

    fn on_leave(&self, reason: Event, _: &Key, kept: &Kept) {
        if matches!(reason, Event::Evict) {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let mut held = self.held.lock();
        if let Some(times) = held.get_mut(&kept.hash) {
            *times -= 1;
            if *times == 0 {
                held.remove(&kept.hash);
            }
        }
    }
}

impl Memory {
    pub(crate) fn new(policy: Policy, bytes_max: u64, slice_bytes: usize) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let account = Arc::new(Account::default());
        let table = CacheBuilder::new(bytes_max)
            .with_name("ram")
            // Each shard has its share of the bytes, so a shard must hold many slices for the policy to mean anything.
            .with_shards((bytes_max / slice_bytes / 64).clamp(1, 16))
            .with_eviction_config(policy.eviction())
            .with_weighter(|_: &Key, kept: &Kept| kept.slab.bytes_charged())
            .with_event_listener(account.clone())
            .build();
        Self { table, account }
    }

    pub(crate) fn slice(&self, generation: u64, index: u64) -> Option<Arc<Slab>> {
        self.table.get(&Key { generation, index }).map(|entry| entry.value().slab.clone())
    }

    pub(crate) fn contains(&self, generation: u64, index: u64) -> bool {
        self.table.contains(&Key { generation, index })
    }

    /// Keeps a slice; `hash` is what [`Self::hashes`] tells it by.
    pub(crate) fn keep(&self, generation: u64, index: u64, hash: u64, slab: Arc<Slab>) {
        // Before it is there: it may leave in the same moment.
        *self.account.held.lock().entry(hash).or_default() += 1;
        self.table.insert(Key { generation, index }, Kept { slab, hash });
    }

    /// The hashes of all slices that are kept now.
    pub(crate) fn hashes(&self) -> Vec<u64> {
        self.account.held.lock().keys().copied().collect()
    }

    pub(crate) fn clear(&self) {
        self.table.clear();
    }

    pub(crate) fn slices(&self) -> u64 {
        self.table.entries() as u64
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.account.evictions.load(Ordering::Relaxed)
    }
}

//! What is known of objects: the current generation by key, under a byte budget of its own.
//!
//! What was learnt carries the purge number that was current when the asking began, and is not found any more once a purge covers it. Purges are noted
//! and versions filed under one lock, so that nothing which was asked for before a purge is filed as if it had come after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use foyer_memory::{Cache, CacheBuilder, LruConfig};
use parking_lot::Mutex;

use crate::purge::{Note, Purge, Purges};

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
    /// The purge number that it was learnt at.
    pub(crate) number: u64,
    pub(crate) vouched: Vouched,
}

/// When a source last vouched for a version: by the wall clock, which outlasts a restart, and by the clock that never jumps.
#[derive(Clone, Copy)]
pub(crate) struct Vouched {
    pub(crate) at: SystemTime,
    noted: Instant,
    /// How long ago it was when it was noted.
    past: Duration,
}

impl Vouched {
    pub(crate) fn now() -> Self {
        Self { at: SystemTime::now(), noted: Instant::now(), past: Duration::ZERO }
    }

    /// What is written down may come from a clock that was wrong: what lies in the future is as old as can be.
    pub(crate) fn written_down(at: SystemTime) -> Self {
        Self { at, noted: Instant::now(), past: at.elapsed().unwrap_or(Duration::MAX) }
    }

    /// So long ago that nothing is fresh of it.
    pub(crate) fn never() -> Self {
        Self { at: SystemTime::UNIX_EPOCH, noted: Instant::now(), past: Duration::MAX }
    }

    fn ago(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.noted).saturating_add(self.past)
    }
}

impl Known {
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.generation.fresh_for
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.vouched.ago(now).saturating_add(self.generation.initial_age)
    }

    fn same_bytes(&self, other: &Generation) -> bool {
        self.generation.same_bytes(other)
    }
}

/// What came of filing a version.
pub(crate) struct Learnt {
    pub(crate) known: Known,
    /// What this says of versions before it, to be written down, and its number.
    pub(crate) noted: Option<(Note, u64)>,
}

/// The current generation of each object. What is forgotten for want of room is learnt again from the source.
pub(crate) struct Objects {
    table: Cache<Arc<str>, Known>,
    next_id: AtomicU64,
    purges: Arc<Purges>,
    /// Held while a version is filed and while a purge is noted.
    filing: Mutex<()>,
}

impl Objects {
    pub(crate) fn new(bytes_max: u64, purges: Arc<Purges>) -> Self {
        let table = CacheBuilder::new(usize::try_from(bytes_max).unwrap_or(usize::MAX))
            .with_name("objects")
            .with_shards(4)
            .with_eviction_config(LruConfig { high_priority_pool_ratio: 0.0 })
            .with_weighter(|key: &Arc<str>, known: &Known| key.len() + known.generation.weight())
            .build();
        Self { table, next_id: AtomicU64::new(0), purges, filing: Mutex::default() }
    }

    /// The current version of `key`, unless a purge covers it.
    pub(crate) fn known(&self, key: &str) -> Option<Known> {
        self.table.get(key).map(|entry| entry.value().clone()).filter(|known| !self.is_purged(key, known))
    }

    pub(crate) fn is_purged(&self, key: &str, known: &Known) -> bool {
        self.purges.covers(key, &known.generation.tags, known.number)
    }

    /// Files `generation`, which was asked for at `number` and which the source vouches for now, as the current one of `key`. The same bytes as those that
    /// are known, or that were `stale`, keep their id, and so their slices.
    ///
    /// What a purge covers meanwhile is good for those who asked before the purge, and is not filed. Where another version was known that
    /// `may_outlast` this run, that is a purge of it; where none was known and one may, it is doubted.
    pub(crate) fn learn(
        &self,
        key: &Arc<str>,
        generation: Arc<Generation>,
        number: u64,
        stale: Option<&Known>,
        may_outlast: impl FnOnce(Option<&Known>) -> bool,
    ) -> Learnt {
        let _filing = self.filing.lock();
        let current = self.known(key);
        let same = current.as_ref().into_iter().chain(stale).find(|other| other.same_bytes(&generation));
        let id = same.map_or_else(|| self.next_id(), |same| same.id);
        let mut known = Known { id, generation, number, vouched: Vouched::now() };
        if self.is_purged(key, &known) {
            return Learnt { known, noted: None };
        }
        let noted = match current.as_ref().or(stale) {
            Some(old) if old.id == id => None,
            Some(old) => may_outlast(Some(old)).then(|| {
                let purge = Purge::Object(key.to_string());
                (Note::Purge(purge.clone()), self.purges.add(purge))
            }),
            None => may_outlast(None).then(|| (Note::Doubt(Some(key.to_string())), self.purges.doubt(key))),
        };
        // What is learnt now is after it, and before any later one.
        known.number = noted.as_ref().map_or(number, |(_, number)| *number);
        self.table.insert(key.clone(), known.clone());
        Learnt { known, noted }
    }

    /// A version that was read from a device, to be filed if it is fresh and nothing newer is known; what is doubted is not fresh, whenever it was
    /// vouched for. `None` if it is worth nothing: purged, or replaced by another.
    pub(crate) fn recall(
        &self,
        key: &Arc<str>,
        generation: Generation,
        number: u64,
        vouched_at: Option<SystemTime>,
    ) -> Option<Known> {
        let _filing = self.filing.lock();
        if let Some(current) = self.known(key) {
            return current.same_bytes(&generation).then_some(current);
        }
        let vouched_at = vouched_at.filter(|_| !self.purges.doubts(key, number));
        let vouched = vouched_at.map_or_else(Vouched::never, Vouched::written_down);
        let known = Known { id: self.next_id(), generation: Arc::new(generation), number, vouched };
        if self.is_purged(key, &known) {
            return None;
        }
        if known.is_fresh(Instant::now()) {
            self.table.insert(key.clone(), known.clone());
        }
        Some(known)
    }

    /// The source does not have `gone` any more, or, where nothing was known, no version at all. Unless another version is known by now. If what is gone
    /// `may_outlast` this run that is a purge, whose number this gives.
    pub(crate) fn forget(&self, key: &str, gone: Option<&Known>, may_outlast: bool) -> Option<u64> {
        let _filing = self.filing.lock();
        if self.known(key).is_some_and(|known| gone.is_none_or(|gone| gone.id != known.id)) {
            return None;
        }
        self.table.remove(key);
        may_outlast.then(|| self.purges.add(Purge::Object(key.to_owned())))
    }

    /// Makes `purge` hold, and says its number.
    pub(crate) fn purge(&self, purge: Purge) -> u64 {
        let _filing = self.filing.lock();
        if let Purge::Object(key) = &purge {
            self.table.remove(key.as_str());
        }
        self.purges.add(purge)
    }

    pub(crate) fn len(&self) -> u64 {
        self.table.entries() as u64
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

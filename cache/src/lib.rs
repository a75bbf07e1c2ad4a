//! Larder's cache: slices of objects in RAM, many waiters and one fill.
//!
//! An object is known by its key (its path at an edge) and its *generation*: validator, length, headers. Its bytes live in slices of one
//! fixed size, each bound to a generation, so a range, a seek and a half-filled object are all the same case and two versions are
//! never mixed in one answer. The crate knows no HTTP and no network: a fill is handed in as a [`Source`].
//!
//! What always holds: memory for slices comes from one budget ([`Config::ram_bytes`]), which counts what is cached, what readers still
//! hold and what fills are writing; a slice is fetched once however many wait; a fill belongs to no reader.

mod disk;
mod error;
mod flight;
mod memory;
mod object;
mod purge;
mod read;
mod slab;
mod source;
mod stats;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

pub use disk::{DeviceConfig, DiskConfig, IoChoice};
pub use error::FillError;
pub use flight::Filler;
pub use memory::{Policy, UnknownPolicy};
pub use object::Generation;
pub use purge::Purge;
pub use read::Reader;
pub use source::{Source, Want};
pub use stats::{DeviceState, DeviceStats, DiskStats, LATENCY_BOUNDS_US, Latency, Verified};

use serde::Serialize;

use flight::{Flights, Handle, Joined};
use memory::Memory;
use object::{Known, Objects};
use slab::Budget;

/// How a cache is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// All memory for slices and what is known of objects, in bytes: cached, held by readers, being filled. At least 16 slices.
    pub ram_bytes: u64,
    /// Bytes per slice: a power of two from 256 KiB to 4 MiB.
    pub slice_bytes: usize,
    /// Who leaves when RAM is full.
    pub policy: Policy,
    /// How long a fill waits for memory before it gives up with [`FillError::Busy`].
    pub memory_wait_max: Duration,
    /// The SSD tier; without it, what RAM has no room for is fetched again.
    pub disk: Option<DiskConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self { ram_bytes: 1 << 30, slice_bytes: 1 << 20, policy: Policy::S3Fifo, memory_wait_max: Duration::from_secs(10), disk: None }
    }
}

/// Reads all that is on the devices of a cache that does not run and checks every byte. `progress` gets the bytes read so far and the bytes in all.
///
/// # Errors
/// In words for the operator: which device cannot be read, and why.
pub fn verify_offline(config: &DiskConfig, progress: impl FnMut(u64, u64)) -> Result<Verified, String> {
    let _ = (config, progress);
    Err("devices cannot be verified without an edge yet".into())
}

/// A cache that all cores share; cloning it is cheap.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    config: Config,
    budget: Arc<Budget>,
    objects: Objects,
    memory: Memory,
    flights: Flights,
    counters: Counters,
}

/// What is known of an object once it is open.
pub struct Opened {
    known: Known,
    first: Option<Handle>,
}

impl Opened {
    /// The version that every read of this opening gets, or fails.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.known.generation
    }

    /// The same version once more, for another read of it.
    pub fn again(&self) -> Self {
        Self { known: self.known.clone(), first: None }
    }

    /// Where the first bytes come from, or, where the opening asked for none, where they would be looked for first.
    pub fn verdict(&self) -> Verdict {
        self.first.as_ref().map_or(Verdict::Ram, |handle| handle.verdict)
    }

    /// How long ago the source made or vouched for the version (RFC 9111 §4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.known.age(now)
    }
}

/// Where the first bytes of a read come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They were in RAM.
    Ram,
    /// They are read from a device.
    Ssd,
    /// This read started the fill.
    Filled,
    /// Another read's fill was under way; this one waits for it too.
    Collapsed,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: Config) -> Self {
        let objects_bytes = config.ram_bytes / 32;
        let slices_bytes = config.ram_bytes - objects_bytes;
        Self(Arc::new(Shared {
            budget: Arc::new(Budget::new(slices_bytes, config.slice_bytes)),
            objects: Objects::new(objects_bytes),
            // The rest is for what fills write and for what readers still hold after it was evicted.
            memory: Memory::new(config.policy, slices_bytes / 4 * 3, config.slice_bytes),
            flights: Flights::default(),
            counters: Counters::default(),
            config,
        }))
    }

    /// Bytes per slice.
    pub fn slice_bytes(&self) -> usize {
        self.0.config.slice_bytes
    }

    /// Learns which version of `key` is the current one. Where that is not known, or no longer fresh, the slice with the byte
    /// `offset_hint` is asked of `source`: the version comes with it, so a cold object costs no question of its own.
    pub async fn open<S: Source>(&self, key: &Arc<str>, offset_hint: u64, source: &Arc<S>) -> Result<Opened, FillError> {
        let known = self.0.objects.known(key);
        if let Some(known) = &known
            && known.is_fresh(Instant::now())
        {
            return Ok(Opened { known: known.clone(), first: None });
        }
        match self.learn(key, offset_hint, known.clone(), source).await {
            // The hint came from a stranger and may lie beyond the end.
            Err(FillError::OutOfRange) if offset_hint > 0 => self.learn(key, 0, known, source).await,
            // The flight that was joined wanted an older version; any will do here.
            Err(FillError::Changed) => self.learn(key, offset_hint, None, source).await,
            learnt => learnt,
        }
    }

    async fn learn<S: Source>(
        &self,
        key: &Arc<str>,
        offset: u64,
        stale: Option<Known>,
        source: &Arc<S>,
    ) -> Result<Opened, FillError> {
        let index = offset / self.0.config.slice_bytes as u64;
        let want = Wanted::Any { stale };
        let handle = self.join(key, index, want, source, Patience::Viewer).ok_or(FillError::Busy)?;
        let known = handle.flight.known().await?;
        let first = handle.flight.carries_bytes().then_some(handle);
        Ok(Opened { known, first })
    }

    /// Reads `range` of the opened version; `range` must lie within its length. Waits for the first slice to be found, not filled.
    ///
    /// # Errors
    /// [`FillError::Changed`] when the source has another version by now: open again. Errors after this call come through the reader.
    pub async fn read<S: Source>(
        &self,
        key: &Arc<str>,
        opened: Opened,
        range: Range<u64>,
        source: &Arc<S>,
    ) -> Result<Reader, FillError> {
        Reader::start(self.clone(), key.clone(), opened, range, source.clone()).await
    }

    /// Forgets `key`: the next reader gets what the source has then. Reads under way keep their version.
    pub fn forget(&self, key: &str) {
        self.0.objects.forget(key);
    }

    /// Purges what `purge` names: from now on it is filled anew, also where a fill of it is under way. Returns when that is written down, so that it
    /// outlasts a restart.
    ///
    /// # Errors
    /// When it cannot be written down; it holds all the same until the process ends.
    pub async fn purge(&self, purge: Purge) -> std::io::Result<()> {
        if let Purge::Object(key) = purge {
            self.forget(&key);
        }
        Ok(())
    }

    /// The SSD tier, if there is one.
    pub fn disk_stats(&self) -> Option<DiskStats> {
        None
    }

    /// Reads all that is on devices and checks every byte, at the pace of whoever polls. `progress` gets the bytes read so far and the bytes in all.
    pub async fn verify(&self, progress: impl FnMut(u64, u64)) -> Verified {
        let _ = progress;
        Verified::default()
    }

    /// Takes a device back that was given up. What is on it counts again.
    ///
    /// # Errors
    /// In words for the operator: there is no such device, or it still fails.
    pub async fn restore_device(&self, path: &std::path::Path) -> Result<(), String> {
        Err(format!("there is no device {}", path.display()))
    }

    /// Counters since start, and sizes now.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.counters;
        Stats {
            ram_bytes: self.0.budget.bytes_used(),
            ram_bytes_max: self.0.config.ram_bytes,
            slices: self.0.memory.slices(),
            objects: self.0.objects.len(),
            hits: counters.hits.load(),
            misses: counters.misses.load(),
            collapsed: counters.collapsed.load(),
            bytes_ram: counters.bytes_ram.load(),
            bytes_filled: counters.bytes_filled.load(),
            fills: counters.fills.load(),
            fill_failures: counters.fill_failures.load(),
            refused_busy: counters.refused_busy.load(),
            evictions: self.0.memory.evictions(),
            flights: self.0.flights.len() as u64,
        }
    }

    /// The flight for a slice: one that is under way, or a new one. `None` only for speculation that finds no memory.
    fn join<S: Source>(&self, key: &Arc<str>, index: u64, wanted: Wanted, source: &Arc<S>, patience: Patience) -> Option<Handle> {
        let permit = match patience {
            Patience::Viewer => None,
            Patience::Speculation => Some(self.0.budget.try_acquire(self.0.config.slice_bytes, slab::Priority::Speculation)?),
        };
        let flight = match self.0.flights.join(key, index) {
            Joined::Waiting(flight) => return Some(Handle { flight, verdict: Verdict::Collapsed }),
            Joined::Leading(flight) => flight,
        };
        // Between the look-up that missed and this flight the slice may have landed.
        if let Wanted::Exactly(known) = &wanted
            && let Some(slab) = self.0.memory.slice(known.id, index)
        {
            flight.land_from_memory(known.clone(), slab);
            self.0.flights.remove(&flight);
            return Some(Handle { flight, verdict: Verdict::Ram });
        }
        let handle = Handle { flight: flight.clone(), verdict: Verdict::Filled };
        tokio::spawn(flight::fly(self.clone(), flight, wanted, source.clone(), permit));
        Some(handle)
    }
}

/// What a slice's reader can accept.
enum Wanted {
    /// The current version, whichever it is; `stale` is what was known and may still be true.
    Any { stale: Option<Known> },
    /// This version only.
    Exactly(Known),
}

/// How a fill behaves when memory is short.
#[derive(Clone, Copy)]
enum Patience {
    /// Waits for memory: someone is watching.
    Viewer,
    /// Gives up at once: nobody needs it yet.
    Speculation,
}

/// Counters since start, and sizes now. Bytes unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// In use for slices now: cached, read, being filled.
    pub ram_bytes: u64,
    /// The budget.
    pub ram_bytes_max: u64,
    /// Slices cached now.
    pub slices: u64,
    /// Objects known now.
    pub objects: u64,
    /// Slices that a reader found in RAM.
    pub hits: u64,
    /// Slices that a reader did not find in RAM.
    pub misses: u64,
    /// Of the misses, those that waited on a fill already under way.
    pub collapsed: u64,
    /// Bytes given to readers from RAM.
    pub bytes_ram: u64,
    /// Bytes that sources wrote.
    pub bytes_filled: u64,
    /// Fills started.
    pub fills: u64,
    /// Fills that ended in an error.
    pub fill_failures: u64,
    /// Of the failures, those for want of memory.
    pub refused_busy: u64,
    /// Slices that RAM gave up for others.
    pub evictions: u64,
    /// Fills under way now.
    pub flights: u64,
}

#[derive(Default)]
struct Counters {
    hits: Counter,
    misses: Counter,
    collapsed: Counter,
    bytes_ram: Counter,
    bytes_filled: Counter,
    fills: Counter,
    fill_failures: Counter,
    refused_busy: Counter,
}

#[derive(Default)]
struct Counter(std::sync::atomic::AtomicU64);

impl Counter {
    fn add(&self, by: u64) {
        self.0.fetch_add(by, std::sync::atomic::Ordering::Relaxed);
    }

    fn load(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;

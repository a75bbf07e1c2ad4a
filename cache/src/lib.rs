//! Larder's cache: slices of objects in RAM and on SSD, many waiters and one fill.
//!
//! An object is known by its key (its path at an edge) and its *generation*: validator, length, headers. Its bytes live in slices of one
//! fixed size, each bound to a generation, so a range, a seek and a half-filled object are all the same case and two versions are
//! never mixed in one answer. The crate knows no HTTP and no network: a fill is handed in as a [`Source`].
//!
//! What always holds: memory for slices comes from one budget ([`Config::ram_bytes`]), which counts what is cached, what readers still
//! hold and what fills are writing; a slice is fetched once however many wait; a fill belongs to no reader; what a purge covers is given to nobody
//! who asks after it.

mod content;
mod counters;
mod disk;
mod error;
mod filler;
mod flight;
mod fly;
mod memory;
mod object;
mod pace;
mod pieces;
mod policy;
mod purge;
mod read;
pub mod replay;
mod slab;
mod source;
mod ssd;
mod stats;
mod stock;
mod tiers;

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

pub use counters::Stats;
pub use disk::{DeviceConfig, DiskConfig, DiskError, IoChoice};
pub use error::FillError;
pub use filler::Filler;
pub use memory::{Policy, UnknownPolicy};
pub use object::Generation;
pub use purge::Purge;
pub use read::Reader;
pub use source::{Source, Want};
pub use stats::{DeviceState, DeviceStats, DiskStats, LATENCY_BOUNDS_US, Latency, Verified};
pub use stock::Stocked;
pub use tiers::verify_offline;

use counters::Counters;
use disk::NEAR_SLICES;
use flight::{CameFrom, Flight, Flights, Handle};
use fly::Pilot;
use memory::Memory;
use object::{Known, Objects};
use purge::{Note, Purges};
use slab::{Budget, Permit};
use ssd::{Place, SliceName, Ssd};
use tiers::{Tier, Waits};
use tokio::sync::watch;

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
    /// How fills behave.
    pub rules: Rules,
    /// The SSD tier, if there is one.
    pub disk: Option<DiskConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ram_bytes: 1 << 30,
            slice_bytes: 1 << 20,
            policy: Policy::S3Fifo,
            memory_wait_max: Duration::from_secs(10),
            rules: Rules::default(),
            disk: None,
        }
    }
}

/// How fills behave.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// While somebody waits, an attempt that has brought its first byte must bring so many bytes in each [`Self::progress_window`], or the next
    /// attempt takes over. The last one is never cut: a source that is slow for everybody is better than none.
    pub progress_bytes_min: usize,
    /// See [`Self::progress_bytes_min`].
    pub progress_window: Duration,
    /// When the last waiter leaves, a fill ends unless at least this share of its slice has come, from 0 (it always goes on) to 1. Planned fills go
    /// on.
    pub abandoned_share: f64,
    /// Slices that are fetched ahead of one reader at most; 0 fetches none.
    pub read_ahead_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { progress_bytes_min: 64 << 10, progress_window: Duration::from_secs(4), abandoned_share: 0.0, read_ahead_max: 4 }
    }
}

/// A cache that all cores share; cloning it is cheap.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    config: Config,
    /// See [`Cache::seed`].
    seed: u64,
    budget: Arc<Budget>,
    purges: Arc<Purges>,
    objects: Objects,
    memory: Memory,
    /// Set at the start, or once its devices are free ([`Cache::adopt`]).
    ssd: OnceLock<Ssd>,
    waits: watch::Sender<Waits>,
    flights: Flights,
    counters: Counters,
}

/// What is known of an object once it is open.
pub struct Opened {
    known: Known,
    first: Option<Handle>,
    verdict: Verdict,
}

impl Opened {
    /// The version that every read of this opening gets, or fails.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.known.generation
    }

    /// The same version once more, for another read of it.
    pub fn again(&self) -> Self {
        Self { known: self.known.clone(), first: None, verdict: self.verdict }
    }

    /// Where the version was learnt from, which is all that an answer without bytes has.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// How long ago the source made or vouched for the version (RFC 9111 §4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.known.age(now)
    }
}

/// Where the first bytes of a read come from, or the version of an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was in RAM.
    Ram,
    /// It is read from a device.
    Ssd,
    /// This read started the fill.
    Filled,
    /// Another read's fill was under way; this one waits for it too.
    Collapsed,
    /// Of openings only: what was known was out of date, and the source said that it is still the current version. No hit, since somebody
    /// was asked (RFC 9211 §2.1), but a forward for staleness that brought no bytes (§2.2: `fwd=stale`, and `fwd-status=304` in HTTP).
    Revalidated,
}

impl Verdict {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Ram, Self::Ssd, Self::Filled, Self::Collapsed, Self::Revalidated];
}

impl Cache {
    /// An empty cache in RAM alone: `config.disk` must be `None`.
    pub fn new(config: Config) -> Self {
        assert!(config.disk.is_none(), "a cache with an SSD tier is opened, since devices may fail");
        let budget = Arc::new(config.slices_budget());
        Self::assemble(config, budget, Arc::default(), Tier::None)
    }

    /// `budget` and `purges` are those that `ssd` works with.
    fn assemble(config: Config, budget: Arc<Budget>, purges: Arc<Purges>, tier: Tier) -> Self {
        // The rest is for what fills write and for what readers still hold after it was evicted.
        let cached_bytes_max = config.slices_bytes() / 4 * 3;
        let (seed, waits) = match &tier {
            Tier::Open(Ssd::Engine(disk)) => (disk.seed(), Waits::Not),
            Tier::Later { seed } => (*seed, Waits::ForDevices),
            #[cfg(test)]
            Tier::Open(Ssd::Double(_)) => (content::random_seed(), Waits::Not),
            Tier::None => (content::random_seed(), Waits::Not),
        };
        let ssd = match tier {
            Tier::Open(ssd) => ssd.into(),
            Tier::Later { .. } | Tier::None => OnceLock::new(),
        };
        Self(Arc::new(Shared {
            seed,
            objects: Objects::new(config.objects_bytes(), purges.clone()),
            memory: Memory::new(config.policy, cached_bytes_max, config.slice_bytes),
            flights: Flights::new(purges.clone()),
            counters: Counters::default(),
            budget,
            purges,
            ssd,
            waits: watch::Sender::new(waits),
            config,
        }))
    }

    /// Bytes per slice.
    pub fn slice_bytes(&self) -> usize {
        self.0.config.slice_bytes
    }

    /// Learns which version of `key` is the current one. Where that is not known, the slice with the byte `offset_hint` is looked for on SSD, and else
    /// asked of `source`; where it is no longer fresh, `source` is asked whether it still is. The version comes with the bytes, so a cold
    /// object costs no question of its own.
    pub async fn open<S: Source>(&self, key: &Arc<str>, offset_hint: u64, source: &Arc<S>) -> Result<Opened, FillError> {
        self.open_for(Errand::Viewer, key, offset_hint, source).await
    }

    async fn open_for<S: Source>(
        &self,
        errand: Errand,
        key: &Arc<str>,
        offset_hint: u64,
        source: &Arc<S>,
    ) -> Result<Opened, FillError> {
        // In this order: what is known then is covered by no purge up to this number.
        let number = self.0.purges.now();
        let known = self.0.objects.known(key);
        if let Some(known) = &known
            && known.is_fresh(Instant::now())
        {
            return Ok(Opened { known: known.clone(), first: None, verdict: Verdict::Ram });
        }
        let ask = |index, stale| Ask { key, index, wanted: Wanted::Any { stale }, number, errand, place: None, permit: None };
        let mut index = offset_hint / self.0.config.slice_bytes as u64;
        if known.is_none()
            && let Some(other) = self.0.other_on_ssd(key, index)
        {
            index = other;
        }
        match self.learn(ask(index, known.clone()), source).await {
            // The hint came from a stranger and may lie beyond the end.
            Err(FillError::OutOfRange) if index > 0 => self.learn(ask(0, known), source).await,
            // The flight that was joined wanted an older version; any will do here.
            Err(FillError::Changed) => self.learn(ask(index, None), source).await,
            learnt => learnt,
        }
    }

    async fn learn<S: Source>(&self, ask: Ask<'_>, source: &Arc<S>) -> Result<Opened, FillError> {
        loop {
            let place = match &ask.wanted {
                Wanted::Any { stale: None } => self.0.find_on_ssd(ask.slice()),
                Wanted::Any { .. } | Wanted::Exactly(_) => None,
            };
            let handle = self.join(Ask { place, wanted: ask.wanted.clone(), permit: None, ..ask }, source);
            let known = handle.flight.known().await?;
            // Only now its tags are known, by which it may have been purged since it began, and before this opening.
            if known.number < ask.number && self.0.objects.is_purged(ask.key, &known) {
                continue;
            }
            let verdict = if handle.flight.is_unchanged() { Verdict::Revalidated } else { handle.verdict() };
            let first = handle.flight.carries_bytes().then_some(handle);
            return Ok(Opened { known, first, verdict });
        }
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

    /// Purges what `purge` names: from now on it is filled anew, also where a fill of it is under way. Reads under way keep their version. Returns
    /// when that is written down, so that it outlasts a restart.
    ///
    /// # Errors
    /// When it cannot be written down; it holds all the same until the process ends.
    pub async fn purge(&self, purge: Purge) -> std::io::Result<()> {
        let number = self.0.objects.purge(purge.clone());
        self.0.write_down(Note::Purge(purge), number, true).await
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
            ssd_hits: counters.ssd_hits.load(),
            misses: counters.misses.load(),
            collapsed: counters.collapsed.load(),
            bytes_ram: counters.bytes_ram.load(),
            bytes_ssd: counters.bytes_ssd.load(),
            bytes_filled: counters.bytes_filled.load(),
            fills: counters.fills.load(),
            attempts: counters.attempts.load(),
            stalls: counters.stalls.load(),
            abandoned: counters.abandoned.load(),
            fill_failures: counters.fill_failures.load(),
            refused_busy: counters.refused_busy.load(),
            refused_plans: counters.refused_plans.load(),
            refused_speculation: counters.refused_speculation.load(),
            read_ahead_started: counters.read_ahead_started.load(),
            read_ahead_used: counters.read_ahead_used.load(),
            evictions: self.0.memory.evictions(),
            flights: self.0.flights.len() as u64,
        }
    }

    /// A hold on the flight for a slice: one that is under way, or a new one.
    fn join<S: Source>(&self, ask: Ask<'_>, source: &Arc<S>) -> Handle {
        let Ask { key, index, wanted, number, errand, place, permit } = ask;
        let handle = self.0.flights.join(key, index, &wanted, number, errand);
        // What is planned must come to SSD, wherever else it is.
        if !handle.leads() || errand != Errand::Plan && self.0.has_landed(&handle.flight, &wanted) {
            return handle;
        }
        let (shared, flight, source) = (self.0.clone(), handle.flight.clone(), source.clone());
        tokio::spawn(Pilot { shared, flight, source, errand, place, permit }.fly(wanted));
        handle
    }
}

impl Config {
    /// Of the budget, what is known of objects.
    fn objects_bytes(&self) -> u64 {
        self.ram_bytes / 32
    }

    /// Of the budget, slices, whoever holds them.
    fn slices_bytes(&self) -> u64 {
        self.ram_bytes - self.objects_bytes()
    }

    fn slices_budget(&self) -> Budget {
        Budget::new(self.slices_bytes(), self.slice_bytes)
    }
}

impl Shared {
    fn find_on_ssd(&self, slice: SliceName<'_>) -> Option<Place> {
        self.ssd.get()?.find(slice)
    }

    fn is_on_ssd(&self, slice: SliceName<'_>) -> bool {
        self.ssd.get().is_some_and(|ssd| ssd.contains(slice))
    }

    /// Of an object of which nothing is known, a slice that is on SSD, where the `hinted` one is not: it tells which version the source must have
    /// for the others to be right. So far around the hint and from the beginning it is looked for.
    fn other_on_ssd(&self, key: &str, hinted: u64) -> Option<u64> {
        if self.ssd.get().is_none() || self.is_on_ssd(SliceName { key, index: hinted }) {
            return None;
        }
        let near = hinted.saturating_sub(NEAR_SLICES)..hinted.saturating_add(NEAR_SLICES);
        near.chain(0..NEAR_SLICES).find(|index| self.is_on_ssd(SliceName { key, index: *index }))
    }

    /// So little memory is left that it is for those who wait, in small pieces: readers give way to each other.
    fn is_short_of_memory(&self) -> bool {
        self.budget.bytes_used() + self.config.slice_bytes as u64 > self.config.slices_bytes() / 8 * 7
    }

    /// Bytes of a slice of this version.
    fn slice_length(&self, generation: &Generation, index: u64) -> usize {
        let start = index * self.config.slice_bytes as u64;
        usize::try_from(generation.length.saturating_sub(start)).unwrap_or(usize::MAX).min(self.config.slice_bytes)
    }

    /// Between the look-up that missed and this flight, another one may have landed: then this one has, too.
    fn has_landed(&self, flight: &Arc<Flight>, wanted: &Wanted) -> bool {
        let (known, slab) = match wanted {
            Wanted::Exactly(known) => match self.memory.slice(known.id, flight.index) {
                Some(slab) => (known.clone(), Some(slab)),
                None => return false,
            },
            Wanted::Any { .. } => match self.objects.known(&flight.key).filter(|known| known.is_fresh(Instant::now())) {
                Some(known) => (known.clone(), self.memory.slice(known.id, flight.index)),
                None => return false,
            },
        };
        flight.show(known, slab, CameFrom::Ram);
        flight.tell_end(Ok(()));
        self.flights.remove(flight);
        true
    }

    /// The source vouches for `generation`, which was asked for at purge number `number`.
    fn learn(self: &Arc<Self>, key: &Arc<str>, generation: Arc<Generation>, number: u64, stale: Option<&Known>) -> Known {
        let may_outlast = |old: Option<&Known>| old.map_or_else(|| self.may_be_on_ssd(key), |_| self.may_outlast(key));
        let learnt = self.objects.learn(key, generation, number, stale, may_outlast);
        if let Some((note, number)) = learnt.noted {
            self.write_down_soon(note, number);
        }
        learnt.known
    }

    /// The source does not have `gone` any more, or nothing where nothing was known.
    fn forget(self: &Arc<Self>, flight: &Flight, gone: Option<&Known>) {
        let may_outlast = if gone.is_some() { self.may_outlast(&flight.key) } else { self.may_be_on_ssd(&flight.key) };
        if let Some(number) = self.objects.forget(&flight.key, gone, may_outlast) {
            self.write_down_soon(Note::Purge(Purge::Object(flight.key.to_string())), number);
        }
    }

    /// Whether there may be slices of an object that was known on SSD which would be found after a restart; also on a device that is away, and on
    /// their way there.
    fn may_outlast(&self, key: &str) -> bool {
        self.ssd.get().map_or_else(|| self.waits_for_devices(), |ssd| !ssd.sees_all() || ssd.may_hold(key))
    }

    /// Whether there may be slices of an object on SSD, as far as can be seen now.
    fn may_be_on_ssd(&self, key: &str) -> bool {
        self.ssd.get().map_or_else(|| self.waits_for_devices(), |ssd| ssd.may_hold(key))
    }

    /// Writes down what came of a fill, where nobody waits for it. A doubt may be lost with the machine's power, as it is only one of many that would
    /// have to go wrong then.
    fn write_down_soon(self: &Arc<Self>, note: Note, number: u64) {
        let shared = self.clone();
        tokio::spawn(async move {
            let must_last = matches!(note, Note::Purge(_));
            if let Err(error) = shared.write_down(note.clone(), number, must_last).await {
                tracing::warn!(%error, "{note} holds only until this process ends");
            }
        });
    }
}

/// A question for a slice.
struct Ask<'a> {
    key: &'a Arc<str>,
    index: u64,
    wanted: Wanted,
    /// The purge number at which it was asked.
    number: u64,
    errand: Errand,
    /// Where on SSD the slice may be.
    place: Option<Place>,
    /// Memory for it, if some was found.
    permit: Option<Permit>,
}

impl Ask<'_> {
    fn slice(&self) -> SliceName<'_> {
        SliceName { key: self.key, index: self.index }
    }
}

/// What a slice's reader can accept.
#[derive(Clone)]
enum Wanted {
    /// The current version, whichever it is; `stale` is what was known and may still be true.
    Any { stale: Option<Known> },
    /// This version only.
    Exactly(Known),
}

/// What a slice is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// Someone is watching.
    Viewer,
    /// Someone will come to it soon.
    Ahead,
    /// To be on SSD before anyone asks.
    Plan,
}

#[cfg(test)]
mod tests;

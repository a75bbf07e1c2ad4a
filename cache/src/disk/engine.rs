//! What reading, writing and recovery share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    DiskConfig,
    device::{Device, Volume},
    far::{Far, Tag},
    index::{Index, Place},
    io::Io,
    layout::{Entry, PAGE},
    state::State,
};
use crate::{counters::Counter, policy::eighth, purge::Purges, slab::record_bytes};

/// Operations under way on a device at once: who would add to them gets a miss, so that nobody waits long.
const DEPTH_MAX: u64 = 256;
/// The part of the memory for slices that reads of one device may have.
const READING_SHARE: u64 = 4;
/// Of a small memory it is so many slices instead: one reader with what it reads ahead, and a little more.
const READING_SLICES_MIN: u64 = 8;

/// What [`Engine::bytes_reading_max`] is, of so much memory for slices.
pub(super) fn bytes_reading_max(budget_bytes: u64, slice_bytes: usize) -> u64 {
    (budget_bytes / READING_SHARE).max(READING_SLICES_MIN * record_bytes(slice_bytes) as u64)
}

/// All of the SSD tier but its writers.
pub(crate) struct Engine {
    pub(super) config: DiskConfig,
    pub(super) slice_bytes: usize,
    pub(super) queue_bytes_max: u64,
    pub(super) purges: Arc<Purges>,
    pub(super) io: Io,
    pub(super) state: Arc<State>,
    pub(super) seed: u64,
    pub(super) set: [u8; 16],
    pub(super) index: Index,
    pub(super) far: Far,
    pub(super) devices: Vec<Arc<Device>>,
    /// The next segment's.
    pub(super) sequence: AtomicU64,
    pub(super) counters: Counters,
    /// Told when less waits to be written.
    pub(super) written: Notify,
    /// Memory that reads under way have on a device: what would be more is a miss, so that a device which hangs does not get hold of all there is.
    pub(super) bytes_reading_max: u64,
    pub(super) restoring: tokio::sync::Mutex<()>,
    /// Told when a device was given up or taken back, which must be written down.
    pub(super) verdicts: watch::Sender<()>,
    /// What is not written yet never will be.
    pub(super) is_ending: AtomicBool,
}

/// Bytes of a slice that wait to be written, as long as it lives.
pub(super) struct Queued {
    engine: Arc<Engine>,
    bytes: u64,
}

impl Queued {
    /// `None` if as much waits as may.
    pub(super) fn new(engine: &Arc<Engine>, bytes: u64) -> Option<Self> {
        let has_room = engine.counters.queued.try_add(bytes, engine.queue_bytes_max);
        has_room.then(|| Self { engine: engine.clone(), bytes })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.engine.counters.queued.sub(self.bytes);
        self.engine.written.notify_waiters();
    }
}

/// Why a slice is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As much waits as may.
    Queue,
    /// No device serves, or the one that had it failed.
    Device,
    /// What must be known of it does not fit a page.
    Head,
    /// It came from a device, or was written before.
    Twice,
    /// It was purged while it waited.
    Purged,
    /// The policy would rather keep what is there.
    Policy,
    /// Planned content has its share already, and all of it is wanted.
    PlannedFull,
    /// Nothing could be reclaimed for it.
    NoRoom,
}

impl Refusal {
    const ALL: [(Self, &str); 8] = [
        (Self::Queue, "queue_full"),
        (Self::Device, "no_device"),
        (Self::Head, "head_too_large"),
        (Self::Twice, "written_already"),
        (Self::Purged, "purged"),
        (Self::Policy, "policy"),
        (Self::PlannedFull, "planned_full"),
        (Self::NoRoom, "no_room"),
    ];
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) bytes_hit: Counter,
    pub(super) rejected: Counter,
    /// Reads that were not begun because too many were under way.
    pub(super) busy: Counter,
    pub(super) bytes_admitted: Counter,
    pub(super) evictions: Counter,
    pub(super) reinsertions: Counter,
    pub(super) planned_again: Counter,
    /// Bytes that wait to be written: a gauge.
    pub(super) queued: Counter,
    refused: [Counter; Refusal::ALL.len()],
}

impl Counters {
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].add(1);
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::ALL.iter().zip(&self.refused).map(|((_, name), count)| (*name, count.load()))
    }
}

impl Engine {
    /// What a slice is filed under.
    pub(super) fn hash(&self, key: &str, index: u64) -> u64 {
        Self::hash_within(self.hash_of_object(key), index)
    }

    /// The same for a slice of an object with this hash. A second round spreads the slices of one object.
    pub(super) fn hash_within(object: u64, index: u64) -> u64 {
        xxh3_64_with_seed(&index.to_le_bytes(), object)
    }

    pub(super) fn hash_of_object(&self, key: &str) -> u64 {
        xxh3_64_with_seed(key.as_bytes(), self.seed)
    }

    pub(super) fn tag(&self, key: &str, index: u64) -> Tag {
        Tag::of(self.hash_of_object(key), index)
    }

    /// How long a device may take.
    pub(super) fn limit(&self) -> Duration {
        self.config.device_timeout
    }

    /// Whether a slice filed so is on a device that serves.
    pub(super) fn is_found(&self, hash: u64) -> bool {
        self.index.place(hash).is_some_and(|place| self.devices[place.device()].serves())
    }

    /// The slice's place on a device that serves.
    pub(super) fn find(&self, key: &str, index: u64) -> Option<Place> {
        self.index.place(self.hash(key, index)).filter(|place| self.devices[place.device()].serves())
    }

    /// See [`super::Disk::used`]. Its hits rise, unless its segment is still open ([`crate::policy::Hits`]).
    pub(super) fn used(&self, key: &str, index: u64) {
        let hash = self.hash(key, index);
        let Some(place) = self.index.place(hash) else { return };
        let device = &self.devices[place.device()];
        let Some(volume) = device.volume() else { return };
        if volume.segment(place.segment()).is_sealed.load(Ordering::Relaxed) {
            self.index.hit(hash, eighth(volume.age(place.segment()), volume.stay.load(Ordering::Relaxed)));
        }
        device.policy().found(hash, u64::from(place.pages()) * PAGE as u64);
    }

    /// Whether a device may be asked for so many bytes more.
    pub(super) fn has_room_to_read(&self, volume: &Volume, bytes: usize) -> bool {
        let file = &volume.file;
        file.depth() < DEPTH_MAX && file.bytes_reading() + bytes as u64 <= self.bytes_reading_max
    }

    /// Files a record that was found in the life `sequence` of its segment, unless a younger one is known.
    pub(super) fn file_found(&self, entry: &Entry, place: Place, sequence: u64) {
        self.far.note(entry.tag);
        self.file(entry.hash, place, |old| self.sequence_of(old) > sequence);
    }

    /// Files a record that has been written. One that was written again only takes the place of what was read, `from`: if that is not there any more,
    /// somebody wrote a newer one, or it was found to be wrong.
    pub(super) fn file_written(&self, entry: &Entry, place: Place, from: Option<Place>) {
        self.far.note(entry.tag);
        match from {
            Some(from) if self.index.replace(entry.hash, from, place) => self.moved(Some(from), place),
            Some(_) => {}
            None => self.file(entry.hash, place, |_| false),
        }
    }

    fn file(&self, hash: u64, place: Place, stays: impl FnOnce(Place) -> bool) {
        if let Ok(replaced) = self.index.insert(hash, place, stays) {
            self.moved(replaced, place);
        }
    }

    fn moved(&self, from: Option<Place>, to: Place) {
        self.count_live(to, |live| live + u32::from(to.pages()));
        if let Some(from) = from {
            self.count_live(from, |live| live.saturating_sub(u32::from(from.pages())));
        }
    }

    /// Forgets a record, if the slice is still there; says whether it was.
    pub(super) fn unfile(&self, hash: u64, place: Place) -> bool {
        let removed = self.index.remove(hash, place);
        if let Some(removed) = removed {
            self.count_live(removed, |live| live.saturating_sub(u32::from(removed.pages())));
        }
        removed.is_some()
    }

    fn count_live(&self, place: Place, count: impl Fn(u32) -> u32) {
        if let Some(volume) = self.devices[place.device()].last_volume() {
            let live = &volume.segment(place.segment()).live_pages;
            let _ = live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| Some(count(live)));
        }
    }

    fn sequence_of(&self, place: Place) -> u64 {
        let volume = self.devices[place.device()].last_volume();
        volume.map_or(0, |volume| volume.segment(place.segment()).sequence.load(Ordering::Acquire))
    }

    /// The device that an object goes to, of those that serve: weighted rendezvous (Schindelhauer and Schomaker, 2005), so that when
    /// one fails only its own objects move.
    pub(super) fn device_for(&self, key: &str) -> Option<usize> {
        let score = |at: usize| {
            let volume = self.devices[at].volume()?;
            let hash =
                xxh3_64_with_seed(key.as_bytes(), u64::from_le_bytes(volume.superblock.device[..8].try_into().expect("8 bytes")));
            // Uniform in (0, 1].
            let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            Some((at, volume.segments.len() as f64 / -uniform.ln()))
        };
        let scores = (0..self.devices.len()).filter_map(score);
        scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
    }

    /// Has it written down how devices stand. Does not wait for it, because whoever finds a device broken may be serving.
    pub(super) fn remember(&self) {
        self.verdicts.send_replace(());
    }

    /// Nothing is found, written or noted any more, and the state directory may be another process's.
    pub(super) fn close(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.devices.iter().for_each(|device| device.close());
        self.index.retain(|_| false);
        self.state.close();
    }
}

//! The SSD tier: slices on devices, in segments that are written once.
//!
//! Knows keys, slices and blocks; no titles, no network, and not who waits. What always holds: a slice that is handed out was verified
//! against its checksums, its key and its version; whatever a device does, the answer is the right bytes or none. `docs/disk.md` has the format
//! and the reasons.

mod cut;
mod device;
mod engine;
mod far;
mod index;
mod io;
mod journal;
mod layout;
mod open;
mod plan;
mod read;
mod reclaim;
mod record;
mod recover;
mod state;
mod thread;
mod verify;
mod write;

#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use crate::{
    DeviceState, DeviceStats, DiskStats, Generation, Verified,
    purge::Note,
    slab::{Permit, Slab},
};
pub(crate) use cut::Cut;
use engine::{Engine, Queued, Refusal};
pub(crate) use far::NEAR_SLICES;
pub(crate) use index::Place;
use layout::CHECKED_BYTES;
pub(crate) use plan::Planned;
use read::Wanted;
use thread::Thread;
use write::Job;

pub use open::DiskError;

/// How the SSD tier is set up.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// Files or block devices; objects are spread over them by hash and capacity. 1 to 64.
    pub devices: Vec<DeviceConfig>,
    /// A directory for what must outlast any one device: purges, and which devices were given up.
    pub state_dir: PathBuf,
    /// Bytes of a segment, the unit that is reclaimed: a power of two from 1 MiB (at least four slices) to 256 MiB.
    pub segment_bytes: u64,
    /// The part of each device that planned content may take, from 0 to 0.95.
    pub planned_share: f64,
    /// How devices are driven.
    pub io: IoChoice,
    /// A device that does not answer for so long is given up.
    pub device_timeout: Duration,
}

impl DiskConfig {
    /// The defaults, also of what an operator configures; without a device.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            devices: Vec::new(),
            state_dir,
            segment_bytes: 64 << 20,
            planned_share: 0.8,
            io: IoChoice::Auto,
            device_timeout: Duration::from_secs(10),
        }
    }
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// A file, which is made and allocated if it is not there, or a block device.
    pub path: PathBuf,
    /// How much of it to use, in bytes. Required for a file that is not there; the default is all of it.
    pub bytes: Option<u64>,
}

/// How devices are driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoChoice {
    /// io_uring, or threads where the system refuses it.
    #[default]
    Auto,
    /// Threads that call pread and pwrite.
    Threads,
}

/// A slice that was read and verified.
pub(crate) struct Loaded {
    /// What the slice belongs to.
    pub(crate) generation: Generation,
    /// When the source last vouched for it, as far as is written down; `None` if it may have been replaced since.
    pub(crate) vouched_at: Option<SystemTime>,
    /// The purge number that it was learnt at.
    pub(crate) number: u64,
    /// All of its bytes.
    pub(crate) slab: Arc<Slab>,
}

/// A slice that has just been filled.
pub(crate) struct Offer {
    pub(crate) key: Arc<str>,
    pub(crate) index: u64,
    pub(crate) generation: Arc<Generation>,
    pub(crate) vouched_at: SystemTime,
    /// The purge number that it was learnt at.
    pub(crate) number: u64,
    pub(crate) slab: Arc<Slab>,
    pub(crate) is_planned: bool,
}

/// The SSD tier. Dropping it ends it as `kill -9` would, but for what is being written in that moment; [`Disk::close`] seals first.
pub(crate) struct Disk {
    engine: Arc<Engine>,
    writers: Vec<mpsc::UnboundedSender<Job>>,
    thread: Thread,
}

/// So long dropping waits for the writing thread, which has no more to do than what devices are doing already. Where one hangs, the state directory
/// stays locked for longer.
const DROP_WAIT_MAX: Duration = Duration::from_secs(10);

impl Drop for Disk {
    fn drop(&mut self) {
        self.engine.is_ending.store(true, Ordering::Release);
        self.writers.clear();
        if !self.thread.wait(DROP_WAIT_MAX) {
            tracing::warn!("a device does not end what it does; until then the cache's state directory stays locked");
        }
    }
}

impl Disk {
    /// Where the slice may be, without asking a device. No use of it: that is [`Self::used`].
    pub(crate) fn find(&self, key: &str, index: u64) -> Option<Place> {
        let found = self.engine.find(key, index);
        match found {
            Some(_) => self.engine.counters.hits.add(1),
            None => self.engine.counters.misses.add(1),
        }
        found
    }

    /// A slice was wanted, and came from here or from RAM: if it is on a device, its policy is told. Waits for nobody, and asks no device.
    pub(crate) fn used(&self, key: &str, index: u64) {
        self.engine.used(key, index);
    }

    /// Whether [`Self::find`] would find it; counts as nothing.
    pub(crate) fn contains(&self, key: &str, index: u64) -> bool {
        self.engine.is_found(self.engine.hash(key, index))
    }

    /// Whether any slice of the object may be on a device that serves, of whichever version. In vain now and then.
    pub(crate) fn may_hold(&self, key: &str) -> bool {
        let (engine, object) = (&self.engine, self.engine.hash_of_object(key));
        (0..NEAR_SLICES).any(|index| engine.is_found(Engine::hash_within(object, index))) || engine.far.may_have(object)
    }

    /// What slices are filed under is seeded with it.
    pub(crate) fn seed(&self) -> u64 {
        self.engine.seed
    }

    /// Calls `each` with the hash of every slice that can be found. Not quickly: there are many.
    pub(crate) fn hashes(&self, each: impl FnMut(u64)) {
        self.engine.index.hashes(each);
    }

    /// Reads the whole slice under `permit`, which must cover a whole slice. `None` if it is not there after all, is not what was
    /// expected (another validator or length, where `expected` is given), was purged, or cannot be read: then it is as if it had never been.
    pub(crate) async fn load(
        &self,
        key: &str,
        index: u64,
        place: Place,
        expected: Option<&Generation>,
        permit: Permit,
    ) -> Option<Loaded> {
        let loaded = self.engine.load(Wanted { key, index, place, generation: expected }, permit).await?;
        self.engine.counters.bytes_hit.add(loaded.slab.length() as u64);
        Some(loaded)
    }

    /// Reads as much of the slice as `range` (bytes within the slice) needs, under `permit`, which must cover [`Self::part_bytes`]. Gives a slab
    /// and where in it the range begins.
    pub(crate) async fn load_part(
        &self,
        key: &str,
        index: u64,
        place: Place,
        expected: &Generation,
        range: Range<usize>,
        permit: Permit,
    ) -> Option<(Arc<Slab>, usize)> {
        let wanted = Wanted { key, index, place, generation: Some(expected) };
        let bytes = range.len() as u64;
        let loaded = self.engine.load_part(wanted, range, permit).await?;
        self.engine.counters.bytes_hit.add(bytes);
        Some(loaded)
    }

    /// Bytes that [`Self::load_part`] needs for `range`.
    pub(crate) fn part_bytes(range: &Range<usize>) -> usize {
        range.end.next_multiple_of(CHECKED_BYTES) - range.start / CHECKED_BYTES * CHECKED_BYTES
    }

    /// Takes a filled slice to be written, or counts why not. Never waits.
    pub(crate) fn offer(&self, offer: Offer) -> bool {
        let engine = &self.engine;
        let bytes = offer.slab.bytes_charged() as u64;
        let refusal = match engine.device_for(&offer.key) {
            None => Refusal::Device,
            Some(device) => match Queued::new(engine, bytes) {
                None => Refusal::Queue,
                Some(queued) => match self.writers[device].send(Job::Write(Box::new(offer), queued)) {
                    Ok(()) => return true,
                    Err(_) => Refusal::Device,
                },
            },
        };
        engine.counters.refuse(refusal);
        false
    }

    /// Waits until a slice of so many bytes would not be refused for want of room in the queue.
    pub(crate) async fn room(&self, bytes: u64) {
        let engine = &self.engine;
        loop {
            let written = engine.written.notified();
            if engine.counters.queued.load() + bytes <= engine.queue_bytes_max {
                return;
            }
            written.await;
        }
    }

    /// Whether all that may come back one day can be found in the index now.
    pub(crate) fn sees_all(&self) -> bool {
        self.engine.counters.queued.load() == 0 && self.engine.devices.iter().all(|device| device.serves())
    }

    /// Writes down a purge or a doubt that holds already, and, if it `must_last`, waits until it would outlast a loss of power. Blocks on a file.
    ///
    /// # Errors
    /// See [`State::note`].
    pub(crate) fn note(&self, note: &Note, number: u64, must_last: bool) -> std::io::Result<()> {
        self.engine.state.note(&self.engine.purges, note, number, must_last)
    }

    /// Writes down all purges and doubts that hold.
    ///
    /// # Errors
    /// See [`State::note_all`].
    pub(crate) async fn note_all(&self) -> std::io::Result<()> {
        let engine = self.engine.clone();
        let noted = spawn_blocking(move || engine.state.note_all(&engine.purges)).await;
        noted.map_err(std::io::Error::other)?
    }

    /// Waits until all that was offered is written, seals the segments that are open, and lets go of everything: nothing is found or taken any
    /// more, and the devices and the state directory may be opened again.
    pub(crate) async fn close(&self) {
        let _nothing_comes_back = self.engine.restoring.lock().await;
        self.seal().await;
        // What came of the last fills may still be on its way to the journal.
        let engine = self.engine.clone();
        if let Ok(Err(error)) = spawn_blocking(move || engine.state.note_all(&engine.purges)).await {
            tracing::error!(%error, "purges that were not written down are forgotten");
        }
        // One that is gone has ended.
        self.writers.iter().for_each(|writer| _ = writer.send(Job::End));
        self.thread.ended().await;
    }

    /// Waits until all that was offered is written, and seals the segments that are open.
    async fn seal(&self) {
        let waits = self.writers.iter().filter_map(|writer| {
            let (done, sealed) = oneshot::channel();
            writer.send(Job::Seal(done)).is_ok().then_some(sealed)
        });
        futures_util::future::join_all(waits).await;
    }

    /// Reads all that the index leads to and checks every byte. `progress` gets the bytes read so far and the bytes in all.
    pub(crate) async fn verify(&self, progress: impl FnMut(u64, u64) + Send) -> Verified {
        self.engine.verify(progress).await
    }

    /// Takes a device back that was given up.
    ///
    /// # Errors
    /// In words for the operator.
    pub(crate) async fn restore(&self, path: &Path) -> Result<(), String> {
        let _one_at_a_time = self.engine.restoring.lock().await;
        if self.engine.is_ending.load(Ordering::Acquire) {
            return Err("the cache was closed".into());
        }
        let at = self.engine.config.devices.iter().position(|device| device.path == path);
        let Some(at) = at else { return Err(format!("{} is no device of this cache", path.display())) };
        if self.engine.devices[at].serves() {
            return Err(format!("{} serves", path.display()));
        }
        let (volume, recovered) =
            self.engine.try_device(at, true).await.map_err(|fault| format!("{} {fault}", path.display()))?;
        // While it was away, what it holds may have been replaced and nobody have known that it held it.
        self.engine.devices[at].doubt_before(self.engine.purges.next());
        self.engine.take_up(at, volume.clone());
        self.engine.remember();
        // The writers live as long as this.
        let _ = self.writers[at].send(Job::TakeUp(volume, recovered));
        Ok(())
    }

    pub(crate) fn stats(&self) -> DiskStats {
        let engine = &self.engine;
        let counters = &engine.counters;
        DiskStats {
            io: engine.io.name(),
            slices: engine.index.len() as u64,
            index_bytes: (engine.index.bytes() + engine.far.bytes()) as u64,
            hits: counters.hits.load(),
            misses: counters.misses.load(),
            bytes_hit: counters.bytes_hit.load(),
            rejected: counters.rejected.load(),
            busy: counters.busy.load(),
            bytes_admitted: counters.bytes_admitted.load(),
            refused: counters.refusals().collect(),
            evictions: counters.evictions.load(),
            reinsertions: counters.reinsertions.load(),
            planned_again: counters.planned_again.load(),
            bytes_queued: counters.queued.load(),
            purges: engine.purges.len() as u64,
            doubts: engine.purges.doubted() as u64,
            devices: (0..engine.devices.len()).map(|at| self.device_stats(at)).collect(),
        }
    }

    fn device_stats(&self, at: usize) -> DeviceStats {
        let (device, config) = (&self.engine.devices[at], &self.engine.config.devices[at]);
        let state = match device.given_up() {
            None => DeviceState::Serving,
            Some(verdict) => DeviceState::GivenUp { reason: verdict.reason, since: verdict.since },
        };
        let mut stats = DeviceStats {
            path: config.path.clone(),
            state,
            bytes: config.bytes.unwrap_or_default(),
            bytes_used: 0,
            bytes_planned: 0,
            segments: 0,
            depth: 0,
            bytes_read: 0,
            bytes_written: 0,
            reads: Default::default(),
            writes: Default::default(),
            errors: 0,
            corrupt: u64::from(device.corrupt()),
        };
        if let Some(volume) = device.last_volume() {
            let segment_bytes = volume.superblock.segment_bytes;
            stats.segments = volume.segments.len() as u64;
            stats.bytes = stats.segments * segment_bytes;
            if device.serves() {
                stats.bytes_used = u64::from(volume.used.load(Ordering::Relaxed)) * segment_bytes;
                stats.bytes_planned = u64::from(volume.planned.load(Ordering::Relaxed)) * segment_bytes;
            }
            let file = volume.file.counts();
            (stats.depth, stats.bytes_read, stats.bytes_written) = (file.depth, file.bytes_read, file.bytes_written);
            (stats.reads, stats.writes, stats.errors) = (file.reads, file.writes, file.errors);
        }
        stats
    }
}

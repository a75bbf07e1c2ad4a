//! The SSD tier as a whole, on real files: small slices in small segments, so that everything happens often.

/// Each test runs by io_uring, where the system has it, and by threads.
macro_rules! by_both_drivers {
    ($($name:ident)*) => {
        mod by_ring {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::IoChoice::Auto).await;
            })*
        }
        mod by_threads {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::IoChoice::Threads).await;
            })*
        }
    };
}

mod bounds;
mod comebacks;
mod faults;
mod kill;
mod million;
mod modelled;
mod slices;

use std::path::PathBuf;

use tempfile::TempDir;

pub(super) use faults::double_of;

use super::*;
use crate::{
    Purge,
    purge::Purges,
    slab::{Budget, Priority},
};

pub(super) const SLICE: usize = 128 << 10;
/// For slices.
const MEMORY: u64 = 64 << 20;
const SEGMENT: u64 = 1 << 20;
/// Whole slices in a segment: after its head, before its footer.
pub(super) const SLICES_PER_SEGMENT: u64 = 7;

pub(super) struct Rig {
    _folder: Option<TempDir>,
    pub(super) config: DiskConfig,
    slice_bytes: usize,
    pub(super) budget: Arc<Budget>,
    pub(super) purges: Arc<Purges>,
    pub(super) disk: Option<Arc<Disk>>,
}

impl Rig {
    /// Devices of so many segments each.
    pub(super) async fn new(io: IoChoice, segments: &[u64]) -> Self {
        let mut rig = Self::closed(io, segments);
        rig.open().await.expect("opens");
        rig
    }

    pub(super) fn closed(io: IoChoice, segments: &[u64]) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let mut rig = Self::at(folder.path(), segments);
        rig.config.io = io;
        Self { _folder: Some(folder), ..rig }
    }

    pub(super) fn at(folder: &Path, segments: &[u64]) -> Self {
        let device = |(at, segments): (usize, &u64)| DeviceConfig {
            path: folder.join(format!("device{at}")),
            bytes: Some((1 << 20) + segments * SEGMENT),
        };
        let mut config = DiskConfig::new(folder.join("state"));
        config.devices = segments.iter().enumerate().map(device).collect();
        config.segment_bytes = SEGMENT;
        config.device_timeout = Duration::from_secs(60);
        let budget = Arc::new(Budget::new(MEMORY, SLICE));
        Self { _folder: None, config, slice_bytes: SLICE, budget, purges: Arc::default(), disk: None }
    }

    pub(super) async fn open(&mut self) -> Result<(), DiskError> {
        self.disk = None;
        self.purges = Arc::default();
        let purges = self.purges.clone();
        let disk = Disk::open(self.config.clone(), self.slice_bytes, &self.budget, MEMORY, purges).await?;
        self.disk = Some(disk);
        Ok(())
    }

    /// From the next time that it is opened.
    fn slices_have(&mut self, slice_bytes: usize) {
        self.slice_bytes = slice_bytes;
        self.budget = Arc::new(Budget::new(MEMORY, slice_bytes));
    }

    pub(super) fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("open")
    }

    /// Purges, and writes that down.
    pub(super) fn purge(&self, purge: Purge) {
        let number = self.purges.add(purge.clone());
        self.disk().note(&Note::Purge(purge), number, true).expect("written");
    }

    /// Opens again, as after `kill -9`.
    pub(super) async fn restart(&mut self) {
        self.open().await.expect("opens again");
    }

    pub(super) async fn offer(&self, key: &str, index: u64, length: u64, is_planned: bool) -> bool {
        self.offer_version(key, index, length, 1, is_planned).await
    }

    async fn offer_version(&self, key: &str, index: u64, length: u64, version: u64, is_planned: bool) -> bool {
        let slab = self.full(key, index, length, version).await;
        let generation = Arc::new(generation(length, version));
        let (vouched_at, number) = (SystemTime::now(), self.purges.now());
        self.disk().offer(Offer { key: key.into(), index, generation, vouched_at, number, slab, is_planned })
    }

    /// A slice as a fill leaves it.
    async fn full(&self, key: &str, index: u64, length: u64, version: u64) -> Arc<Slab> {
        let bytes = slice(key, index, length, version);
        let permit = self.budget.acquire(SLICE, Priority::Viewer, Duration::from_secs(60)).await.expect("memory in time");
        let (slab, mut writer) = Slab::new(permit, bytes.len());
        assert!(writer.append(&bytes));
        slab
    }

    /// Offers a slab as the one slice of an object that was learnt at a purge number.
    fn offer_slab(&self, key: &str, slab: Arc<Slab>, number: u64, is_planned: bool) -> bool {
        let (generation, vouched_at) = (Arc::new(generation(slab.length() as u64, 1)), SystemTime::now());
        self.disk().offer(Offer { key: key.into(), index: 0, generation, vouched_at, number, slab, is_planned })
    }

    /// Offers all slices of an object, one after the other has been written.
    pub(super) async fn store(&self, key: &str, length: u64, is_planned: bool) {
        for index in 0..length.div_ceil(SLICE as u64) {
            assert!(self.offer(key, index, length, is_planned).await);
            self.written().await;
        }
    }

    /// Waits until all that was offered is written, or not.
    pub(super) async fn written(&self) {
        while self.disk().stats().bytes_queued > 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn close(&mut self) {
        self.disk().close().await;
        self.disk = None;
    }

    pub(super) async fn load(&self, key: &str, index: u64, expected: Option<&Generation>) -> Option<Loaded> {
        let place = self.disk().find(key, index)?;
        let permit = self.budget.acquire(SLICE, Priority::Viewer, Duration::from_secs(60)).await.expect("memory in time");
        self.disk().load(key, index, place, expected, permit).await
    }

    /// Whether the slice is there; if so, all of its bytes are right, and it was used.
    pub(super) async fn has(&self, key: &str, index: u64, length: u64) -> bool {
        let Some(loaded) = self.load(key, index, Some(&generation(length, 1))).await else { return false };
        assert!(loaded.slab.whole() == slice(key, index, length, 1), "{key} {index}: wrong bytes");
        assert_eq!(loaded.generation, generation(length, 1));
        self.disk().used(key, index);
        true
    }

    /// The same without counting as a use of it.
    pub(super) async fn looks_up(&self, key: &str, index: u64, length: u64) -> bool {
        let engine = &self.disk().engine;
        let Some(place) = engine.index.place(engine.hash(key, index)) else { return false };
        let permit = self.budget.try_acquire(SLICE, Priority::Viewer).expect("memory");
        let loaded = self.disk().load(key, index, place, Some(&generation(length, 1)), permit).await;
        loaded.is_some_and(|loaded| {
            assert!(loaded.slab.whole() == slice(key, index, length, 1), "{key} {index}: wrong bytes");
            true
        })
    }

    fn path(&self, device: usize) -> PathBuf {
        self.config.devices[device].path.clone()
    }

    pub(super) fn refused(&self, reason: &str) -> u64 {
        let stats = self.disk().stats();
        stats.refused.iter().find(|(name, _)| *name == reason).expect("a reason").1
    }

    pub(super) fn is_given_up(&self, device: usize) -> Option<String> {
        match &self.disk().stats().devices[device].state {
            DeviceState::Serving => None,
            DeviceState::GivenUp { reason, .. } => Some(reason.clone()),
        }
    }
}

pub(super) fn generation(length: u64, version: u64) -> Generation {
    Generation {
        validator: format!("\"v{version}\""),
        length,
        headers: vec![("content-type".into(), "video/mp4".into())],
        fresh_for: Duration::from_secs(60),
        initial_age: Duration::ZERO,
        tags: vec!["film".into()],
    }
}

pub(super) fn slice(key: &str, index: u64, length: u64, version: u64) -> Vec<u8> {
    let start = index * SLICE as u64;
    let seed = xxhash_rust::xxh3::xxh3_64_with_seed(key.as_bytes(), version);
    let end = length.min(start + SLICE as u64);
    (start..end).map(|at| ((at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

pub(super) const ONE: u64 = SLICE as u64;

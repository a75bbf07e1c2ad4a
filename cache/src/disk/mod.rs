//! The SSD tier: slices on devices, in segments that are written once.
//!
//! Knows keys, slices and blocks; no titles, no network, and not who waits. What always holds: a slice that is handed out was verified
//! against its checksums, its key and its version; whatever a device does, the answer is the right bytes or none.

use std::{ops::Range, path::PathBuf, sync::Arc, time::{Duration, SystemTime}};

use crate::{Generation, purge::Purges, slab::{Budget, Permit, Slab}};

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

/// Where a slice may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

/// A slice that was read and verified.
pub(crate) struct Loaded {
    /// What the slice belongs to.
    pub(crate) generation: Generation,
    /// When the source last vouched for it, as far as is written down.
    pub(crate) vouched_at: SystemTime,
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
    pub(crate) number: u64,
    pub(crate) slab: Arc<Slab>,
    pub(crate) is_planned: bool,
}

/// The SSD tier.
pub(crate) struct Disk {}

impl Disk {
    /// Where the slice may be, without asking a device. Counts as a use of it.
    pub(crate) fn find(&self, key: &str, index: u64) -> Option<Place> {
        let _ = (key, index);
        None
    }

    /// Whether [`Self::find`] would find it; counts as nothing.
    pub(crate) fn contains(&self, key: &str, index: u64) -> bool {
        let _ = (key, index);
        false
    }

    /// Reads the whole slice under `permit`, which must cover a whole slice. `None` if it is not there after all, is not what was
    /// expected (another validator or length, where `expected` is given), was purged, or cannot be read: then it is as if it had never been.
    pub(crate) async fn load(&self, key: &str, index: u64, place: Place, expected: Option<&Generation>, permit: Permit) -> Option<Loaded> {
        let _ = (key, index, place, expected, permit);
        None
    }

    /// Reads as much of the slice as `range` (bytes within the slice) needs, under `permit`, which must cover `part_bytes(range)`. Gives a slab and where in it
    /// the range begins.
    pub(crate) async fn load_part(&self, key: &str, index: u64, place: Place, expected: &Generation, range: Range<usize>, permit: Permit) -> Option<(Arc<Slab>, usize)> {
        let _ = (key, index, place, expected, range, permit);
        None
    }

    /// Bytes that [`Self::load_part`] needs for `range`.
    pub(crate) fn part_bytes(range: &Range<usize>) -> usize {
        range.end.next_multiple_of(64 << 10) - range.start / (64 << 10) * (64 << 10)
    }

    /// Takes a filled slice to be written, or counts why not. Never waits.
    pub(crate) fn offer(&self, offer: Offer) {
        let _ = offer;
    }
}

pub(crate) fn unused(budget: Arc<Budget>, purges: Arc<Purges>) { let _ = (budget, purges); }

//! One device: its superblock, its segments, and whether it is still trusted.
//!
//! A device that fails is given up at once and for good, until an operator takes it back: what it holds is as if it were not there, and
//! nothing more is asked of it. The verdict is written to the state directory, not to the device.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::timeout;

use super::{
    cut::Cut,
    io::{DeviceFile, Io},
    layout::{Class, Life, PAGE, SEGMENTS_AT, SUPERBLOCK_AT, SegmentHead, Superblock, Unreadable},
    state::GivenUp,
};
use crate::{
    policy::{Policy, SharedPolicy},
    slab::IoBuf,
};

/// So many records that are not what was written are forgiven; then the device is given up.
const CORRUPT_MAX: u32 = 3;
/// The least number of segments of a device: something to write, something to reclaim, and something that stays.
pub(crate) const SEGMENTS_MIN: u32 = 8;

/// A configured device, open or given up.
#[derive(Default)]
pub(crate) struct Device {
    volume: Mutex<Option<Arc<Volume>>>,
    given_up: Mutex<Option<GivenUp>>,
    /// Whether it is open and not given up, for whoever asks often.
    serves: AtomicBool,
    /// Records and footers that were not what was written, since it was taken up.
    corrupt: AtomicU32,
    /// See [`Self::doubted`].
    doubted: AtomicU64,
    /// What of the content on demand stays.
    policy: SharedPolicy,
}

/// An open device.
pub(crate) struct Volume {
    pub(crate) file: Arc<DeviceFile>,
    pub(crate) superblock: Superblock,
    pub(crate) segments: Box<[Segment]>,
    pub(crate) used: AtomicU32,
    pub(crate) planned: AtomicU32,
    /// Segments that were opened, as far as is known.
    opened: AtomicU64,
    /// See [`Policy::stay`].
    pub(crate) stay: AtomicU64,
}

/// What is known of a segment at all times.
#[derive(Default)]
pub(crate) struct Segment {
    /// Which life it is in; 0 while it is free.
    pub(crate) sequence: AtomicU64,
    /// Which of its device's lives that is: see [`Volume::age`].
    opened: AtomicU64,
    /// Pages of records that the index leads to.
    pub(crate) live_pages: AtomicU32,
    /// [`Class`], as its number.
    pub(crate) class: AtomicU8,
    /// Whether its footer stands.
    pub(crate) is_sealed: AtomicBool,
    /// Purges up to this number cover nothing in it that the index leads to. Kept of planned content only.
    pub(crate) purged_to: AtomicU64,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{what} failed: {error}")]
    Io { what: &'static str, error: io::Error },
    #[error("{what} took longer than {} s", .limit.as_secs_f32())]
    Hangs { what: &'static str, limit: Duration },
    #[error("{0} records were not what had been written")]
    Corrupt(u32),
    #[error("{0}")]
    Unusable(String),
    #[error("what writes to it broke: {0}")]
    Writer(String),
}

impl Fault {
    /// Whether the device is not to blame: the driver's runtime ended under the operation, or the host was short of something.
    pub(crate) fn is_ours(&self) -> bool {
        use io::ErrorKind::{Interrupted, Other, OutOfMemory, ResourceBusy, WouldBlock};
        let Self::Io { error, .. } = self else { return false };
        matches!(error.kind(), Other | WouldBlock | Interrupted | ResourceBusy | OutOfMemory)
    }
}

impl Device {
    pub(crate) fn serves(&self) -> bool {
        self.serves.load(Ordering::Acquire)
    }

    pub(crate) fn volume(&self) -> Option<Arc<Volume>> {
        if self.serves() { self.volume.lock().clone() } else { None }
    }

    /// The volume, also of a device that was given up.
    pub(crate) fn last_volume(&self) -> Option<Arc<Volume>> {
        self.volume.lock().clone()
    }

    pub(crate) fn given_up(&self) -> Option<GivenUp> {
        self.given_up.lock().clone()
    }

    /// This is what is being looked at; it does not serve yet.
    pub(crate) fn prepare(&self, volume: Arc<Volume>) {
        *self.volume.lock() = Some(volume);
    }

    /// Whether `volume` is what the device serves from now.
    pub(crate) fn serves_from(&self, volume: &Arc<Volume>) -> bool {
        self.volume().is_some_and(|current| Arc::ptr_eq(&current, volume))
    }

    pub(crate) fn take_up(&self, volume: Arc<Volume>, policy: Policy) {
        self.policy.replace(policy);
        *self.volume.lock() = Some(volume);
        *self.given_up.lock() = None;
        self.corrupt.store(0, Ordering::Relaxed);
        self.serves.store(true, Ordering::Release);
    }

    /// Gives it up. `None` if that was done before.
    pub(crate) fn give_up(&self, reason: String, now: SystemTime) -> Option<GivenUp> {
        let mut given_up = self.given_up.lock();
        self.serves.store(false, Ordering::Release);
        if given_up.is_some() {
            return None;
        }
        *given_up = Some(GivenUp { reason, since: now });
        given_up.clone()
    }

    /// Nothing is asked of it any more, through no fault of its own.
    pub(crate) fn close(&self) {
        self.serves.store(false, Ordering::Release);
    }

    pub(crate) fn stays_given_up(&self, verdict: GivenUp) {
        *self.given_up.lock() = Some(verdict);
    }

    /// What was learnt before this purge number may have been replaced while the device was away.
    pub(crate) fn doubted(&self) -> u64 {
        self.doubted.load(Ordering::Relaxed)
    }

    pub(crate) fn doubt_before(&self, number: u64) {
        self.doubted.store(number, Ordering::Relaxed);
    }

    /// The policy of the device as it was taken up last.
    pub(crate) fn policy(&self) -> &SharedPolicy {
        &self.policy
    }

    /// Records and footers that were not what was written, since it was taken up.
    pub(crate) fn corrupt(&self) -> u32 {
        self.corrupt.load(Ordering::Relaxed)
    }

    /// Notes one that is not what was written; the fault, if that was one too many.
    pub(crate) fn is_corrupt(&self) -> Option<Fault> {
        let count = self.corrupt.fetch_add(1, Ordering::Relaxed) + 1;
        (count > CORRUPT_MAX).then_some(Fault::Corrupt(count))
    }
}

impl Segment {
    pub(crate) fn class(&self) -> Class {
        Class::from_byte(self.class.load(Ordering::Relaxed)).expect("stored from a class")
    }
}

impl Volume {
    pub(crate) fn new(file: Arc<DeviceFile>, superblock: Superblock) -> Arc<Self> {
        let segments = (0..superblock.segments).map(|_| Segment::default()).collect();
        let stay = AtomicU64::new(superblock.segments.into());
        let (used, planned, opened) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
        Arc::new(Self { file, superblock, segments, used, planned, opened, stay })
    }

    /// Segments that were opened since this one was.
    pub(crate) fn age(&self, segment: u32) -> u64 {
        self.opened.load(Ordering::Relaxed).saturating_sub(self.segment(segment).opened.load(Ordering::Relaxed))
    }

    /// The segment is younger than all that this was said of, or that began, before.
    pub(crate) fn is_youngest(&self, segment: u32) {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        self.segment(segment).opened.store(opened, Ordering::Relaxed);
    }

    /// Where a segment's page is on the device, in bytes.
    pub(crate) fn at(&self, segment: u32, page: usize) -> u64 {
        SEGMENTS_AT + u64::from(segment) * self.superblock.segment_bytes + (page * PAGE) as u64
    }

    /// How it is cut into segments.
    pub(crate) fn cut(&self) -> Cut {
        let Superblock { segments, segment_bytes, .. } = self.superblock;
        Cut { segments, segment_bytes }
    }

    pub(crate) fn pages_per_segment(&self) -> usize {
        self.cut().pages()
    }

    pub(crate) fn segment(&self, number: u32) -> &Segment {
        &self.segments[number as usize]
    }

    /// The life that a segment is in; of a free one, one that nothing was written in.
    pub(crate) fn life(&self, segment: u32) -> Life {
        Life { device: self.superblock.device, sequence: self.segment(segment).sequence.load(Ordering::Acquire) }
    }

    /// The segment holds something from now on.
    pub(crate) fn begin(&self, head: &SegmentHead) {
        let SegmentHead { number, life: Life { sequence, .. }, class } = *head;
        let segment = self.segment(number);
        segment.class.store(class as u8, Ordering::Relaxed);
        segment.live_pages.store(0, Ordering::Relaxed);
        segment.purged_to.store(0, Ordering::Relaxed);
        segment.is_sealed.store(false, Ordering::Relaxed);
        self.is_youngest(number);
        segment.sequence.store(sequence, Ordering::Release);
        self.used.fetch_add(1, Ordering::Relaxed);
        self.planned.fetch_add(u32::from(class.is_planned()), Ordering::Relaxed);
    }

    /// The segment holds nothing from now on.
    pub(crate) fn end(&self, number: u32) {
        let segment = self.segment(number);
        segment.sequence.store(0, Ordering::Release);
        self.used.fetch_sub(1, Ordering::Relaxed);
        self.planned.fetch_sub(u32::from(segment.class().is_planned()), Ordering::Relaxed);
    }
}

/// Reads `bytes` at `at`, within `limit`.
pub(crate) async fn read(io: &Io, file: &Arc<DeviceFile>, at: u64, buf: IoBuf, limit: Duration) -> Result<IoBuf, Fault> {
    within(limit, "reading", io.read(file, at, buf)).await
}

/// Reads so many pages at `at` into memory of its own.
pub(crate) async fn read_pages(io: &Io, file: &Arc<DeviceFile>, at: u64, pages: usize, limit: Duration) -> Result<IoBuf, Fault> {
    read(io, file, at, IoBuf::zeroed(pages * PAGE), limit).await
}

/// Writes what `buf` has at `at`, within `limit`.
pub(crate) async fn write(io: &Io, file: &Arc<DeviceFile>, at: u64, buf: IoBuf, limit: Duration) -> Result<(), Fault> {
    within(limit, "writing", io.write(file, at, buf)).await.map(drop)
}

/// Writes `bytes` at `at`: whole pages.
pub(crate) async fn write_bytes(io: &Io, file: &Arc<DeviceFile>, at: u64, bytes: &[u8], limit: Duration) -> Result<(), Fault> {
    let mut buf = IoBuf::zeroed(bytes.len());
    buf.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    write(io, file, at, buf, limit).await
}

/// Waits until what was written would outlast a loss of power.
pub(crate) async fn sync(io: &Io, file: &Arc<DeviceFile>, limit: Duration) -> Result<(), Fault> {
    within(limit, "syncing", io.sync(file)).await
}

async fn within<T>(limit: Duration, what: &'static str, operation: impl Future<Output = io::Result<T>>) -> Result<T, Fault> {
    match timeout(limit, operation).await {
        Ok(result) => result.map_err(|error| Fault::Io { what, error }),
        Err(_) => Err(Fault::Hangs { what, limit }),
    }
}

/// Reads the superblock, or writes one on a device that is blank or was another cache's.
///
/// # Errors
/// When it cannot be read or written, is too small, or holds something that no Larder wrote.
pub(crate) async fn open_superblock(
    io: &Io,
    file: &Arc<DeviceFile>,
    wanted: Superblock,
    limit: Duration,
) -> Result<(Superblock, bool), Fault> {
    let mut is_blank = true;
    let mut copies = [const { None }; SUPERBLOCK_AT.len()];
    for (at, copy) in SUPERBLOCK_AT.into_iter().zip(&mut copies) {
        let page = read_pages(io, file, at, 1, limit).await?;
        match Superblock::from_page(page.as_slice()) {
            Ok(superblock) => *copy = Some(superblock),
            Err(Unreadable::Magic) => is_blank &= Superblock::is_blank(page.as_slice()),
            // Torn, or of another version: begun anew.
            Err(_) => {}
        }
    }
    if let Some(found) = copies.iter().flatten().find(|copy| is_ours(copy, &wanted)).cloned() {
        // The other may be of an earlier formatting, which must not come back should this one rot.
        for (at, _) in SUPERBLOCK_AT.into_iter().zip(&copies).filter(|(_, copy)| copy.as_ref() != Some(&found)) {
            write_superblock(io, file, at, &found, limit).await?;
        }
        return Ok((found, false));
    }
    if !is_blank {
        let reason =
            "it holds something that is not Larder's; to use it all the same, make its first MiB zeroes (`wipefs`, `dd`)";
        return Err(Fault::Unusable(reason.into()));
    }
    // What an earlier life left must not be taken for this one's.
    for at in SUPERBLOCK_AT {
        write_superblock(io, file, at, &wanted, limit).await?;
    }
    Ok((wanted, true))
}

async fn write_superblock(
    io: &Io,
    file: &Arc<DeviceFile>,
    at: u64,
    superblock: &Superblock,
    limit: Duration,
) -> Result<(), Fault> {
    write_bytes(io, file, at, &superblock.to_page(), limit).await?;
    sync(io, file, limit).await
}

fn is_ours(found: &Superblock, wanted: &Superblock) -> bool {
    found.set == wanted.set
        && found.segment_bytes == wanted.segment_bytes
        && found.segments == wanted.segments
        && found.slice_bytes == wanted.slice_bytes
}

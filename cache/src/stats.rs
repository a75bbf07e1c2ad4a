//! What a cache tells of itself.

use std::{path::PathBuf, time::SystemTime};

use serde::Serialize;

/// Upper bounds of [`Latency`]'s buckets, in microseconds: from 32 µs to 8.4 s, doubling. One more bucket is for all above.
pub const LATENCY_BOUNDS_US: [u64; 19] = {
    let mut bounds = [32; 19];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

/// How long operations took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Latency {
    /// Operations by [`LATENCY_BOUNDS_US`]; the last is for all above.
    pub buckets: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// Operations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper bound of the bucket in which the operation at `share` (0 to 1) of all lies, in microseconds; `None` without operations or
    /// where it lies above all bounds.
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let rank = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bounded = self.buckets.iter().zip(LATENCY_BOUNDS_US);
        bounded.filter(|_| rank > 0).find_map(|(count, bound)| {
            seen += count;
            (seen >= rank).then_some(bound)
        })
    }
}

/// The SSD tier since start, and its sizes now. Bytes unless named otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiskStats {
    /// How devices are driven: "io_uring" or "threads".
    pub io: &'static str,
    /// Slices in the index now.
    pub slices: u64,
    /// Memory of the index now.
    pub index_bytes: u64,
    /// Slices that were looked for and found.
    pub hits: u64,
    /// Slices that were looked for and not found.
    pub misses: u64,
    /// Bytes of slices that readers got.
    pub bytes_hit: u64,
    /// Slices that were found but were not what was wanted: another version, purged, or not to be read.
    pub rejected: u64,
    /// Slices that were found but not read, because their device had as much to do as may wait for it.
    pub busy: u64,
    /// Bytes of slices that were taken to be written.
    pub bytes_admitted: u64,
    /// Slices that were not written, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Slices that left to make room.
    pub evictions: u64,
    /// Slices that were written again because they were still wanted.
    pub reinsertions: u64,
    /// Slices that had come on demand and were written again as planned content.
    pub planned_again: u64,
    /// Bytes of slices that wait to be written.
    pub bytes_queued: u64,
    /// Purges that may still cover something.
    pub purges: u64,
    /// Objects of which an older version may be on a device, so that what is found of them there is asked about first.
    pub doubts: u64,
    /// Each device.
    pub devices: Vec<DeviceStats>,
}

impl DiskStats {
    /// Bytes written to devices per byte of slices that was taken: 1 is the least. `None` before the first.
    pub fn write_amplification(&self) -> Option<f64> {
        let written: u64 = self.devices.iter().map(|device| device.bytes_written).sum();
        (self.bytes_admitted > 0).then(|| written as f64 / self.bytes_admitted as f64)
    }
}

/// One device since start, and its sizes now. Bytes unless named otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceStats {
    /// As configured.
    pub path: PathBuf,
    /// How it stands.
    pub state: DeviceState,
    /// All that may be used.
    pub bytes: u64,
    /// In segments that hold something.
    pub bytes_used: u64,
    /// Of these, in segments of planned content.
    pub bytes_planned: u64,
    /// Segments.
    pub segments: u64,
    /// Operations under way.
    pub depth: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Reads.
    pub reads: Latency,
    /// Writes.
    pub writes: Latency,
    /// Operations that failed.
    pub errors: u64,
    /// Records and footers that were not what had been written, since the device was taken up; one more than three and it is given up.
    pub corrupt: u64,
}

/// How a device stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeviceState {
    /// It reads and writes.
    Serving,
    /// It failed and is left alone until an operator says otherwise.
    GivenUp {
        /// What it did.
        reason: String,
        /// When.
        since: SystemTime,
    },
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Segments that were read.
    pub segments: u64,
    /// Slices that are right.
    pub slices: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// What is wrong, one line each, at most 100; the rest is only counted.
    pub faults: Vec<String>,
    /// All faults.
    pub fault_count: u64,
}

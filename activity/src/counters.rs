//! What is counted. Atomics that threads touch; [`Stats`] is how it stands.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{check::Reason, event::Kind};

const KINDS: usize = Kind::Forget as usize + 1;
const REASONS: usize = Reason::ALL.len();
/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of one activity.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: [Count; KINDS],
    pub(crate) sampled: [Count; KINDS],
    pub(crate) dropped: [Count; KINDS],
    pub(crate) refused: [Count; REASONS],
    pub(crate) duplicates: Count,
    pub(crate) batches: Count,
    pub(crate) groups: Count,
    pub(crate) failed_groups: Count,
    pub(crate) cut_bytes: Count,
    pub(crate) log_bytes: Count,
    pub(crate) log_segments: Count,
    pub(crate) log_oldest: Count,
    pub(crate) log_newest: Count,
    pub(crate) folded: Count,
    pub(crate) late: Count,
    pub(crate) lost: Count,
    pub(crate) checkpoints: Count,
    pub(crate) checkpoint_bytes: Count,
    pub(crate) fold_place: Count,
    pub(crate) lake_place: Count,
    pub(crate) lake_rows: Count,
    pub(crate) lake_files: Count,
    pub(crate) lake_bytes: Count,
    pub(crate) lake_failures: Count,
}

impl Counters {
    pub(crate) fn stats(&self, queued_bytes: u64) -> Stats {
        let kinds = |counts: &[Count; KINDS]| {
            Kind::SENT.into_iter().chain([Kind::Forget]).map(|kind| (kind.name(), counts[kind as usize].now())).collect()
        };
        Stats {
            accepted: kinds(&self.accepted),
            sampled: kinds(&self.sampled),
            dropped: kinds(&self.dropped),
            refused: Reason::ALL.iter().map(|reason| (reason.name(), self.refused[*reason as usize].now())).collect(),
            duplicates: self.duplicates.now(),
            batches: self.batches.now(),
            groups: self.groups.now(),
            failed_groups: self.failed_groups.now(),
            queued_bytes,
            cut_bytes: self.cut_bytes.now(),
            log_bytes: self.log_bytes.now(),
            log_segments: self.log_segments.now(),
            log_oldest: self.log_oldest.now(),
            log_newest: self.log_newest.now(),
            folded: self.folded.now(),
            late: self.late.now(),
            lost: self.lost.now(),
            checkpoints: self.checkpoints.now(),
            checkpoint_bytes: self.checkpoint_bytes.now(),
            fold_place: self.fold_place.now(),
            lake_place: self.lake_place.now(),
            lake_rows: self.lake_rows.now(),
            lake_files: self.lake_files.now(),
            lake_bytes: self.lake_bytes.now(),
            lake_failures: self.lake_failures.now(),
        }
    }
}

/// How it stands. Counts are since start unless they say otherwise.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Events that were kept, by kind.
    pub accepted: Vec<(&'static str, u64)>,
    /// Events for which others of a sample stand, by kind.
    pub sampled: Vec<(&'static str, u64)>,
    /// Events that were left out because the log was behind, by kind.
    pub dropped: Vec<(&'static str, u64)>,
    /// Events that are not as they should be, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Events that came again.
    pub duplicates: u64,
    /// Batches that were read.
    pub batches: u64,
    /// Groups that were written and synced.
    pub groups: u64,
    /// Groups that could not be.
    pub failed_groups: u64,
    /// Bytes of events that wait to be written, now.
    pub queued_bytes: u64,
    /// Bytes that were cut off the log's end at start.
    pub cut_bytes: u64,
    /// Bytes of the log now.
    pub log_bytes: u64,
    /// Segments of the log now.
    pub log_segments: u64,
    /// The number of the oldest event in the log.
    pub log_oldest: u64,
    /// The number after the newest.
    pub log_newest: u64,
    /// Events that were folded.
    pub folded: u64,
    /// Events that came too late for their hour.
    pub late: u64,
    /// Events in damaged parts of the log.
    pub lost: u64,
    /// Checkpoints that were written.
    pub checkpoints: u64,
    /// Bytes of the last checkpoint of all folds.
    pub checkpoint_bytes: u64,
    /// The number of the next event to be folded.
    pub fold_place: u64,
    /// The number of the first event that is not in the lake.
    pub lake_place: u64,
    /// Rows written to the lake.
    pub lake_rows: u64,
    /// Files written to the lake.
    pub lake_files: u64,
    /// Bytes written to the lake.
    pub lake_bytes: u64,
    /// Segments that could not be written to the lake, each time that it was tried.
    pub lake_failures: u64,
}

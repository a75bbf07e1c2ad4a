//! What a cache counts. All of it is relaxed: a figure may be a moment behind the one beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters since start, and sizes now. Bytes unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// In use for slices now: cached, read, being filled.
    pub ram_bytes: u64,
    /// The budget.
    pub ram_bytes_max: u64,
    /// Slices cached in RAM now.
    pub slices: u64,
    /// Objects known now.
    pub objects: u64,
    /// Slices that a reader found in RAM.
    pub hits: u64,
    /// Slices that a reader got from SSD, whole or in parts.
    pub ssd_hits: u64,
    /// Slices that a reader found in neither.
    pub misses: u64,
    /// Of the misses, those that waited on a fill already under way.
    pub collapsed: u64,
    /// Bytes given to readers from RAM.
    pub bytes_ram: u64,
    /// Bytes given to readers from SSD.
    pub bytes_ssd: u64,
    /// Bytes that sources wrote.
    pub bytes_filled: u64,
    /// Fills started: slices that a source was asked for.
    pub fills: u64,
    /// Times that a source was asked; more than fills where the first attempt failed.
    pub attempts: u64,
    /// Attempts that were cut because too little came of them while somebody waited.
    pub stalls: u64,
    /// Fills that ended early because nobody waited any more.
    pub abandoned: u64,
    /// Fills that ended in an error.
    pub fill_failures: u64,
    /// Slices that were not fetched for want of memory while somebody waited.
    pub refused_busy: u64,
    /// Slices of plans that were not fetched for want of memory.
    pub refused_plans: u64,
    /// Slices that were not fetched ahead for want of memory.
    pub refused_speculation: u64,
    /// Slices that readers had fetched ahead.
    pub read_ahead_started: u64,
    /// Of these, those that the same reader came to.
    pub read_ahead_used: u64,
    /// Slices that RAM gave up for others.
    pub evictions: u64,
    /// Flights under way now: fills, and slices being read from SSD.
    pub flights: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) ssd_hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) collapsed: Counter,
    pub(crate) bytes_ram: Counter,
    pub(crate) bytes_ssd: Counter,
    pub(crate) bytes_filled: Counter,
    pub(crate) fills: Counter,
    pub(crate) attempts: Counter,
    pub(crate) stalls: Counter,
    pub(crate) abandoned: Counter,
    pub(crate) fill_failures: Counter,
    pub(crate) refused_busy: Counter,
    pub(crate) refused_plans: Counter,
    pub(crate) refused_speculation: Counter,
    pub(crate) read_ahead_started: Counter,
    pub(crate) read_ahead_used: Counter,
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Adds unless there would be more than `max`.
    pub(crate) fn try_add(&self, by: u64, max: u64) -> bool {
        let added = |count: u64| count.checked_add(by).filter(|sum| *sum <= max);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).is_ok()
    }

    pub(crate) fn sub(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

//! What becomes of what viewers do: committed, summed up, flushed, packed.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Cheap to clone; all clones count together.
#[derive(Clone)]
pub(crate) struct Counters {
    writes: IntCounter,
    refused: IntCounterVec,
    coalesced: IntCounter,
    commits: IntCounterVec,
    commit_seconds: Histogram,
    journal_bytes: IntCounter,
    flush_batches: IntCounter,
    flushed_users: IntCounter,
    flush_failures: IntCounter,
    packed_views: IntCounter,
    queue_depth: IntGauge,
    unflushed_bytes: IntGauge,
}

impl Counters {
    /// Counters that `registry` shows.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("larder_control_viewers_{name}");
        let counter = |short: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name(short), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let by = |short: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name(short), help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauge = |short: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name(short), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let commit_seconds = Histogram::with_opts(
            HistogramOpts::new(name("commit_seconds"), "Time to write one commit to the journal and sync it.")
                .buckets(vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0]),
        )?;
        registry.register(Box::new(commit_seconds.clone()))?;
        Ok(Self {
            writes: counter("writes_total", "Positions, opinions and other things that viewers did, kept on disk.")?,
            refused: by("refused_total", "The same, refused, by reason.", "reason")?,
            coalesced: counter(
                "coalesced_total",
                "Writes that were summed up with one before them, so that the database has one.",
            )?,
            commits: by("commits_total", "Commits to the journal, by outcome.", "outcome")?,
            commit_seconds,
            journal_bytes: counter("journal_bytes_total", "Bytes written to the journal.")?,
            flush_batches: counter("flush_batches_total", "Transactions that brought the journal's contents to the database.")?,
            flushed_users: counter("flushed_users_total", "Users in them.")?,
            flush_failures: counter("flush_failures_total", "Attempts to bring them there that failed and are made again.")?,
            packed_views: counter("packed_views_total", "Views that were packed, and left the live rows.")?,
            queue_depth: gauge("queue_depth", "Writes that wait for the journal now.")?,
            unflushed_bytes: gauge("unflushed_bytes", "Memory for what is in the journal and not yet in the database.")?,
        })
    }

    /// A commit of so many records; `bytes` unless it failed.
    pub(crate) fn committed(&self, records: usize, took: Duration, bytes: Option<u64>) {
        self.commit_seconds.observe(took.as_secs_f64());
        match bytes {
            Some(bytes) => {
                self.commits.with_label_values(&["synced"]).inc();
                self.writes.inc_by(records as u64);
                self.journal_bytes.inc_by(bytes);
            }
            None => self.commits.with_label_values(&["failed"]).inc(),
        }
    }

    pub(crate) fn coalesced(&self, records: usize) {
        self.coalesced.inc_by(records as u64);
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn flushed(&self, users: usize) {
        self.flush_batches.inc();
        self.flushed_users.inc_by(users as u64);
    }

    pub(crate) fn flush_failed(&self) {
        self.flush_failures.inc();
    }

    pub(crate) fn packed(&self, views: u64) {
        self.packed_views.inc_by(views);
    }

    /// How things stand now.
    pub(crate) fn stand(&self, queue_depth: usize, unflushed_bytes: usize) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.queue_depth.set(gauge(queue_depth));
        self.unflushed_bytes.set(gauge(unflushed_bytes));
    }
}

#[cfg(test)]
impl Counters {
    /// Counters that nobody shows.
    pub(crate) fn unseen() -> Self {
        Self::register(&Registry::new()).expect("names are well formed and registered once")
    }

    /// How many commits there were.
    pub(crate) fn commits_synced(&self) -> u64 {
        self.commits.with_label_values(&["synced"]).get()
    }
}

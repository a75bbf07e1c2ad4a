//! The thread that writes the log: it takes what waits, leaves out what came before, writes and syncs it as one group, and tells who
//! waits. While nothing is written it closes segments that have been open long enough and lets old ones go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    codec::identity_of,
    config::Config,
    consumer::Places,
    counters::Counters,
    log::{Log, LogError, Reader, Retention},
    now_ms,
    queue::{NotKept, Pending, Queue, Taken},
    seen::Seen,
};

/// A group is not gathered any longer once it has so many bytes.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// How often segments are looked at when nothing comes.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    log: Log,
    queue: Arc<Queue>,
    seen: Seen,
    places: Arc<Places>,
    counters: Arc<Counters>,
    sync_interval: Duration,
    segment_age: Duration,
    retention: Retention,
    log_bytes_max: u64,
    group: Vec<u8>,
    synced_at: Instant,
    looked_at: Instant,
}

impl Writer {
    /// Opens nothing: reads the end of the log, to know which events came already.
    pub(crate) fn new(
        log: Log,
        queue: Arc<Queue>,
        places: Arc<Places>,
        counters: Arc<Counters>,
        config: &Config,
        seed: u64,
    ) -> Result<Self, LogError> {
        let mut seen = Seen::new(config.known_events);
        let known_from = log.newest().saturating_sub(config.known_events as u64).max(log.oldest());
        let mut reader = Reader::new(log.folder().to_owned(), known_from);
        while let Some(frame) = reader.next(log.progress().now())? {
            let known = frame.each(|_, event| {
                seen.is_new(identity_of(event, seed));
            });
            if let Err(error) = known {
                tracing::warn!(first = frame.head.first, %error, "a frame of the activity log is passed over");
            }
        }
        let now = Instant::now();
        let writer = Self {
            log,
            queue,
            seen,
            places,
            counters,
            sync_interval: config.sync_interval,
            segment_age: config.segment_age,
            retention: Retention { age_max: config.log_retention, bytes_max: config.log_bytes_max },
            log_bytes_max: config.log_bytes_max,
            group: Vec::new(),
            synced_at: now,
            looked_at: now,
        };
        writer.count();
        Ok(writer)
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        loop {
            match self.queue.take(TICK, self.synced_at + self.sync_interval, GROUP_BYTES_MAX) {
                Taken::Group(group) => self.keep(group),
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            if self.looked_at.elapsed() >= TICK {
                self.look_after();
            }
        }
        self.log.progress().stop();
    }

    fn keep(&mut self, mut group: Vec<Pending>) {
        let (mut duplicates, mut events) = (Vec::with_capacity(group.len()), 0);
        self.group.clear();
        for pending in &mut group {
            let before = pending.chunk.spans.len();
            pending.chunk.retain(|identity| self.seen.is_new(identity));
            let after = pending.chunk.spans.len();
            duplicates.push((before - after) as u64);
            if after > 0 {
                pending.chunk.put(&mut self.group);
                events += after as u32;
            }
        }
        let kept = match events {
            0 => Ok(()),
            _ if self.log.bytes() > self.log_bytes_max => Err(NotKept::Full),
            _ => self.log.append(&self.group, events, now_ms()).map_err(|error| {
                tracing::error!(%error, events, "events of viewers are not kept");
                NotKept::Failed
            }),
        };
        self.synced_at = Instant::now();
        match kept {
            Ok(()) => {
                self.counters.duplicates.add(duplicates.iter().sum());
                self.counters.groups.add(1);
                for span in group.iter().flat_map(|pending| &pending.chunk.spans) {
                    self.counters.accepted[span.kind as usize].add(1);
                }
            }
            Err(_) => {
                self.counters.failed_groups.add(1);
                let lost = group.iter().flat_map(|pending| pending.chunk.spans.iter().map(|span| span.identity));
                self.seen.forget(lost);
            }
        }
        self.count();
        for (pending, duplicates) in group.into_iter().zip(duplicates) {
            // Who does not wait any more sends it again, and it is known then.
            let _ = pending.done.send(kept.map(|()| duplicates));
        }
    }

    /// Closes a segment that has been open long enough, and lets old ones go.
    fn look_after(&mut self) {
        self.looked_at = Instant::now();
        let now_ms = now_ms();
        let closed = match self.log.open_for(now_ms) {
            Some(age) if age >= self.segment_age => self.log.roll(),
            _ => Ok(()),
        };
        let done = closed.and_then(|()| self.log.forget(self.places.least(), self.retention, now_ms));
        match done {
            Ok(0) => {}
            Ok(segments) => tracing::info!(segments, "segments of the activity log that nobody needs were removed"),
            Err(error) => tracing::warn!(%error, "cannot look after the activity log"),
        }
        self.count();
    }

    fn count(&self) {
        self.counters.log_bytes.set(self.log.bytes());
        self.counters.log_segments.set(self.log.segments_count() as u64);
        self.counters.log_oldest.set(self.log.oldest());
        self.counters.log_newest.set(self.log.newest());
    }
}

//! `[history]`: how what viewers do is kept.

use std::time::Duration;

use wire::config::{Bytes, Document};

use super::duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const COMMIT_EVERY: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(1));
const FLUSH_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(600));
const UNFLUSHED: (u64, u64) = (1 << 20, 64 << 30);
const VIEW_GAP: (Duration, Duration) = (Duration::from_secs(1), DAY);
const CLOCK_SKEW: (Duration, Duration) = (Duration::ZERO, HOUR);
const LIVE_FOR: (Duration, Duration) = (DAY, Duration::from_secs(366 * 86_400));
const KEEP_FOR: (Duration, Duration) = (DAY, Duration::from_secs(100 * 366 * 86_400));

/// How what viewers do is kept.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Syncs of the journal begin at most this often: how long a write waits for others, at most, before it is made durable.
    pub commit_every: Duration,
    /// How often what is in the journal goes to the database.
    pub flush_every: Duration,
    /// How much of it may be in memory.
    pub unflushed_bytes_max: usize,
    /// Two events of a title that are further apart are two views.
    pub view_gap: Duration,
    /// How far ahead a player's clock may be.
    pub clock_skew: Duration,
    /// How long views are rows; later they are packed.
    pub live_for: Duration,
    /// How long views are kept.
    pub keep_for: Duration,
    /// How long what was not watched to its end is offered to go on with.
    pub continue_for: Duration,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            commit_every: Duration::from_millis(4),
            flush_every: Duration::from_secs(30),
            unflushed_bytes_max: 256 << 20,
            view_gap: 4 * HOUR,
            clock_skew: Duration::from_secs(120),
            live_for: 30 * DAY,
            keep_for: 730 * DAY,
            continue_for: 180 * DAY,
        }
    }
}

pub(super) fn history(doc: &mut Document) -> Option<HistoryConfig> {
    let default = HistoryConfig::default();
    let commit_every = duration(doc, "history.commit_every", default.commit_every, COMMIT_EVERY);
    let flush_every = duration(doc, "history.flush_every", default.flush_every, FLUSH_EVERY);
    let unflushed = bytes(doc, "history.unflushed_max", default.unflushed_bytes_max, UNFLUSHED);
    let view_gap = duration(doc, "history.view_gap", default.view_gap, VIEW_GAP);
    let clock_skew = duration(doc, "history.clock_skew", default.clock_skew, CLOCK_SKEW);
    let live_for = duration(doc, "history.live_for", default.live_for, LIVE_FOR);
    let keep_for = duration(doc, "history.keep_for", default.keep_for, KEEP_FOR);
    let continue_for = duration(doc, "history.continue_for", default.continue_for, KEEP_FOR);
    Some(HistoryConfig {
        commit_every: commit_every?,
        flush_every: flush_every?,
        unflushed_bytes_max: unflushed?,
        view_gap: view_gap?,
        clock_skew: clock_skew?,
        live_for: live_for?,
        keep_for: keep_for?,
        continue_for: continue_for?,
    })
}

fn bytes(doc: &mut Document, key: &str, default: usize, (min, max): (u64, u64)) -> Option<usize> {
    let Bytes(value) = doc.value(key, Some(Bytes(default as u64)), "a number of bytes such as 64MiB or 1GiB")?;
    if !(min..=max).contains(&value) {
        doc.problem(key, format!("from {} to {}", Bytes(min), Bytes(max)));
        return None;
    }
    usize::try_from(value).ok()
}

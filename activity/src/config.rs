//! How an activity is set up. What stands here was checked by who read it.

use std::{path::PathBuf, time::Duration};

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the log, the folds and the pseudonyms' key are kept; made when missing.
    pub folder: PathBuf,
    /// Where Parquet files go; made when missing.
    pub lake: PathBuf,
    /// Events in a batch.
    pub batch_events_max: usize,
    /// How old an event may be when it arrives.
    pub event_age_max: Duration,
    /// So many of the latest events, and at most twice as many, are known when they come again.
    pub known_events: usize,
    /// Events are written and synced in groups, this far apart at most while there are any.
    pub sync_interval: Duration,
    /// How long a sender waits for his group. Longer, and he is told to come again.
    pub ack_timeout: Duration,
    /// Bytes of events that wait to be written.
    pub queue_bytes: usize,
    /// A segment is closed when it would have more.
    pub segment_bytes: u64,
    /// A segment is closed after this, and goes to the lake.
    pub segment_age: Duration,
    /// How long closed segments are kept.
    pub log_retention: Duration,
    /// How many bytes all segments may have together.
    pub log_bytes_max: u64,
    /// How often folds write down what they know: what a start after a crash folds again.
    pub checkpoint_interval: Duration,
    /// Users whose latest titles are known.
    pub users_max: usize,
    /// How long files stay in the lake; for ever when there is none.
    pub lake_retention: Option<Duration>,
}

impl Config {
    /// All but the folders as they are unless somebody says otherwise.
    pub fn new(folder: PathBuf, lake: PathBuf) -> Self {
        Self {
            folder,
            lake,
            batch_events_max: 1000,
            event_age_max: Duration::from_secs(24 * 3600),
            known_events: 900_000,
            sync_interval: Duration::from_millis(20),
            ack_timeout: Duration::from_secs(2),
            queue_bytes: 16 << 20,
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(3600),
            log_retention: Duration::from_secs(7 * 86_400),
            log_bytes_max: 16 << 30,
            checkpoint_interval: Duration::from_secs(30),
            users_max: 200_000,
            lake_retention: Some(Duration::from_secs(90 * 86_400)),
        }
    }
}

//! What viewers do: taken in batches, kept in a durable log, folded into popularity, trends, likeness and quality, and written to a lake.
//!
//! Start at [`Activity`]. A batch goes `check → shed → codec → queue → writer → log`, and its sender is told when its group was synced.
//! From the log, and only from there, one thread folds (`consumer.rs`) and one writes Parquet (`lake/`). This crate knows no HTTP and
//! no SQL.
//!
//! What always holds: what a sender was told is kept is in the log, once, after any crash; what the folds know is what a recount of the
//! log comes to; nobody who offers ever waits for room; every table has a bound.

mod check;
mod codec;
mod config;
mod consumer;
mod counters;
mod event;
mod files;
mod fold;
mod lake;
mod log;
mod pack;
mod pseudonym;
mod queue;
mod seen;
mod shed;
mod time;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use parking_lot::{Mutex, RwLock};
use rustix::process::setpriority_process;
use tokio::sync::oneshot;
use wire::title::TitleId;

pub use check::{
    BatchError, CDN_BYTES_MAX, ERRORS_MAX, FLAWS_MAX, Flaw, Limits, REGION_BYTES_MAX, ROW_BYTES_MAX, Reason, Sender,
    USER_BYTES_MAX, WORD_BYTES_MAX,
};
pub use config::Config;
pub use counters::Stats;
pub use event::{KEYS, Key, Kind, NAME_BYTES_MAX, Unit};
pub use fold::{
    Sketch,
    popularity::FileHour,
    quality::Quality,
    trending::{Trend, Window},
};
pub use lake::Store;
pub use log::LogError;
pub use queue::NotKept;
pub use time::{date_and_hour, parse_rfc3339};

use check::Checked;
use codec::{Chunk, Encoder};
use consumer::{Consumer, Places};
use counters::Counters;
use event::{Event, Name};
use fold::{
    hours::{self, Hourly},
    popularity::Popularity,
    quality::Qualities,
    together::Together,
    trending::Trending,
};
use lake::Lake;
use log::{Log, Progress};
use pseudonym::Pseudonyms;
use queue::{Pending, Queue};
use shed::Verdict;
use time::HOUR_MS;
use writer::Writer;

/// How often titles' popularity is computed anew, at most.
const SCORES_EVERY: Duration = Duration::from_secs(5);
/// The nice value of the thread that writes the lake.
const LAKE_NICE: i32 = 10;
/// Hours that one question about files or quality may span: what is kept.
pub const HOURS_MAX: u64 = hours::HOURS_MAX;

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Sees to it that no other process writes here, as long as the file is held.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|source| OpenError::File { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::File { path, source }),
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Events that are in the log now, durable.
    pub accepted: u64,
    /// Events that were there already.
    pub duplicates: u64,
    /// Events for which others stand, because the log is behind.
    pub sampled: u64,
    /// Events that were left out, because the log is behind.
    pub dropped: u64,
    /// Events that are not as they should be, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// The first of these.
    pub flaws: Vec<Flaw>,
}

/// Why nothing of a batch was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The log cannot take it now. Sending it again later is harmless.
    #[error(transparent)]
    Log(#[from] NotKept),
}

/// Why the activity of viewers cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder or file of it cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another process has it.
    #[error("another process writes to {}: one control has one state directory", path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
}

/// What viewers do. Cheap to clone.
#[derive(Clone)]
pub struct Activity(Arc<Shared>);

struct Shared {
    limits: Limits,
    ack_timeout: Duration,
    /// What identities of events are hashed with.
    seed: u64,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    pseudonyms: Pseudonyms,
    popularity: Arc<RwLock<Popularity>>,
    trending: Arc<RwLock<Trending>>,
    together: Arc<RwLock<Together>>,
    quality: Arc<RwLock<Qualities>>,
    hours: PathBuf,
    scores: ArcSwap<HashMap<TitleId, f32>>,
    shares: ArcSwap<HashMap<TitleId, u32>>,
    /// When both were computed; whoever holds it computes them.
    scored_at: Mutex<Option<Instant>>,
}

/// The threads that keep, fold and convert, to be started.
pub struct Workers {
    lock: File,
    writer: Writer,
    consumer: Consumer,
    lake: Lake,
    progress: Arc<Progress>,
    places: Arc<Places>,
    counters: Arc<Counters>,
    queue: Arc<Queue>,
    checkpoint_interval: Duration,
}

/// The threads, running.
pub struct Running {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    /// Given up when the threads have ended.
    _lock: File,
}

impl Activity {
    /// Opens the log, cuts off what a crash left half written, and loads what is known. Nothing is kept before the workers run.
    pub fn open(config: &Config) -> Result<(Self, Workers), OpenError> {
        let fault = |path: PathBuf| move |source| OpenError::File { path, source };
        let folder = &config.folder;
        fs::create_dir_all(folder).map_err(fault(folder.clone()))?;
        let lock = lock(folder)?;
        let key = folder.join("pseudonyms.key");
        let pseudonyms = Pseudonyms::open(&key).map_err(fault(key))?;
        let (log, recovered) = Log::open(&folder.join("log"), config.segment_bytes, now_ms())?;
        if recovered.cut_bytes > 0 {
            tracing::info!(bytes = recovered.cut_bytes, "events that nobody was told are kept were cut off the activity log");
        }
        let counters = Arc::new(Counters::default());
        counters.cut_bytes.set(recovered.cut_bytes);
        let (id, range) = (log.id(), (log.oldest(), log.newest()));
        let folds = folder.join("folds");
        let consumer = Consumer::open(&folds, log.folder(), id, range, config.users_max).map_err(fault(folds))?;
        let place = folder.join("lake.place");
        let lake = Lake::open(config.lake.clone(), place, log.folder().to_owned(), id, range, config.lake_retention);
        let lake = lake.map_err(fault(config.lake.clone()))?;
        let places = Arc::new(Places::default());
        places.set_lake(lake.place());
        let mut seed = [0; 8];
        let random = SystemRandom::new().fill(&mut seed).map_err(|_| io::Error::other("the system has no randomness"));
        random.map_err(fault(folder.clone()))?;
        let seed = u64::from_le_bytes(seed);
        let queue = Arc::new(Queue::new(config.queue_bytes));
        let progress = log.progress();
        let writer = Writer::new(log, Arc::clone(&queue), Arc::clone(&places), Arc::clone(&counters), config, seed)?;
        let shared = Shared {
            limits: Limits { events_max: config.batch_events_max, age_max: config.event_age_max },
            ack_timeout: config.ack_timeout,
            seed,
            queue: Arc::clone(&queue),
            counters: Arc::clone(&counters),
            pseudonyms,
            popularity: consumer.popularity(),
            trending: consumer.trending(),
            together: consumer.together(),
            quality: consumer.quality(),
            hours: consumer.hours().to_owned(),
            scores: ArcSwap::default(),
            shares: ArcSwap::default(),
            scored_at: Mutex::default(),
        };
        let checkpoint_interval = config.checkpoint_interval;
        let workers = Workers { lock, writer, consumer, lake, progress, places, counters, queue, checkpoint_interval };
        Ok((Self(Arc::new(shared)), workers))
    }

    /// Takes a batch of events (JSON): reads it at once, and ends when those that are kept are on the medium for good. That takes the interval of
    /// syncs, one write and sync, and what waits before it; or the configured time, and then it is [`NotKept::TooSlow`].
    pub fn submit(&self, body: &[u8], sender: Sender<'_>) -> impl Future<Output = Result<Receipt, Refused>> + Send + use<> {
        let read = self.read(body, sender);
        let activity = self.clone();
        async move {
            let (mut receipt, chunk) = read?;
            if chunk.is_empty() {
                return Ok(receipt);
            }
            let good = chunk.spans.len() as u64;
            receipt.duplicates = activity.keep(chunk).await?;
            receipt.accepted = good - receipt.duplicates;
            Ok(receipt)
        }
    }

    /// Reads a batch and leaves out what there is no room for.
    fn read(&self, body: &[u8], sender: Sender<'_>) -> Result<(Receipt, Chunk), BatchError> {
        let Shared { counters, queue, .. } = &*self.0;
        let now_ms = now_ms();
        let full = queue.full();
        let mut receipt = Receipt::default();
        let mut encoder = Encoder::new(now_ms, self.0.seed);
        let mut flaws = Vec::new();
        Checked::new(self.0.limits, sender, now_ms).each(
            body,
            &self.0.pseudonyms,
            |event| match shed::verdict(full, event.kind, encoder.session_hash(event)) {
                Verdict::Keep(0) => encoder.put(event),
                Verdict::Keep(sampled) => encoder.put(&Event { sampled, ..event.clone() }),
                Verdict::Sampled => {
                    receipt.sampled += 1;
                    counters.sampled[event.kind as usize].add(1);
                }
                Verdict::Dropped => {
                    receipt.dropped += 1;
                    counters.dropped[event.kind as usize].add(1);
                }
            },
            |flaw| flaws.push(flaw),
        )?;
        counters.batches.add(1);
        for flaw in &flaws {
            *receipt.refused.entry(flaw.reason.name()).or_default() += 1;
            counters.refused[flaw.reason as usize].add(1);
        }
        flaws.truncate(FLAWS_MAX);
        receipt.flaws = flaws;
        Ok((receipt, encoder.finish()))
    }

    /// Forgets what is known of a user, for good: in the log's order, so that a recount forgets it too.
    pub async fn forget(&self, user: &str) -> Result<(), NotKept> {
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| NotKept::Failed)?;
        let user = self.0.pseudonyms.of(user);
        let event = Event { user: Some(user), ..Event::new(Kind::Forget, now_ms(), Name::Uuid(id), Name::Text("control")) };
        let mut encoder = Encoder::new(event.at_ms, self.0.seed);
        encoder.put(&event);
        self.keep(encoder.finish()).await.map(drop)
    }

    /// Waits until a chunk is synced. Says how many of its events had been there before.
    async fn keep(&self, chunk: Chunk) -> Result<u64, NotKept> {
        let (done, kept) = oneshot::channel();
        let pending = Pending { chunk, done };
        if self.0.queue.offer(pending).is_err() {
            return Err(if self.0.queue.is_closed() { NotKept::Stopping } else { NotKept::TooSlow });
        }
        match tokio::time::timeout(self.0.ack_timeout, kept).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) => Err(NotKept::Stopping),
            Err(_) => Err(NotKept::TooSlow),
        }
    }

    /// Every title's popularity, from 0 to 1, a few seconds old at most: what lists are ranked by. Titles that are not there have none.
    pub fn popularity(&self) -> Arc<HashMap<TitleId, f32>> {
        self.refresh();
        self.0.scores.load_full()
    }

    /// Every title's share of all plays of late, in billionths, as old: what placement calls popularity, by plays where that has bytes.
    pub fn shares(&self) -> Arc<HashMap<TitleId, u32>> {
        self.refresh();
        self.0.shares.load_full()
    }

    fn refresh(&self) {
        if let Some(mut scored_at) = self.0.scored_at.try_lock()
            && scored_at.is_none_or(|at| at.elapsed() >= SCORES_EVERY)
        {
            let popularity = self.0.popularity.read();
            self.0.scores.store(Arc::new(popularity.scores()));
            self.0.shares.store(Arc::new(popularity.shares()));
            *scored_at = Some(Instant::now());
        }
    }

    /// How much files were wanted in the hour that has `at_ms` in it, by region, the most wanted first. Empty when nobody knows. Reads a file,
    /// when the hour is closed.
    pub fn files(&self, at_ms: u64) -> io::Result<Vec<FileHour>> {
        let hour = at_ms / HOUR_MS;
        match self.0.popularity.read().hour(hour) {
            Some(files) => Ok(files),
            None => Ok(hours::read::<Popularity>(&self.0.hours, hour)?.unwrap_or_default()),
        }
    }

    /// The quality of experience by region in the `hours_count` hours up to now. Reads files, for the hours that are closed.
    pub fn quality(&self, hours_count: u64) -> io::Result<BTreeMap<String, Quality>> {
        let now = now_ms() / HOUR_MS;
        let mut regions = BTreeMap::<String, Quality>::new();
        for hour in now.saturating_sub(hours_count.clamp(1, HOURS_MAX) - 1)..=now {
            let open = self.0.quality.read().hour(hour);
            let known = match open {
                Some(known) => known,
                None => hours::read::<Qualities>(&self.0.hours, hour)?.unwrap_or_default(),
            };
            for (region, quality) in known {
                regions.entry(region.into()).or_default().merge(&quality);
            }
        }
        Ok(regions)
    }

    /// The titles that are trending in `region`, or everywhere, the first one most.
    pub fn trending(&self, region: Option<&str>, window: Window, limit: usize) -> Vec<Trend> {
        self.0.trending.read().trends(region, window, now_ms(), limit)
    }

    /// Titles that are watched by those who watch `title`, with their likeness (0 to 1), the most alike first.
    pub fn watched_with(&self, title: &TitleId, limit: usize) -> Vec<(TitleId, f32)> {
        self.0.together.read().like(title.as_str(), limit)
    }

    /// What a user watched of late, the latest first.
    pub fn watched_by(&self, user: &str) -> Vec<TitleId> {
        let user = self.0.pseudonyms.of(user);
        self.0.together.read().views(user)
    }

    /// What a user watched, began or disliked of late, which need not be recommended to him.
    pub fn known_to(&self, user: &str) -> Vec<TitleId> {
        let user = self.0.pseudonyms.of(user);
        self.0.together.read().known_to(user)
    }

    /// How many users have views that are known.
    pub fn users(&self) -> usize {
        self.0.together.read().users()
    }

    /// How it stands.
    pub fn stats(&self) -> Stats {
        self.0.counters.stats(self.0.queue.bytes() as u64)
    }
}

impl Workers {
    /// Files of the lake go to `store`, and pass through its folder.
    pub fn keep_lake_in(&mut self, store: Box<dyn Store>) {
        self.lake.set_store(store);
    }

    /// Starts the threads: one writes the log, one folds it, one writes the lake.
    pub fn start(self) -> io::Result<Running> {
        let Self { lock, writer, consumer, lake, progress, places, counters, queue, checkpoint_interval } = self;
        let mut running = Running { queue, threads: Vec::new(), _lock: lock };
        let mut spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.into()).spawn(run);
            thread.map(|thread| running.threads.push(thread))
        };
        let (for_folds, for_lake) = ((progress.clone(), places.clone(), counters.clone()), (progress, places, counters));
        spawn("activity-log", Box::new(move || writer.run()))?;
        spawn(
            "activity-fold",
            Box::new(move || {
                let (progress, places, counters) = for_folds;
                consumer.run(&progress, &places, &counters, checkpoint_interval);
            }),
        )?;
        spawn(
            "activity-lake",
            Box::new(move || {
                let (progress, places, counters) = for_lake;
                // It can be late; what viewers send cannot. On Linux this is the calling thread's alone (setpriority(2)).
                if let Err(error) = setpriority_process(None, LAKE_NICE) {
                    tracing::warn!(%error, "the lake's thread has the priority of all others");
                }
                lake.run(&progress, &places, &counters);
            }),
        )?;
        Ok(running)
    }
}

impl Running {
    /// Takes nothing more, keeps what waits, folds what was kept, writes down what is known, and returns.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that keeps viewers' activity panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;

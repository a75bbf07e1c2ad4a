//! What viewers do: where they stopped, what they like, what they watched. Kept by user; knows no HTTP and no SQL.
//!
//! A write goes `commit (journal, one sync for many) → memory → acknowledged`, and later, summed up with others, `flush → database`; when
//! it is old, `pack`. A read joins memory, live rows and packed ones. All of them are joined by the same rule (`view`), so it does not
//! matter what is where, or is in two places at once: what is acknowledged is on disk and is seen, whatever is killed when.

pub(crate) mod commit;
mod journal;
pub(crate) mod mark;
pub(crate) mod memory;
pub(crate) mod pack;
pub(crate) mod read;
pub(crate) mod record;
mod settle;
mod varint;
pub(crate) mod view;

#[cfg(test)]
mod kill;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wire::title::TitleId;

use self::{
    commit::{Committer, Handover, NotKept},
    journal::{Journal, JournalError, Sealed},
    mark::{Mark, Opinion},
    memory::{Edits, Forgotten, Memory},
    pack::period_of,
    read::{Everything, Place},
    record::{Change, Record},
    view::{Device, View},
};
use crate::{
    config::HistoryConfig,
    db::{Db, DbError, Due, DuePlace},
    identity::user::UserId,
    metrics::viewers::Counters,
};

/// Events that are older are refused: no player is offline for so long. Until then a forgotten user is known to be forgotten.
pub(crate) const EVENT_AGE_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Users in one transaction of a flush: what keeps the one writer busy for a few milliseconds.
const FLUSH_USERS: usize = 256;
/// How long to wait after a flush that failed.
const FLUSH_RETRY: Duration = Duration::from_secs(1);
/// Users in one transaction that packs.
const PACK_USERS: u32 = 32;
/// How often, and with which pause, the write-ahead log is asked to begin anew once someone was erased: readers may be in it.
const TRUNCATE_ATTEMPTS: u32 = 50;
const TRUNCATE_PAUSE: Duration = Duration::from_millis(20);

/// The ledger of what viewers do.
pub(crate) struct Ledger {
    db: Db,
    memory: Arc<Memory>,
    committer: Committer,
    journal_dir: PathBuf,
    config: HistoryConfig,
    pace: Pace,
    counters: Counters,
    /// To flush now.
    wanted: Notify,
    /// The number of the flush that is wanted by someone who waits for it, and of the last one that began.
    flush_wanted: AtomicU64,
    flush_begun: AtomicU64,
    /// The number of the last flush that is done.
    flush_done: watch::Sender<u64>,
}

/// How old views are packed: a few users at a time, then the one writer is left to others; and again after a while.
#[derive(Debug, Clone, Copy)]
struct Pace {
    pause: Duration,
    every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Duration::from_millis(250), every: Duration::from_secs(3600) }
    }
}

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenLedgerError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("cannot start the journal's thread: {0}")]
    Thread(std::io::Error),
}

/// Why a write that depends on what was there is not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    NotKept(#[from] NotKept),
    #[error(transparent)]
    Database(#[from] DbError),
}

/// The time at which an event counts, of the time that a player says: of a clock that is ahead by more than `skew`, now. None when
/// it is too old.
pub(crate) fn event_ms(at_ms: u64, now_ms: u64, skew: Duration) -> Option<u64> {
    if at_ms > now_ms.saturating_add(millis(skew)) {
        return Some(now_ms);
    }
    (at_ms >= now_ms.saturating_sub(millis(EVENT_AGE_MAX))).then_some(at_ms)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Ledger {
    /// Opens the journal in `state_dir` and takes into memory what it has and the database does not.
    pub(crate) async fn open(
        db: Db,
        state_dir: &Path,
        config: HistoryConfig,
        counters: Counters,
    ) -> Result<Self, OpenLedgerError> {
        let known = db.viewers_known().await?;
        let journal_dir = state_dir.join("viewers");
        let memory = Memory::new(config.unflushed_bytes_max, millis(config.view_gap), Forgotten::of(known.forgotten));
        let memory = Arc::new(memory);
        let (dir, replayed) = (journal_dir.clone(), Arc::clone(&memory));
        let replay = move |record| {
            replayed.add(record);
        };
        let opened = spawn_blocking(move || Journal::open(&dir, known.sequence, replay));
        let (journal, recovered) = opened.await.map_err(DbError::from)??;
        if recovered.records > 0 || recovered.damaged_bytes > 0 {
            tracing::info!(?recovered, "the journal had what the database did not");
        }
        if recovered.segments > 0 {
            // The first flush removes them, also if the database has it all.
            memory.touch();
        }
        let committer = Committer::start(journal, Arc::clone(&memory), config.commit_every, counters.clone());
        Ok(Self {
            db,
            memory,
            committer: committer.map_err(OpenLedgerError::Thread)?,
            journal_dir,
            config,
            pace: Pace::default(),
            counters,
            wanted: Notify::new(),
            flush_wanted: AtomicU64::new(0),
            flush_begun: AtomicU64::new(0),
            flush_done: watch::Sender::new(0),
        })
    }

    /// Keeps where a viewer is. Returns once that is on disk.
    pub(crate) async fn watched(
        &self,
        user: UserId,
        title: TitleId,
        at_ms: u64,
        position_ms: u64,
        device: Option<Device>,
    ) -> Result<(), NotKept> {
        self.keep(Record { user, change: Change::Watched { title, at_ms, position_ms, device } }).await
    }

    /// Keeps what a viewer thinks of a title. It is her last word, also if the clock was set back since the one before.
    pub(crate) async fn rated(&self, user: UserId, title: TitleId, now_ms: u64, opinion: Opinion) -> Result<(), WriteError> {
        let before = self.opinion(user.clone(), title.clone()).await?;
        let at_ms = now_ms.max(before.opinion_ms + 1);
        Ok(self.keep(Record { user, change: Change::Rated { title, at_ms, opinion } }).await?)
    }

    /// Takes a title off the list of what a viewer could go on with, until she watches it again; by her player's clock, if that is ahead.
    pub(crate) async fn hidden(&self, user: UserId, title: TitleId, now_ms: u64) -> Result<(), WriteError> {
        let stopped = self.stopped(user.clone(), title.clone()).await?;
        let at_ms = stopped.map_or(now_ms, |view| now_ms.max(view.last_ms));
        Ok(self.keep(Record { user, change: Change::Hidden { title, at_ms } }).await?)
    }

    /// Forgets a viewer. From the moment this is on disk nothing of her is seen; returns once nothing of her is left in journal, rows
    /// and packs. What she did before and is still on its way is not taken any more.
    pub(crate) async fn forget(&self, user: UserId, now_ms: u64) -> Result<(), NotKept> {
        self.keep(Record { user, change: Change::Forgotten { at_ms: now_ms } }).await?;
        self.flushed().await;
        Ok(())
    }

    async fn keep(&self, record: Record) -> Result<(), NotKept> {
        let kept = match self.memory.is_full() {
            true => Err(NotKept::MemoryFull),
            false => self.committer.keep(record).await,
        };
        match &kept {
            Ok(()) if self.memory.is_half_full() => self.wanted.notify_one(),
            Ok(()) => {}
            Err(reason) => self.counters.refused(reason.label()),
        }
        kept
    }

    /// Returns once everything that is kept now is in the database alone.
    async fn flushed(&self) {
        let wanted = self.flush_begun.load(Ordering::SeqCst) + 1;
        self.flush_wanted.fetch_max(wanted, Ordering::SeqCst);
        self.wanted.notify_one();
        let mut done = self.flush_done.subscribe();
        // The sender is in `self`.
        let _ = done.wait_for(|done| *done >= wanted).await;
    }

    /// The view in which a viewer stopped.
    pub(crate) async fn stopped(&self, user: UserId, title: TitleId) -> Result<Option<View>, DbError> {
        let edits = self.memory.edits_of(&user, &title);
        if edits.forgotten_ms.is_some() {
            return Ok(read::latest(edits.views));
        }
        self.db.read_viewer(user, move |viewer| read::stopped(viewer, edits, &title)).await
    }

    /// What a viewer thinks of a title.
    pub(crate) async fn opinion(&self, user: UserId, title: TitleId) -> Result<Mark, DbError> {
        let edits = self.memory.edits_of(&user, &title);
        self.db.read_viewer(user, move |viewer| read::opinion(viewer, edits, &title)).await
    }

    /// Up to `limit` views, by when they began, the newest first.
    pub(crate) async fn history(&self, user: UserId, after: Option<Place>, limit: usize) -> Result<Vec<View>, DbError> {
        let gap_ms = millis(self.config.view_gap);
        self.list(user, move |viewer, edits| read::history(viewer, edits, after.as_ref(), limit, gap_ms)).await
    }

    /// Of each title that was watched lately the view in which the viewer stopped, the newest first.
    pub(crate) async fn stopped_lately(&self, user: UserId, after: Option<Place>, now_ms: u64) -> Result<Vec<View>, DbError> {
        let since_ms = now_ms.saturating_sub(millis(self.config.continue_for));
        self.list(user, move |viewer, edits| read::stopped_since(viewer, edits, after.as_ref(), since_ms)).await
    }

    /// Up to `limit` titles of which a viewer has this opinion, the newest first.
    pub(crate) async fn opinions(
        &self,
        user: UserId,
        opinion: Opinion,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Mark>, DbError> {
        self.list(user, move |viewer, edits| read::opinions(viewer, edits, opinion, after.as_ref(), limit)).await
    }

    /// All that is kept of a viewer.
    pub(crate) async fn everything(&self, user: UserId) -> Result<Everything, DbError> {
        let gap_ms = millis(self.config.view_gap);
        self.list(user, move |viewer, edits| read::everything(viewer, edits, gap_ms)).await
    }

    /// Memory first, the database second: what goes from one to the other meanwhile is in both.
    async fn list<T: Send + 'static>(
        &self,
        user: UserId,
        ask: impl FnOnce(&crate::db::Viewer<'_>, Edits) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let edits = self.memory.edits(&user);
        self.db.read_viewer(user, move |viewer| ask(viewer, edits)).await
    }

    /// How far ahead a player's clock may be.
    pub(crate) fn clock_skew(&self) -> Duration {
        self.config.clock_skew
    }

    /// Tells the counters how things stand.
    pub(crate) fn stand(&self) {
        self.counters.stand(self.committer.waiting(), self.memory.bytes());
    }

    /// Brings to the database what is kept, and packs what is old, until `stop`; then everything that is kept goes there.
    pub(crate) async fn run(self: Arc<Self>, now_ms: fn() -> u64, stop: CancellationToken) {
        let mut keeper = Keeper::new(&self);
        let (mut flush_at, mut pack_at) = (Instant::now(), Instant::now());
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wanted.notified() => flush_at = Instant::now(),
                () = sleep_until(flush_at.min(pack_at).into()) => {}
            }
            if flush_at <= Instant::now() {
                let again = match keeper.flush(&stop).await {
                    // Who came while an earlier one was under way.
                    Ok(()) if self.is_wanted() => Duration::ZERO,
                    Ok(()) => self.config.flush_every,
                    Err(error) => {
                        self.counters.flush_failed();
                        tracing::error!(%error, "what viewers did stays in the journal: the database does not take it");
                        tokio::select! { () = sleep(FLUSH_RETRY) => {} () = stop.cancelled() => {} }
                        Duration::ZERO
                    }
                };
                flush_at = Instant::now() + again;
            }
            if pack_at <= Instant::now() {
                let again = match keeper.pack(now_ms()).await {
                    Ok(true) => self.pace.pause,
                    Ok(false) => self.pace.every,
                    Err(error) => {
                        tracing::error!(%error, "old views cannot be packed");
                        self.pace.every
                    }
                };
                pack_at = Instant::now() + again;
            }
        }
        // What was sealed before, and what came since.
        if keeper.unsettled.is_some()
            && let Err(error) = keeper.flush(&stop).await
        {
            tracing::error!(%error, "what viewers did stays in the journal until the next start");
            return;
        }
        if let Err(error) = keeper.flush(&stop).await {
            tracing::error!(%error, "what viewers did stays in the journal until the next start");
        }
    }
}

/// What the one task knows that brings things to the database.
struct Keeper<'a> {
    ledger: &'a Ledger,
    /// What is sealed and not yet settled.
    unsettled: Option<(u64, Handover)>,
    /// What is settled and not yet removed from the journal.
    settled: Option<Sealed>,
    /// Whether someone was erased who may be in the database's own log; also by a process before this one.
    is_in_log: bool,
    /// How far this round of packing has come; None between two rounds.
    place: Option<(Due, Option<DuePlace>)>,
}

#[derive(Debug, thiserror::Error)]
enum FlushError {
    #[error(transparent)]
    NotSealed(#[from] NotKept),
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("a segment of the journal cannot be removed: {0}")]
    NotRemoved(#[from] std::io::Error),
}

impl<'a> Keeper<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        Self { ledger, unsettled: None, settled: None, is_in_log: true, place: None }
    }

    /// Brings to the database what was kept until now. When this succeeds it is there alone.
    async fn flush(&mut self, stop: &CancellationToken) -> Result<(), FlushError> {
        let ledger = self.ledger;
        if self.unsettled.is_none() {
            let number = ledger.flush_begun.fetch_add(1, Ordering::SeqCst) + 1;
            if !ledger.memory.is_touched() {
                self.clear_up().await?;
                ledger.flush_done.send_replace(number);
                return Ok(());
            }
            let handover = ledger.committer.seal().await?.expect("what was sealed before is settled");
            self.unsettled = Some((number, handover));
        }
        let Some((number, handover)) = &self.unsettled else { return Ok(()) };
        let mut users = handover.table.all();
        let mut crowded = Vec::new();
        loop {
            let batch: Vec<(UserId, Edits)> = users.by_ref().take(FLUSH_USERS).collect();
            if batch.is_empty() {
                break;
            }
            self.is_in_log |= batch.iter().any(|(_, edits)| edits.forgotten_ms.is_some());
            let begun = Instant::now();
            crowded.extend(self.settle(batch).await?);
            // Half of the time the one writer, and the core, are for others; unless someone waits for this to end.
            if !stop.is_cancelled() && !ledger.is_wanted() && !ledger.memory.is_full() {
                tokio::select! {
                    () = sleep(begun.elapsed()) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        drop(users);
        let sequence = handover.sealed.sequence;
        ledger.db.change_viewers(move |viewers| viewers.set_sequence(sequence)).await?;
        ledger.memory.drop_sealed();
        // Later ones are removed with it, if this fails.
        self.settled = Some(handover.sealed);
        let number = *number;
        self.unsettled = None;
        self.clear_up().await?;
        ledger.flush_done.send_replace(number);
        for (user, period) in crowded {
            self.pack_crowded(user, period).await?;
        }
        Ok(())
    }

    /// Removes what is in the database from everywhere else.
    async fn clear_up(&mut self) -> Result<(), FlushError> {
        if let Some(sealed) = self.settled {
            let dir = self.ledger.journal_dir.clone();
            spawn_blocking(move || sealed.remove(&dir)).await.map_err(DbError::from)??;
            self.settled = None;
        }
        if self.is_in_log {
            self.is_in_log = !self.truncate_log().await?;
        }
        Ok(())
    }

    async fn settle(&self, batch: Vec<(UserId, Edits)>) -> Result<Vec<(UserId, u64)>, DbError> {
        let gap_ms = millis(self.ledger.config.view_gap);
        let count = batch.len();
        let crowded = self.ledger.db.change_viewers(move |viewers| {
            let mut crowded = Vec::new();
            for (user, edits) in batch {
                let periods = settle::settle(viewers, &user, edits, gap_ms)?;
                crowded.extend(periods.into_iter().map(|period| (user.clone(), period)));
            }
            Ok(crowded)
        });
        let crowded = crowded.await?;
        self.ledger.counters.flushed(count);
        Ok(crowded)
    }

    /// Someone was erased, and is to leave the write-ahead log too. False if that has to wait for the next flush.
    async fn truncate_log(&self) -> Result<bool, DbError> {
        for _ in 0..TRUNCATE_ATTEMPTS {
            if self.ledger.db.truncate_log().await? {
                return Ok(true);
            }
            sleep(TRUNCATE_PAUSE).await;
        }
        tracing::warn!(
            "someone reads from the database all the time, as a backup does: what was erased stays in its log for now"
        );
        Ok(false)
    }

    /// Packs the views of some users. False when there are no more for now.
    async fn pack(&mut self, now_ms: u64) -> Result<bool, DbError> {
        let config = &self.ledger.config;
        let (what, after) = self.place.take().unwrap_or((Due::Packing, None));
        let before_ms = now_ms.saturating_sub(millis(match what {
            Due::Packing => config.live_for,
            Due::Dropping => config.keep_for,
        }));
        let due = self.ledger.db.viewers_due(what, period_of(before_ms), after, PACK_USERS).await?;
        self.place = match (due.last(), what) {
            (Some(last), _) => Some((what, Some(last.clone()))),
            (None, Due::Packing) => Some((Due::Dropping, None)),
            (None, Due::Dropping) => None,
        };
        let packed = match self.pack_users(what, due.clone(), before_ms).await {
            Ok(packed) => packed,
            // One of them cannot be packed: the others are.
            Err(_) => {
                let mut packed = 0;
                for user in due {
                    let name = user.1.clone();
                    packed += self.pack_users(what, vec![user], before_ms).await.unwrap_or_else(|error| {
                        tracing::error!(%error, user = %name, "a viewer's old views cannot be packed");
                        0
                    });
                }
                packed
            }
        };
        self.ledger.counters.packed(packed);
        if self.place.is_none() {
            let before_ms = now_ms.saturating_sub(millis(EVENT_AGE_MAX));
            self.ledger.db.change_viewers(move |viewers| viewers.drop_forgotten_before(before_ms)).await?;
            self.ledger.memory.drop_forgotten_before(before_ms);
        }
        Ok(self.place.is_some())
    }

    async fn pack_users(&self, what: Due, due: Vec<DuePlace>, before_ms: u64) -> Result<u64, DbError> {
        let gap_ms = millis(self.ledger.config.view_gap);
        let packed = self.ledger.db.change_viewers(move |viewers| {
            let mut packed = 0;
            for (period, user) in &due {
                let viewer = viewers.viewer(user);
                match what {
                    Due::Packing => packed += settle::pack_period(&viewer, *period, before_ms, gap_ms)?,
                    Due::Dropping => settle::drop_period(&viewer, *period)?,
                }
            }
            Ok(packed)
        });
        packed.await
    }

    /// Packs views of a user who has too many live ones: all but those that may be going on.
    async fn pack_crowded(&self, user: UserId, period: u64) -> Result<(), DbError> {
        let gap_ms = millis(self.ledger.config.view_gap);
        let packed = self.ledger.db.change_viewers(move |viewers| {
            let viewer = viewers.viewer(&user);
            let newest_ms = viewer.views()?.iter().map(|view| view.last_ms).max().unwrap_or(0);
            settle::pack_period(&viewer, period, newest_ms.saturating_sub(gap_ms), gap_ms)
        });
        self.ledger.counters.packed(packed.await?);
        Ok(())
    }
}

impl Ledger {
    /// Whether someone waits for a flush that is not done.
    fn is_wanted(&self) -> bool {
        self.flush_wanted.load(Ordering::SeqCst) > *self.flush_done.borrow()
    }
}

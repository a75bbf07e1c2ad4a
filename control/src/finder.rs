//! Search over the catalogue: keeps the index beside it, and asks it within bounds.
//!
//! Knows no HTTP and no SQL. What is catalogued is true, and the index follows: a title that changed is noted by its id, and the one
//! task that writes the index reads the title as it is now and applies that, so neither the order of notes nor a lost one matters
//! for long. At start, and whenever the index had to be replaced, every title's stamp is compared with the index's; whatever a crash
//! between database and index left differs and is brought over. Until that has been done answers are marked as not whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use search::{Answer, Change, Document, Index, IndexError, Opened, Query, SearchError};
use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinError, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use wire::title::TitleId;

use crate::{
    catalogue::{Entry, Summary},
    db::{Db, DbError},
    resilience::{
        dependency::{Dependency, Unavailable},
        waits::Waits,
    },
};

/// Searches that wait for one of as many as there are cores; one more is turned away.
const WAITING_MAX: usize = 256;
/// Titles that are compared, read and applied at a time.
const BATCH: u32 = 1000;
/// The time between two batches of changes, so that many publications at once are a few commits.
const APPLY_EVERY: Duration = Duration::from_millis(100);
/// Titles that are noted one by one; when more changed, all are compared.
const NOTED_MAX: usize = 100_000;
/// The time until what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The index, and what is to be brought to it.
pub(crate) struct Finder {
    /// Where the index is kept, if it can be.
    dir: PathBuf,
    index: RwLock<Arc<Index>>,
    /// Whether the index had everything of the catalogue since control started.
    is_whole: AtomicBool,
    noted: Mutex<Noted>,
    /// How many of those that were noted are being brought over.
    applying: AtomicU64,
    wake: Notify,
    popularity: Mutex<Arc<HashMap<TitleId, f32>>>,
    /// From a question to its answer, waiting included.
    timeout: Duration,
    running: Arc<Semaphore>,
    /// What stands between requests and the index.
    guard: Dependency,
    /// From when a search is asked for until it begins.
    waits: Arc<Waits>,
    is_rebuilding: AtomicBool,
    rebuilt: AtomicU64,
    replaced: AtomicU64,
    applied: AtomicU64,
}

/// What may differ between catalogue and index.
#[derive(Debug, Default)]
struct Noted {
    ids: BTreeSet<TitleId>,
    everything: bool,
    /// Whether everything is brought over, even what does not seem to differ.
    anew: bool,
}

/// What may be said of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) titles: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) is_whole: bool,
    pub(crate) is_kept: bool,
    pub(crate) is_rebuilding: bool,
    /// Titles that changed and are not applied yet.
    pub(crate) noted: u64,
    /// Since control started: titles that were applied, times that the index was made anew for an operator, and indexes that failed.
    pub(crate) applied: u64,
    pub(crate) rebuilt: u64,
    pub(crate) replaced: u64,
}

/// Why a search has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFound {
    /// The cursor belongs to another search.
    #[error(transparent)]
    Refused(SearchError),
    /// Too many searches are there already.
    #[error("more searches wait than can be answered in time")]
    Busy,
    /// The index cannot be asked, now or for a while.
    #[error("search fails: {0}")]
    Failing(#[from] SearchFault),
}

/// How a search failed, if it was asked at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchFault {
    #[error(transparent)]
    Unreadable(SearchError),
    #[error("a search did not end: {0}")]
    Stopped(#[from] JoinError),
    #[error("it failed lately")]
    LeftAlone,
}

impl From<Unavailable<SearchFault>> for NotFound {
    fn from(unavailable: Unavailable<SearchFault>) -> Self {
        match unavailable {
            Unavailable::Full(_) | Unavailable::Late(..) => Self::Busy,
            Unavailable::Broken(_) => SearchFault::LeftAlone.into(),
            Unavailable::Failed(fault) => fault.into(),
        }
    }
}

impl Finder {
    /// Opens the index in `dir`, or makes an empty one: in memory where the directory cannot be used.
    pub(crate) async fn open(dir: PathBuf, timeout: Duration) -> Result<Self, IndexError> {
        let folder = dir.clone();
        let index = spawn_blocking(move || opened(&folder))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            dir,
            index: RwLock::new(Arc::new(index)),
            is_whole: AtomicBool::new(false),
            noted: Mutex::new(Noted { everything: true, ..Noted::default() }),
            applying: AtomicU64::new(0),
            wake: Notify::new(),
            popularity: Mutex::default(),
            timeout,
            running: Arc::new(Semaphore::new(cores)),
            guard: Dependency::new("search", timeout, cores + WAITING_MAX),
            waits: Arc::default(),
            is_rebuilding: AtomicBool::new(false),
            rebuilt: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            applied: AtomicU64::new(0),
        })
    }

    /// Notes that a title was catalogued, changed or removed.
    pub(crate) fn changed(&self, id: &TitleId) {
        self.noted.lock().add([id.clone()]);
        self.wake.notify_one();
    }

    /// Notes that every title is to be brought to the index anew, whether or not it seems to differ.
    pub(crate) fn rebuild(&self) {
        let mut noted = self.noted.lock();
        (noted.everything, noted.anew) = (true, true);
        self.is_rebuilding.store(true, Ordering::Release);
        drop(noted);
        self.wake.notify_one();
    }

    /// Takes how popular titles are: any scores, of which only the order counts. Until the first time all are the same.
    pub(crate) async fn set_popularity(&self, scores: Arc<HashMap<TitleId, f32>>) -> Result<(), JoinError> {
        *self.popularity.lock() = Arc::clone(&scores);
        let index = self.index();
        spawn_blocking(move || rank(&index, &scores)).await
    }

    /// Answers `query`, whose deadline is set here.
    pub(crate) async fn search(&self, mut query: Query) -> Result<Answer, NotFound> {
        let asked = Instant::now();
        query.until = asked + self.timeout;
        let (index, waits) = (self.index(), Arc::clone(&self.waits));
        let turn = Arc::clone(&self.running).acquire_owned();
        let answered = self.guard.call_in_turn(turn, async move |turn| {
            let turn = turn.expect("the semaphore is never closed");
            let answer = spawn_blocking(move || {
                let _turn = turn;
                waits.add(asked.elapsed());
                index.search(&query)
            });
            match answer.await? {
                // Whoever asks wrongly says nothing about search.
                Err(error @ SearchError::OtherSearch) => Ok(Err(NotFound::Refused(error))),
                Err(error) => Err(SearchFault::Unreadable(error)),
                Ok(answer) => Ok(Ok(answer)),
            }
        });
        let answer = answered.await??;
        Ok(Answer { whole: answer.whole && self.is_whole.load(Ordering::Acquire), ..answer })
    }

    /// How long searches waited before they began, at least, since this was asked last.
    pub(crate) fn take_shortest_wait(&self) -> Duration {
        self.waits.take_shortest()
    }

    /// What stands between requests and the index.
    pub(crate) fn dependency(&self) -> &Dependency {
        &self.guard
    }

    /// Keeps the index up to date until `stop`.
    pub(crate) async fn run(&self, db: &Db, stop: CancellationToken) {
        let mut target = self.index();
        while !stop.is_cancelled() {
            let noted = std::mem::take(&mut *self.noted.lock());
            let pause = if noted.everything || !noted.ids.is_empty() {
                if noted.anew && !target.is_kept() {
                    target = self.reopened().await.unwrap_or(target);
                }
                match self.bring(db, &target, &noted).await {
                    Ok(()) => {
                        self.show(&target, noted.everything).await;
                        if noted.anew {
                            self.end_rebuild();
                        }
                        APPLY_EVERY
                    }
                    Err(failure) => {
                        tracing::warn!(%failure, "the search index does not follow the catalogue; it is tried again");
                        self.noted.lock().add_back(noted);
                        if let Failure::Index(_) = failure
                            && let Some(replacement) = self.replacement().await
                        {
                            let failed = std::mem::replace(&mut target, replacement);
                            // Whoever lets go of an index last waits for its merges.
                            drop(spawn_blocking(move || drop(failed)));
                        }
                        RETRY
                    }
                }
            } else {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = stop.cancelled() => {}
                }
                continue;
            };
            // A cancelled pause ends the loop.
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// Another index in place of one that does not take changes any more; it is filled before anyone asks it.
    async fn replacement(&self) -> Option<Arc<Index>> {
        match spawn_blocking(Index::in_memory).await {
            Ok(Ok(index)) => {
                tracing::warn!("the search index is made anew in memory, where it stays until the next start");
                self.replaced.fetch_add(1, Ordering::Relaxed);
                self.noted.lock().everything = true;
                Some(Arc::new(index))
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "there can be no search index in memory either");
                None
            }
            Err(error) => {
                tracing::error!(%error, "making a search index did not end");
                None
            }
        }
    }

    /// The index in the directory again, if it can be there now.
    async fn reopened(&self) -> Option<Arc<Index>> {
        let dir = self.dir.clone();
        match spawn_blocking(move || Index::open(&dir)).await {
            Ok(Ok((index, _))) => Some(Arc::new(index)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the search index stays in memory");
                None
            }
            Err(error) => {
                tracing::error!(%error, "opening the search index did not end");
                None
            }
        }
    }

    fn end_rebuild(&self) {
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
        // Unless it was asked for once more.
        let noted = self.noted.lock();
        self.is_rebuilding.store(noted.anew, Ordering::Release);
    }

    /// From now on `target` is asked, and has everything if it was compared.
    async fn show(&self, target: &Arc<Index>, compared: bool) {
        if !Arc::ptr_eq(target, &self.index()) {
            let before = std::mem::replace(&mut *self.index.write(), Arc::clone(target));
            // After that, so that a snapshot which comes meanwhile is ranked here or there.
            let (target, scores) = (Arc::clone(target), Arc::clone(&self.popularity.lock()));
            let ranked = spawn_blocking(move || {
                rank(&target, &scores);
                drop(before);
            });
            if let Err(error) = ranked.await {
                tracing::error!(%error, "popularity is not known to the search index until its next snapshot");
            }
        }
        if compared && !self.is_whole.swap(true, Ordering::AcqRel) {
            tracing::info!(titles = target.titles(), bytes = target.bytes(), "the search index has the whole catalogue");
        }
    }

    async fn bring(&self, db: &Db, target: &Arc<Index>, noted: &Noted) -> Result<(), Failure> {
        if noted.everything {
            self.compare(db, target, noted.anew).await?;
        }
        self.bring_ids(db, target, &noted.ids).await
    }

    async fn bring_ids(&self, db: &Db, target: &Arc<Index>, ids: &BTreeSet<TitleId>) -> Result<(), Failure> {
        let ids: Vec<TitleId> = ids.iter().cloned().collect();
        self.applying.store(ids.len() as u64, Ordering::Relaxed);
        let brought = async {
            for ids in ids.chunks(BATCH as usize) {
                self.apply(target, changes(db, ids.to_vec()).await?).await?;
            }
            Ok(())
        };
        let brought = brought.await;
        self.applying.store(0, Ordering::Relaxed);
        brought
    }

    /// Brings over what was noted while everything is compared, which may take long.
    async fn follow(&self, db: &Db, target: &Arc<Index>) -> Result<(), Failure> {
        let ids = std::mem::take(&mut self.noted.lock().ids);
        let brought = self.bring_ids(db, target, &ids).await;
        if brought.is_err() {
            self.noted.lock().add(ids);
        }
        brought
    }

    /// Brings over every title whose stamp differs, or every title.
    async fn compare(&self, db: &Db, target: &Arc<Index>, anew: bool) -> Result<(), Failure> {
        let index = Arc::clone(target);
        let mut there: BTreeMap<String, u64> = spawn_blocking(move || index.stamps()).await??;
        let (mut after, mut brought) = (None, 0);
        loop {
            let page = db.stamps(after, BATCH).await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(last.clone());
            let differs = |(id, stamp): (TitleId, u64)| (there.remove(id.as_str()) != Some(stamp) || anew).then_some(id);
            let differing: Vec<TitleId> = page.into_iter().filter_map(differs).collect();
            brought += differing.len();
            if !differing.is_empty() {
                self.apply(target, changes(db, differing).await?).await?;
            }
            self.follow(db, target).await?;
        }
        brought += there.len();
        // What was not found is gone, or was catalogued again meanwhile.
        let (mut ids, mut alien) = (BTreeSet::new(), Vec::new());
        for id in there.into_keys() {
            match id.parse() {
                Ok(id) => drop(ids.insert(id)),
                Err(_) => alien.push(Change::Remove(id)),
            }
        }
        self.bring_ids(db, target, &ids).await?;
        if !alien.is_empty() {
            self.apply(target, alien).await?;
        }
        if anew || brought >= BATCH as usize {
            let index = Arc::clone(target);
            if let Err(error) = spawn_blocking(move || index.compact()).await? {
                tracing::warn!(%error, "the search index has more segments than it could have");
            }
        }
        tracing::debug!(brought, "catalogue and search index compared");
        Ok(())
    }

    async fn apply(&self, target: &Arc<Index>, changes: Vec<Change>) -> Result<(), Failure> {
        let (index, count) = (Arc::clone(target), changes.len());
        spawn_blocking(move || index.apply(changes)).await??;
        self.applied.fetch_add(count as u64, Ordering::Relaxed);
        Ok(())
    }

    fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read())
    }

    /// The index as of now.
    pub(crate) fn state(&self) -> State {
        let (index, noted) = (self.index(), self.noted.lock().ids.len() as u64);
        State {
            titles: index.titles(),
            segments: index.segments() as u64,
            bytes: index.bytes() as u64,
            is_whole: self.is_whole.load(Ordering::Acquire),
            is_kept: index.is_kept(),
            is_rebuilding: self.is_rebuilding.load(Ordering::Acquire),
            noted: noted + self.applying.load(Ordering::Relaxed),
            rebuilt: self.rebuilt.load(Ordering::Relaxed),
            applied: self.applied.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
        }
    }
}

/// The index in `dir`, whatever is there now.
fn opened(dir: &Path) -> Result<Index, IndexError> {
    match Index::open(dir) {
        Ok((index, Opened::Kept)) => Ok(index),
        Ok((index, Opened::Created)) => {
            tracing::info!(dir = %dir.display(), "the search index is made from the catalogue");
            Ok(index)
        }
        Ok((index, Opened::Replaced(why))) => {
            tracing::warn!(dir = %dir.display(), why, "the search index is made anew from the catalogue");
            Ok(index)
        }
        Err(error) => {
            tracing::warn!(%error, "the search index is kept in memory until the next start");
            Index::in_memory()
        }
    }
}

impl Noted {
    fn add(&mut self, ids: impl IntoIterator<Item = TitleId>) {
        self.ids.extend(ids);
        if self.ids.len() > NOTED_MAX {
            self.ids.clear();
            self.everything = true;
        }
    }

    /// Notes again what could not be brought over.
    fn add_back(&mut self, noted: Self) {
        self.add(noted.ids);
        self.everything |= noted.everything;
        self.anew |= noted.anew;
    }
}

fn rank(index: &Index, scores: &HashMap<TitleId, f32>) {
    index.set_popularity(scores.iter().map(|(id, score)| (id.as_str(), *score)));
}

/// What the index must be told of `ids`: how they are catalogued now, or that they are not.
async fn changes(db: &Db, ids: Vec<TitleId>) -> Result<Vec<Change>, DbError> {
    let titles = db.titles(ids.clone()).await?;
    let change = |(id, title): (TitleId, Option<Entry>)| match title {
        Some(title) => Change::Put(Box::new(document(title.summary))),
        None => Change::Remove(id.to_string()),
    };
    Ok(ids.into_iter().zip(titles).map(change).collect())
}

/// A title, as search knows it.
fn document(title: Summary) -> Document {
    Document {
        id: title.id.to_string(),
        stamp: title.stamp,
        title: title.title,
        description: title.description,
        cast: title.cast,
        genres: title.genres,
        year: title.year,
        language: title.language,
        kind: title.kind.map(|kind| kind.to_string()),
        created_at_ms: title.created_at_ms,
    }
}

/// Why the index does not follow.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("a task did not end: {0}")]
    Stopped(#[from] JoinError),
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use search::{Filters, Sort};
    use tokio::time::{sleep, timeout};
    use wire::title::Title;

    use super::*;
    use crate::catalogue::tests::title;

    const LONG: Duration = Duration::from_secs(60);

    fn query(text: &str) -> Query {
        let filters = Filters::default();
        Query { text: text.into(), filters, sort: Sort::Relevance, after: None, limit: 10, facets: false, until: Instant::now() }
    }

    async fn put(db: &Db, id: &str, name: &str) {
        db.put_title(Title { title: name.into(), ..title(id) }, 1, None).await.unwrap();
    }

    /// Waits until the index is as wanted; nothing outside of it says when.
    async fn until(finder: &Finder, wanted: impl Fn(&State) -> bool) {
        let waited = async {
            while !wanted(&finder.state()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, waited).await.unwrap_or_else(|_| panic!("{:?}", finder.state()));
    }

    #[tokio::test]
    async fn an_index_that_cannot_be_written_is_made_anew_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        put(&db, "one", "The Night Agent").await;
        let finder = Arc::new(Finder::open(dir.path().join("search"), LONG).await.unwrap());
        assert!(!finder.search(query("night")).await.unwrap().whole, "nothing was compared yet");
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (finder, db, stop) = (Arc::clone(&finder), db.clone(), stop.clone());
            async move { finder.run(&db, stop).await }
        });
        until(&finder, |state| state.is_whole && state.titles == 1).await;
        finder.set_popularity(Arc::new(HashMap::from([("two".parse().unwrap(), 1.0)]))).await.unwrap();

        std::fs::remove_dir_all(dir.path().join("search")).unwrap();
        put(&db, "two", "Night Shift").await;
        finder.changed(&"two".parse().unwrap());
        until(&finder, |state| state.replaced == 1 && state.titles == 2 && state.noted == 0).await;
        let answer = finder.search(query("nihgt")).await.unwrap();
        assert_eq!((answer.ids, answer.whole), (vec!["two".to_owned(), "one".to_owned()], true), "and popularity is still known");
        assert!(!finder.state().is_kept);

        finder.rebuild();
        assert!(finder.state().is_rebuilding);
        until(&finder, |state| !state.is_rebuilding).await;
        let state = finder.state();
        assert_eq!((state.rebuilt, state.is_kept, state.titles), (1, true, 2), "the directory is good again");
        assert_eq!(finder.search(query("nihgt")).await.unwrap().ids, ["two", "one"]);
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn an_index_that_is_rebuilt_has_what_is_catalogued_even_where_stamps_say_so_already() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("control.db")).unwrap();
        put(&db, "one", "The Night Agent").await;
        let stamp = db.title("one".parse().unwrap()).await.unwrap().unwrap().summary.stamp;
        let (index, _) = Index::open(&dir.path().join("search")).unwrap();
        let wrong = |id: &str| Document { id: id.into(), stamp, title: "Wrong Words".into(), ..Document::default() };
        index.apply(["one", "gone"].map(|id| Change::Put(Box::new(wrong(id))))).unwrap();
        drop(index);
        let finder = Arc::new(Finder::open(dir.path().join("search"), LONG).await.unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (finder, db, stop) = (Arc::clone(&finder), db.clone(), stop.clone());
            async move { finder.run(&db, stop).await }
        });
        until(&finder, |state| state.is_whole).await;
        assert_eq!(finder.search(query("wrong words")).await.unwrap().ids, ["one"], "nothing shows that they are wrong");
        finder.rebuild();
        until(&finder, |state| !state.is_rebuilding).await;
        assert_eq!(finder.search(query("wrong words")).await.unwrap().found, 0);
        assert_eq!(finder.search(query("night agent")).await.unwrap().ids, ["one"]);
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_search_that_gets_no_turn_is_told_so_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let finder = Finder::open(dir.path().join("search"), Duration::from_millis(20)).await.unwrap();
        let all = u32::try_from(finder.running.available_permits()).unwrap();
        let held = Arc::clone(&finder.running).acquire_many_owned(all).await.unwrap();
        assert!(matches!(finder.search(query("night")).await, Err(NotFound::Busy)));
        let places = all as usize + WAITING_MAX;
        let mut crowd: Vec<_> =
            (0..places).map(|_| Box::pin(finder.guard.call(std::future::pending::<Result<(), SearchFault>>()))).collect();
        let mut context = Context::from_waker(Waker::noop());
        assert!(crowd.iter_mut().all(|waiting| waiting.as_mut().poll(&mut context).is_pending()));
        drop(held);
        assert!(matches!(finder.search(query("night")).await, Err(NotFound::Busy)), "one more does not even wait");
        drop(crowd);
        assert!(finder.search(query("night")).await.is_ok());
    }

    #[tokio::test]
    async fn a_search_that_fails_again_and_again_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let finder = Finder::open(dir.path().join("search"), LONG).await.unwrap();
        for _ in 0..100 {
            let failing = finder.guard.call(std::future::ready(Err::<(), _>(SearchFault::LeftAlone)));
            assert!(failing.await.is_err());
        }
        assert!(matches!(finder.search(query("night")).await, Err(NotFound::Failing(SearchFault::LeftAlone))));
    }

    #[test]
    fn when_too_much_changed_everything_is_compared() {
        let mut noted = Noted::default();
        noted.add((0..NOTED_MAX).map(|n| format!("t{n}").parse().unwrap()));
        assert!(noted.ids.len() == NOTED_MAX && !noted.everything);
        noted.add(["one-more".parse().unwrap()]);
        assert!(noted.ids.is_empty() && noted.everything);
    }
}

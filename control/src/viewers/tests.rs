//! The ledger as a whole, on real files: against a model, against a clock, against those who write while others forget.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    journal::SEGMENT_BYTES_MAX,
    pack::PERIOD_MS,
    record::tests::user,
    view::tests::{defined, sorted, title},
    *,
};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The beginning of a period.
const START_MS: u64 = 660 * PERIOD_MS;

/// A ledger in a directory of its own, whose task runs step by step.
struct Rig {
    dir: TempDir,
    ledger: Arc<Ledger>,
}

fn config() -> HistoryConfig {
    HistoryConfig { commit_every: Duration::ZERO, ..HistoryConfig::default() }
}

async fn open(dir: &Path, config: HistoryConfig) -> Arc<Ledger> {
    let db = Db::open(&dir.join("control.db")).unwrap();
    Arc::new(Ledger::open(db, dir, config, Counters::unseen()).await.unwrap())
}

impl Rig {
    async fn new(config: HistoryConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path(), config).await;
        Self { dir, ledger }
    }

    /// As if it was killed and started again.
    async fn restart(&mut self) {
        let config = self.ledger.config.clone();
        // The journal is let go before it is opened again.
        let other = tempfile::tempdir().unwrap();
        self.ledger = open(other.path(), config.clone()).await;
        self.ledger = open(self.dir.path(), config).await;
    }

    fn keeper(&self) -> Keeper<'_> {
        Keeper::new(&self.ledger)
    }

    async fn flush(&self) {
        self.keeper().flush(&CancellationToken::new()).await.unwrap();
    }

    /// Packs and drops whatever is due.
    async fn pack(&self, now_ms: u64) {
        let mut keeper = self.keeper();
        while keeper.pack(now_ms).await.unwrap() {}
    }

    async fn watch(&self, name: &str, what: &str, at_ms: u64, position_ms: u64) {
        self.ledger.watched(user(name), title(what), at_ms, position_ms, None).await.unwrap();
    }

    /// Where a viewer is by what she watched last: time and position.
    async fn stopped(&self, name: &str, what: &str) -> Option<(u64, u64)> {
        self.ledger.stopped(user(name), title(what)).await.unwrap().map(|view| view.last())
    }

    async fn history(&self, name: &str) -> Vec<View> {
        self.pages(name, 1000, async || ()).await
    }

    /// All pages of a viewer's history; between them something happens.
    async fn pages(&self, name: &str, limit: usize, mut between: impl AsyncFnMut()) -> Vec<View> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.ledger.history(user(name), after, limit).await.unwrap();
            let Some(last) = page.last() else { return all };
            after = Some(Place { ms: last.begun_ms, title: last.title.clone() });
            all.extend(page);
            between().await;
        }
    }

    fn counts(&self, table: &str) -> u64 {
        let db = rusqlite::Connection::open(self.dir.path().join("control.db")).unwrap();
        db.query_one(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0)).unwrap().into()
    }

    /// The files in which these bytes are.
    fn files_with(&self, bytes: &[u8]) -> Vec<String> {
        let mut folders = vec![self.dir.path().to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes) {
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }
}

fn keys(views: &[View]) -> Vec<(u64, String)> {
    views.iter().map(|view| (view.begun_ms, view.title.to_string())).collect()
}

fn newest_first(mut views: Vec<View>) -> Vec<View> {
    views.sort_by(|a, b| (b.begun_ms, &b.title).cmp(&(a.begun_ms, &a.title)));
    views
}

#[derive(Debug, Clone)]
enum Step {
    Watch { user: usize, title: usize, at_ms: u64, position_ms: u64 },
    Rate { user: usize, title: usize, opinion: u8 },
    Hide { user: usize, title: usize },
    Forget { user: usize },
    Flush,
    Pack { day: u64 },
    Restart,
}

const USERS: [&str; 2] = ["alice", "bob/kids"];
const TITLES: [&str; 3] = ["a", "b-s01e01", "b-s01e02"];
const DAYS: u64 = 80;

fn step() -> impl Strategy<Value = Step> {
    let (who, what) = (0..USERS.len(), 0..TITLES.len());
    // In a few nights, so that what comes late touches what is packed, or stands beside it; in some of them a period ends.
    let at_ms = (0..DAYS / 10, 0..6_u64).prop_map(|(day, n)| START_MS + day * 10 * DAY_MS + n * 2 * HOUR_MS - 5 * HOUR_MS);
    prop_oneof![
        20 => (who.clone(), what.clone(), at_ms, 0..5_u64)
            .prop_map(|(user, title, at_ms, position_ms)| Step::Watch { user, title, at_ms, position_ms }),
        3 => (who.clone(), what.clone(), 0..3_u8).prop_map(|(user, title, opinion)| Step::Rate { user, title, opinion }),
        1 => (who.clone(), what).prop_map(|(user, title)| Step::Hide { user, title }),
        1 => who.prop_map(|user| Step::Forget { user }),
        3 => Just(Step::Flush),
        3 => (30..DAYS + 40).prop_map(|day| Step::Pack { day }),
        1 => Just(Step::Restart),
    ]
}

/// What a viewer did, as the definitions have it.
#[derive(Default)]
struct Model {
    events: Vec<View>,
    opinions: BTreeMap<&'static str, (u64, Opinion)>,
    hidden: BTreeMap<&'static str, u64>,
}

impl Model {
    fn views(&self) -> Vec<View> {
        defined(self.events.clone(), 4 * HOUR_MS)
    }

    fn stopped(&self, what: &str) -> Option<(u64, u64)> {
        self.events.iter().filter(|event| event.title.as_str() == what).map(View::last).max()
    }

    fn likes(&self) -> Vec<(u64, &'static str)> {
        let likes = self.opinions.iter().filter(|(_, (_, opinion))| *opinion == Opinion::Like);
        let mut likes: Vec<_> = likes.map(|(title, (at_ms, _))| (*at_ms, *title)).collect();
        likes.sort_unstable_by(|a, b| b.cmp(a));
        likes
    }

    fn stopped_lately(&self, since_ms: u64) -> Vec<(u64, &'static str)> {
        let stopped = TITLES.iter().filter_map(|title| Some((self.stopped(title)?.0, *title)));
        let shown = |(at_ms, title): &(u64, &'static str)| {
            *at_ms >= since_ms && self.hidden.get(title).is_none_or(|hidden| hidden < at_ms)
        };
        let mut shown: Vec<_> = stopped.filter(shown).collect();
        shown.sort_unstable_by(|a, b| b.cmp(a));
        shown
    }
}

async fn compare(rig: &Rig, models: &[Model], page: usize) {
    for (name, model) in USERS.iter().zip(models) {
        let history = rig.pages(name, page, async || ()).await;
        assert_eq!(history, newest_first(model.views()), "{name}'s history");
        for what in TITLES {
            assert_eq!(rig.stopped(name, what).await, model.stopped(what), "{name} in {what}");
            let mark = rig.ledger.opinion(user(name), title(what)).await.unwrap();
            let expected = model.opinions.get(what).map_or(Opinion::None, |(_, opinion)| *opinion);
            assert_eq!(mark.opinion, expected, "{name} of {what}");
        }
        let (mut likes, mut after) = (Vec::new(), None);
        while let Some(mark) = rig.ledger.opinions(user(name), Opinion::Like, after, 1).await.unwrap().pop() {
            after = Some(Place { ms: mark.opinion_ms, title: mark.title.clone() });
            likes.push((mark.opinion_ms, mark.title));
        }
        let likes: Vec<_> = likes.iter().map(|(at_ms, title)| (*at_ms, title.as_str())).collect();
        assert_eq!(likes, model.likes(), "{name} likes");
        let now_ms = START_MS + DAYS * DAY_MS;
        let lately = rig.ledger.stopped_lately(user(name), None, now_ms).await.unwrap();
        let lately: Vec<_> = lately.iter().map(|view| (view.last_ms, view.title.as_str())).collect();
        assert_eq!(lately, model.stopped_lately(now_ms - millis(rig.ledger.config.continue_for)), "{name} goes on with");
        let everything = rig.ledger.everything(user(name)).await.unwrap();
        assert_eq!(sorted(everything.views), model.views());
        let marked: BTreeSet<_> = model.opinions.keys().chain(model.hidden.keys()).copied().collect();
        assert_eq!(everything.marks.iter().map(|mark| mark.title.as_str()).collect::<Vec<_>>(), Vec::from_iter(marked));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whatever is flushed, packed or restarted when: reads are what the definitions say of what was acknowledged.
    #[test]
    fn reads_are_as_defined_whatever_is_where(steps in prop::collection::vec(step(), 1..60), page in 1..4_usize) {
        Runtime::new().unwrap().block_on(async {
            let continue_for = Duration::from_secs(40 * 86_400);
            let mut rig = Rig::new(HistoryConfig { continue_for, ..config() }).await;
            let mut models = [const { Model { events: Vec::new(), opinions: BTreeMap::new(), hidden: BTreeMap::new() } }; 2];
            // What is said and forgotten has server's times, which go on; they are of the same days as the events.
            let mut now_ms = START_MS;
            // What packing takes for now, which is further on: what is too old by that is not let in.
            let mut refused_before_ms = 0;
            for step in steps {
                now_ms += DAYS * DAY_MS / 100;
                match step {
                    Step::Watch { at_ms, .. } if at_ms < refused_before_ms => {}
                    Step::Watch { user, title: what, at_ms, position_ms } => {
                        // What is from before she was forgotten does not count.
                        let from_before = rig.ledger.memory.is_forgotten(&record::tests::user(USERS[user]), at_ms);
                        rig.watch(USERS[user], TITLES[what], at_ms, position_ms).await;
                        if !from_before {
                            models[user].events.push(View::at(title(TITLES[what]), at_ms, position_ms, None));
                        }
                    }
                    Step::Rate { user: who, title: what, opinion } => {
                        let opinion = Opinion::of_code(opinion).unwrap();
                        rig.ledger.rated(user(USERS[who]), title(TITLES[what]), now_ms, opinion).await.unwrap();
                        models[who].opinions.insert(TITLES[what], (now_ms, opinion));
                    }
                    Step::Hide { user: who, title: what } => {
                        rig.ledger.hidden(user(USERS[who]), title(TITLES[what]), now_ms).await.unwrap();
                        // By her player's clock, where that is ahead.
                        let stopped_ms = models[who].stopped(TITLES[what]).map_or(0, |(at_ms, _)| at_ms);
                        models[who].hidden.insert(TITLES[what], now_ms.max(stopped_ms));
                    }
                    Step::Forget { user: who } => {
                        let change = Change::Forgotten { at_ms: now_ms };
                        rig.ledger.keep(Record { user: user(USERS[who]), change }).await.unwrap();
                        models[who] = Model::default();
                    }
                    Step::Flush => rig.flush().await,
                    Step::Pack { day } => {
                        let packed_ms = START_MS + day * DAY_MS;
                        refused_before_ms = refused_before_ms.max(packed_ms.saturating_sub(millis(EVENT_AGE_MAX)));
                        rig.pack(packed_ms).await;
                    }
                    Step::Restart => rig.restart().await,
                }
            }
            compare(&rig, &models, page).await;
            rig.flush().await;
            compare(&rig, &models, page).await;
            rig.pack(START_MS + 200 * DAY_MS).await;
            assert_eq!(rig.counts("views"), 0, "all is packed");
            compare(&rig, &models, page).await;
            rig.restart().await;
            compare(&rig, &models, page).await;
        });
    }

    /// Pages neither repeat nor skip while views come, are extended, flushed and packed.
    #[test]
    fn pages_are_stable_while_the_rest_goes_on(
        hours in prop::collection::vec((0..DAYS * 24, 0..TITLES.len()), 1..40),
        page in 1..5_usize,
        between in prop::collection::vec(0..4_usize, 1..10),
    ) {
        Runtime::new().unwrap().block_on(async {
            let rig = Rig::new(config()).await;
            for (n, (hour, what)) in hours.into_iter().enumerate() {
                rig.watch("alice", TITLES[what], START_MS + hour * HOUR_MS, n as u64).await;
                if n % 10 == 5 {
                    rig.flush().await;
                }
            }
            let before = keys(&rig.history("alice").await);
            let mut between = between.into_iter().cycle();
            let mut now_ms = START_MS + DAYS * DAY_MS;
            let paged = rig
                .pages("alice", page, async || {
                    now_ms += HOUR_MS;
                    match between.next() {
                        Some(0) => rig.flush().await,
                        Some(1) => rig.pack(now_ms).await,
                        // The first makes a view, the others extend it.
                        Some(2) => rig.watch("alice", "b-s01e02", now_ms, 7).await,
                        _ => rig.watch("alice", "new", now_ms, 8).await,
                    }
                })
                .await;
            assert_eq!(keys(&paged), before);
        });
    }
}

#[tokio::test]
async fn an_older_event_changes_nothing_wherever_the_newer_one_is() {
    let mut rig = Rig::new(config()).await;
    let at_ms = START_MS + DAY_MS;
    rig.watch("alice", "a", at_ms, 500).await;
    for _ in 0..4 {
        rig.watch("alice", "a", at_ms - MINUTE_MS, 900).await;
        rig.watch("alice", "a", at_ms, 499).await;
        assert_eq!(rig.stopped("alice", "a").await, Some((at_ms, 500)));
        rig.flush().await;
        rig.restart().await;
        rig.pack(START_MS + 100 * DAY_MS).await;
    }
    rig.watch("alice", "a", at_ms, 501).await;
    assert_eq!(rig.stopped("alice", "a").await, Some((at_ms, 501)), "of two at one time the further one wins, also over a pack");
    rig.watch("alice", "a", at_ms + 1, 3).await;
    assert_eq!(rig.stopped("alice", "a").await, Some((at_ms + 1, 3)));
    assert_eq!(rig.history("alice").await.len(), 1);
}

#[test]
fn clocks_that_are_ahead_are_set_right_and_events_that_are_too_old_refused() {
    let skew = Duration::from_secs(120);
    let now_ms = START_MS;
    for (at_ms, expected) in [
        (now_ms, Some(now_ms)),
        (now_ms - 1, Some(now_ms - 1)),
        (now_ms + 120_000, Some(now_ms + 120_000)),
        (now_ms + 120_001, Some(now_ms)),
        (u64::MAX, Some(now_ms)),
        (now_ms - 90 * DAY_MS, Some(now_ms - 90 * DAY_MS)),
        (now_ms - 90 * DAY_MS - 1, None),
        (0, None),
    ] {
        assert_eq!(event_ms(at_ms, now_ms, skew), expected, "{at_ms}");
    }
}

#[tokio::test]
async fn who_is_forgotten_is_in_no_file_any_more() {
    let rig = Rig::new(config()).await;
    const WHO: &str = "someone-whose-name-is-easy-to-find";
    let stop = CancellationToken::new();
    let task = tokio::spawn(Arc::clone(&rig.ledger).run(|| START_MS + 60 * DAY_MS, stop.clone()));
    for day in 0..60 {
        rig.watch(WHO, "a", START_MS + day * DAY_MS, day).await;
        rig.watch("bob", "a", START_MS + day * DAY_MS, day).await;
        if day % 20 == 10 {
            rig.ledger.flushed().await;
            rig.pack(START_MS + 100 * DAY_MS).await;
        }
    }
    rig.ledger.rated(user(WHO), title("b"), START_MS, Opinion::Like).await.unwrap();
    assert!(!rig.files_with(WHO.as_bytes()).is_empty());
    rig.ledger.forget(user(WHO), START_MS + 60 * DAY_MS).await.unwrap();
    assert_eq!(rig.files_with(WHO.as_bytes()), Vec::<String>::new());
    assert_eq!(rig.ledger.everything(user(WHO)).await.unwrap(), Everything { views: vec![], marks: vec![] });
    assert_eq!(rig.history("bob").await.len(), 60);
    // What was on its way comes too late, also after a restart.
    rig.watch(WHO, "a", START_MS + 60 * DAY_MS, 1).await;
    assert_eq!(rig.stopped(WHO, "a").await, None);
    stop.cancel();
    task.await.unwrap();
    let mut rig = rig;
    rig.restart().await;
    rig.watch(WHO, "a", START_MS + 60 * DAY_MS, 1).await;
    assert_eq!(rig.stopped(WHO, "a").await, None);
    rig.watch(WHO, "a", START_MS + 60 * DAY_MS + 1, 2).await;
    assert_eq!(rig.stopped(WHO, "a").await, Some((START_MS + 60 * DAY_MS + 1, 2)));
    // Once what is so old is refused elsewhere, nobody has to know any more.
    rig.flush().await;
    assert_eq!(rig.counts("forgotten_users"), 1);
    rig.pack(START_MS + 151 * DAY_MS).await;
    assert_eq!(rig.counts("forgotten_users"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_written_while_someone_is_forgotten_only_what_came_after_is_left() {
    let rig = Rig::new(HistoryConfig { flush_every: Duration::from_millis(5), ..config() }).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(Arc::clone(&rig.ledger).run(|| START_MS, stop.clone()));
    // The moment at which she is forgotten moves on with what is written.
    let clock = Arc::new(AtomicU64::new(START_MS));
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let (ledger, clock) = (Arc::clone(&rig.ledger), Arc::clone(&clock));
            let what = ["a", "b", "c", "d", "e", "f", "g", "h"][n];
            tokio::spawn(async move {
                for _ in 0..200 {
                    let at_ms = clock.fetch_add(1, Ordering::SeqCst);
                    ledger.watched(user("alice"), title(what), at_ms, at_ms - START_MS, None).await.unwrap();
                }
            })
        })
        .collect();
    let mut forgotten_ms = 0;
    for _ in 0..5 {
        forgotten_ms = clock.fetch_add(1, Ordering::SeqCst);
        rig.ledger.forget(user("alice"), forgotten_ms).await.unwrap();
        let left = rig.ledger.everything(user("alice")).await.unwrap();
        assert!(left.views.iter().all(|view| view.begun_ms > forgotten_ms), "{left:?} after {forgotten_ms}");
    }
    for writer in writers {
        writer.await.unwrap();
    }
    stop.cancel();
    task.await.unwrap();
    let mut rig = rig;
    rig.restart().await;
    assert!(rig.history("alice").await.iter().all(|view| view.begun_ms > forgotten_ms));
}

#[tokio::test]
async fn what_the_database_does_not_take_stays_in_the_journal() {
    let mut rig = Rig::new(config()).await;
    rig.watch("alice", "a", START_MS, 1).await;
    let rename = |from: &str, to: &str| {
        let db = rusqlite::Connection::open(rig.dir.path().join("control.db")).unwrap();
        db.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), []).unwrap();
    };
    let mut keeper = rig.keeper();
    let stop = CancellationToken::new();
    rename("views_due", "away");
    keeper.flush(&stop).await.unwrap_err();
    rig.watch("alice", "b", START_MS, 2).await;
    assert_eq!(rig.stopped("alice", "a").await, Some((START_MS, 1)), "it is still seen");
    rename("away", "views_due");
    keeper.flush(&stop).await.unwrap();
    assert_eq!(rig.counts("views"), 1, "what was sealed");
    keeper.flush(&stop).await.unwrap();
    assert_eq!(rig.counts("views"), 2, "and what came since");
    drop(keeper);
    rename("views_due", "away");
    rig.watch("alice", "c", START_MS, 3).await;
    rig.keeper().flush(&stop).await.unwrap_err();
    rename("away", "views_due");
    rig.restart().await;
    assert_eq!(rig.stopped("alice", "c").await, Some((START_MS, 3)), "or it is replayed");
}

#[tokio::test]
async fn when_memory_is_full_writes_are_refused_until_the_database_has_caught_up() {
    let rig = Rig::new(HistoryConfig { unflushed_bytes_max: 4096, ..config() }).await;
    let write = async |n: u64| rig.ledger.watched(user(&format!("user-{n}")), title("a"), START_MS, n, None).await;
    let mut kept = 0;
    while !rig.ledger.memory.is_half_full() {
        write(kept).await.unwrap();
        kept += 1;
    }
    let mut keeper = rig.keeper();
    let handover = rig.ledger.committer.seal().await.unwrap().unwrap();
    keeper.unsettled = Some((1, handover));
    assert!(rig.ledger.committer.seal().await.unwrap().is_none(), "one at a time");
    while !rig.ledger.memory.is_full() {
        write(kept).await.unwrap();
        kept += 1;
    }
    assert_eq!(write(kept).await, Err(NotKept::MemoryFull));
    keeper.flush(&CancellationToken::new()).await.unwrap();
    write(kept).await.unwrap();
    for n in 0..=kept {
        assert_eq!(rig.stopped(&format!("user-{n}"), "a").await, Some((START_MS, n)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_wait_than_may_and_those_who_do_share_commits() {
    let rig = Rig::new(config()).await;
    let committer = &rig.ledger.committer;
    let stalled = rig.ledger.memory.stall();
    let mut waiting = Vec::new();
    loop {
        let at_ms = START_MS + waiting.len() as u64;
        let mut write = Box::pin(committer.keep(record::tests::watched("alice", "a", at_ms, at_ms)));
        // Asked once, it waits or is refused.
        match write.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => {
                assert_eq!(outcome, Err(NotKept::QueueFull));
                break;
            }
            Poll::Pending => waiting.push(write),
        }
    }
    // Some had left the queue to be committed before memory stalled that.
    let may = commit::WAITING_MAX..=commit::WAITING_MAX + journal::FRAME_RECORDS_MAX;
    assert!(may.contains(&waiting.len()), "{}", waiting.len());
    drop(stalled);
    let last_ms = START_MS + waiting.len() as u64 - 1;
    for write in waiting {
        write.await.unwrap();
    }
    assert_eq!(rig.stopped("alice", "a").await, Some((last_ms, last_ms)));
    assert!(rig.ledger.counters.commits_synced() <= 12, "{}", rig.ledger.counters.commits_synced());
}

#[tokio::test]
async fn users_with_very_many_views_are_packed_early() {
    let rig = Rig::new(config()).await;
    for n in 0..1100 {
        // Far enough apart to be views of their own, and of one period.
        rig.watch("alice", &format!("t{n}"), START_MS + n * 60_000, n).await;
    }
    rig.flush().await;
    assert!(rig.counts("views") < 500, "{}", rig.counts("views"));
    assert!(rig.counts("view_packs") >= 2);
    assert_eq!(rig.history("alice").await.len(), 1100);
    assert_eq!(rig.stopped("alice", "t3").await, Some((START_MS + 3 * 60_000, 3)));
}

#[tokio::test]
async fn history_is_dropped_when_it_is_older_than_it_is_kept() {
    let rig = Rig::new(HistoryConfig { keep_for: Duration::from_secs(120 * 86_400), ..config() }).await;
    for day in 0..100 {
        rig.watch("alice", "a", START_MS + day * DAY_MS, day).await;
    }
    rig.flush().await;
    rig.pack(START_MS + 140 * DAY_MS).await;
    assert_eq!(rig.history("alice").await.len(), 100);
    assert_eq!((rig.counts("view_packs"), rig.counts("views"), rig.counts("views_due")), (3, 10, 4));
    rig.pack(START_MS + (120 + 60) * DAY_MS).await;
    let views = rig.history("alice").await;
    assert_eq!((views.len(), views.last().unwrap().begun_ms), (40, START_MS + 60 * DAY_MS));
    assert_eq!(rig.stopped("alice", "a").await, Some((START_MS + 99 * DAY_MS, 99)));
}

#[tokio::test]
async fn segments_are_bounded_and_go_once_they_are_in_the_database() {
    const { assert!(SEGMENT_BYTES_MAX < 1 << 30) };
    let rig = Rig::new(config()).await;
    let segments = || fs::read_dir(rig.dir.path().join("viewers")).unwrap().count() - 1;
    rig.watch("alice", "a", START_MS, 1).await;
    assert_eq!(segments(), 1);
    rig.flush().await;
    assert_eq!(segments(), 1, "the one that is written to");
    rig.flush().await;
    assert_eq!(rig.ledger.flush_begun.load(Ordering::SeqCst), 2);
    assert_eq!(fs::read_dir(rig.dir.path().join("viewers")).unwrap().count() - 1, 1, "nothing to flush, nothing begun");
}

#[tokio::test]
async fn nobody_is_told_to_be_forgotten_while_she_is_still_in_the_journal() {
    let rig = Rig::new(config()).await;
    let stop = CancellationToken::new();
    let mut keeper = rig.keeper();
    rig.watch("alice", "a", START_MS, 1).await;
    let forgotten = tokio::spawn({
        let ledger = Arc::clone(&rig.ledger);
        async move { ledger.forget(user("alice"), START_MS + 1).await }
    });
    while rig.ledger.flush_wanted.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // A segment that cannot be removed.
    let stuck = rig.dir.path().join("viewers").join(format!("{:016}.journal", 0));
    fs::create_dir(&stuck).unwrap();
    keeper.flush(&stop).await.unwrap_err();
    keeper.flush(&stop).await.unwrap_err();
    assert!(!forgotten.is_finished() && rig.ledger.is_wanted());
    fs::remove_dir(&stuck).unwrap();
    keeper.flush(&stop).await.unwrap();
    forgotten.await.unwrap().unwrap();
    assert_eq!(rig.files_with(b"alice"), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_database_has_leaves_the_journal_after_a_restart_too() {
    let mut rig = Rig::new(config()).await;
    rig.watch("alice", "a", START_MS, 1).await;
    // As if it was killed between telling the database and removing the segment.
    let sequence = rig.ledger.committer.seal().await.unwrap().unwrap().sealed.sequence;
    rig.ledger.db.change_viewers(move |viewers| viewers.set_sequence(sequence)).await.unwrap();
    rig.restart().await;
    assert_eq!(rig.files_with(b"alice").len(), 1, "in a segment");
    rig.flush().await;
    assert_eq!(rig.files_with(b"alice"), Vec::<String>::new());
}

#[tokio::test]
async fn the_last_word_counts_also_when_a_clock_was_set_back() {
    let rig = Rig::new(config()).await;
    let rate = async |now_ms, opinion| rig.ledger.rated(user("alice"), title("a"), now_ms, opinion).await.unwrap();
    let opinion = async || rig.ledger.opinion(user("alice"), title("a")).await.unwrap();
    rate(START_MS + 10, Opinion::Like).await;
    rig.flush().await;
    rate(START_MS, Opinion::Dislike).await;
    assert_eq!((opinion().await.opinion, opinion().await.opinion_ms), (Opinion::Dislike, START_MS + 11));
    rate(START_MS + 20, Opinion::None).await;
    assert_eq!((opinion().await.opinion, opinion().await.opinion_ms), (Opinion::None, START_MS + 20));

    let listed = async || rig.ledger.stopped_lately(user("alice"), None, START_MS).await.unwrap().len();
    rig.watch("alice", "a", START_MS + MINUTE_MS, 1).await;
    assert_eq!(listed().await, 1);
    rig.ledger.hidden(user("alice"), title("a"), START_MS).await.unwrap();
    assert_eq!(listed().await, 0, "what her player's clock calls a minute from now is hidden too");
    rig.watch("alice", "a", START_MS + MINUTE_MS + 1, 2).await;
    assert_eq!(listed().await, 1);
}

#[tokio::test]
async fn what_is_damaged_keeps_nobody_else_waiting() {
    let rig = Rig::new(config()).await;
    let damage = |sql: &str| {
        let db = rusqlite::Connection::open(rig.dir.path().join("control.db")).unwrap();
        assert_eq!(db.execute(sql, []).unwrap(), 1);
    };
    for who in ["alice", "bob"] {
        rig.watch(who, "a", START_MS, 1).await;
        rig.watch(who, "b", START_MS, 1).await;
    }
    rig.flush().await;
    damage("UPDATE views SET device = '' WHERE user_id = 'alice' AND title_id = 'a'");
    assert_eq!((rig.history("alice").await.len(), rig.stopped("alice", "a").await), (1, None), "it is left out");
    rig.watch("alice", "a", START_MS + 1, 2).await;
    rig.flush().await;
    assert_eq!(rig.stopped("alice", "a").await, Some((START_MS + 1, 2)));
    rig.pack(START_MS + 100 * DAY_MS).await;
    damage("UPDATE view_packs SET data = x'00' WHERE user_id = 'alice'");
    for who in ["alice", "bob"] {
        rig.watch(who, "c", START_MS + DAY_MS, 1).await;
    }
    rig.flush().await;
    rig.pack(START_MS + 100 * DAY_MS).await;
    assert_eq!(rig.counts("views WHERE user_id = 'alice'"), 2, "not packed with what cannot be read; nor is what is left out");
    assert_eq!(rig.counts("views WHERE user_id = 'bob'"), 0);
    rig.ledger.history(user("alice"), None, 10).await.unwrap_err();
    assert_eq!(rig.history("bob").await.len(), 3);
}

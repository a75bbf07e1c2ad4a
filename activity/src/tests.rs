//! The whole of it on real files: what was told to be kept is kept, once, across restarts, floods and failures.

use std::sync::LazyLock;

use super::*;

mod kill;

const VIEWER: Sender<'_> = Sender { user: Some("ann"), region: "de-by", relay: None };
const RELAY: Sender<'_> = Sender { user: None, region: "", relay: Some(|_| true) };

fn config(folder: &Path) -> Config {
    Config {
        segment_bytes: 16 << 10,
        sync_interval: Duration::ZERO,
        // No test fails because the machine is slow.
        ack_timeout: Duration::from_secs(60),
        ..Config::new(folder.join("activity"), folder.join("lake"))
    }
}

/// When everything happens, so that no hour ends between two events.
static AT_MS: LazyLock<u64> = LazyLock::new(now_ms);

/// An event of `kind`; more members follow a comma.
fn event(kind: &str, id: &str, more: &str) -> String {
    let at = rfc3339(*AT_MS);
    format!(r#"{{"type": "{kind}", "id": "{id}", "session": "s", "at": "{at}", "title": "dark-days"{more}}}"#)
}

fn rfc3339(unix_ms: u64) -> String {
    let (date, hour) = date_and_hour(unix_ms);
    let (minute, second, ms) = (unix_ms / 60_000 % 60, unix_ms / 1000 % 60, unix_ms % 1000);
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

fn batch(events: impl IntoIterator<Item = String>) -> String {
    format!(r#"{{"events": [{}]}}"#, events.into_iter().collect::<Vec<_>>().join(","))
}

/// An activity whose threads run.
struct Rig {
    activity: Activity,
    running: Running,
}

impl Rig {
    fn start(config: &Config) -> Self {
        let (activity, workers) = Activity::open(config).unwrap();
        Self { activity, running: workers.start().unwrap() }
    }

    async fn submit(&self, events: impl IntoIterator<Item = String>) -> Receipt {
        self.activity.submit(batch(events).as_bytes(), VIEWER).await.unwrap()
    }

    /// Waits until all is folded that was kept.
    async fn folded(&self) {
        until(|| {
            let stats = self.activity.stats();
            stats.fold_place == stats.log_newest
        })
        .await;
    }
}

/// Waits for what threads do.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

/// The ids of all events in the log, in order.
fn ids(config: &Config) -> Vec<String> {
    let (log, _) = Log::open(&config.folder.join("log"), config.segment_bytes, 0).unwrap();
    let mut reader = log::Reader::new(log.folder().to_owned(), log.oldest());
    let mut ids = Vec::new();
    while let Some(frame) = reader.next(log.progress().now()).unwrap() {
        frame.each(|_, event| ids.push(event.id.to_string())).unwrap();
    }
    assert_eq!(reader.lost(), 0);
    ids
}

#[tokio::test]
async fn what_is_kept_is_in_the_log_once_however_often_it_is_sent_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    for round in 0..3 {
        let rig = Rig::start(&config);
        let events = || (0..4 + round).map(|n| event("play", &format!("e{n}"), ""));
        let expected = Receipt {
            accepted: if round == 0 { 4 } else { 1 },
            duplicates: if round == 0 { 0 } else { 3 + round },
            ..Receipt::default()
        };
        assert_eq!(rig.submit(events()).await, expected);
        assert_eq!(rig.submit(events()).await, Receipt { duplicates: 4 + round, ..Receipt::default() });
        assert_eq!(rig.activity.stats().duplicates, expected.duplicates + 4 + round);
        rig.running.stop();
    }
    assert_eq!(ids(&config), ["e0", "e1", "e2", "e3", "e4", "e5"]);
}

#[tokio::test]
async fn two_processes_do_not_write_to_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let rig = Rig::start(&config);
    let error = Activity::open(&config).err().unwrap().to_string();
    assert!(error.ends_with("activity: one control has one state directory"), "{error}");
    rig.running.stop();
    Activity::open(&config).unwrap();
}

#[tokio::test]
async fn flawed_events_are_counted_by_reason_and_the_first_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(&config(dir.path()));
    let bad = (0..12).map(|n| event("play", &format!("b{n}"), r#", "colour": 1"#));
    let receipt = rig.submit(bad.chain([event("stop", "s", ""), event("play", "good", "")])).await;
    assert_eq!((receipt.accepted, receipt.flaws.len()), (1, FLAWS_MAX));
    assert_eq!(receipt.refused, BTreeMap::from([("unknown-field", 12), ("missing-field", 1)]));
    let stats = rig.activity.stats();
    assert_eq!(stats.refused.iter().find(|(name, _)| *name == "unknown-field"), Some(&("unknown-field", 12)));
    assert_eq!(stats.accepted.iter().find(|(name, _)| *name == "play"), Some(&("play", 1)));
    assert!(rig.activity.submit(b"{", VIEWER).await.is_err());
}

#[tokio::test]
async fn what_was_kept_is_folded_into_all_that_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let rig = Rig::start(&config);
    let view = |who: u32, title: &str| {
        let event = event(
            "stop",
            &format!("{who}-{title}"),
            &format!(
                r#", "playedMs": 200000, "user": "u{who}", "region": "de-by", "rendition": "v720", "cmcd": {{"br": 3000, "msd": 700}}"#
            ),
        );
        event.replace("dark-days", title)
    };
    let views = (0..10).flat_map(|who| [view(who, "a"), view(who, "b")]);
    let plays = (0..5).map(|n| event("play", &format!("p{n}"), r#", "rendition": "v720", "region": "de-by""#));
    let body = batch(views.chain(plays));
    rig.activity.submit(body.as_bytes(), RELAY).await.unwrap();
    rig.folded().await;
    let check = |activity: &Activity| {
        let with: Vec<_> = activity.watched_with(&"a".parse().unwrap(), 5).into_iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(with, ["b"]);
        assert_eq!(activity.watched_by("u3").len(), 2);
        assert!(activity.watched_by("somebody else").is_empty());
        assert_eq!(activity.trending(Some("de-by"), Window::Hour, 5)[0].title, "dark-days");
        assert_eq!(activity.popularity().keys().map(TitleId::as_str).collect::<Vec<_>>(), ["dark-days"]);
        let files = activity.files(*AT_MS).unwrap();
        assert_eq!((files[0].title.as_str(), files[0].played_ms), ("a", 2_000_000));
        let quality = &activity.quality(2).unwrap()["de-by"];
        assert_eq!((quality.plays, quality.played_ms, quality.start_ms.count()), (5, 4_000_000, 20));
    };
    check(&rig.activity);
    rig.running.stop();
    let rig = Rig::start(&config);
    assert_eq!(rig.activity.stats().folded, 0, "nothing is folded twice");
    check(&rig.activity);
    rig.activity.forget("u3").await.unwrap();
    rig.folded().await;
    assert!(rig.activity.watched_by("u3").is_empty());
}

#[tokio::test]
async fn when_the_log_is_behind_a_sample_is_kept_then_what_matters_and_nobody_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { queue_bytes: 40_000, ack_timeout: Duration::from_millis(50), ..config(dir.path()) };
    // Nothing is written while the workers do not run.
    let (activity, workers) = Activity::open(&config).unwrap();
    let mixed = |round: usize| {
        let each = move |kind: &'static str, more: &'static str| {
            (0..20).map(move |n| event(kind, &format!("{kind}-{round}-{n}"), more).replace(r#""s""#, &format!(r#""s{n}""#)))
        };
        batch(each("quality", r#", "cmcd": {"br": 3000}"#).chain(each("click", "")).chain(each("play", "")))
    };
    let mut outcomes = Vec::new();
    for round in 0..60 {
        let full = activity.0.queue.full();
        let outcome = activity.submit(mixed(round).as_bytes(), VIEWER).await;
        assert_eq!(outcome.is_err(), full < 1.0, "who is kept waiting is told so, and nobody is when nothing is taken");
        outcomes.push(full);
    }
    let stats = activity.stats();
    let of = |counts: &[(&str, u64)], kind: &str| counts.iter().find(|(name, _)| *name == kind).unwrap().1;
    let (sampled, dropped) = (of(&stats.sampled, "quality"), of(&stats.dropped, "quality"));
    assert!(sampled > 0 && dropped > 0 && of(&stats.sampled, "play") == 0, "{stats:?}");
    assert!(dropped > of(&stats.dropped, "click") && of(&stats.dropped, "click") > of(&stats.dropped, "play"), "{stats:?}");
    assert!(stats.queued_bytes < 2 * 40_000, "the queue is bounded");
    // What waited is written all the same.
    workers.start().unwrap().stop();
    let kept = ids(&config);
    assert!(
        kept.len() > 200
            && kept.iter().filter(|id| id.starts_with("play")).count()
                > kept.iter().filter(|id| id.starts_with("quality")).count()
    );
    assert!(outcomes.last().is_some_and(|full| *full >= 1.0));
}

#[tokio::test]
async fn a_sample_counts_for_what_it_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { queue_bytes: 256 << 10, ack_timeout: Duration::from_millis(10), ..config(dir.path()) };
    let (activity, workers) = Activity::open(&config).unwrap();
    let beats = |round: usize| {
        batch((0..500).map(|n| {
            let beat = event("quality", &format!("{round}-{n}"), r#", "playedMs": 10000, "cmcd": {"br": 3000}"#);
            beat.replace(r#""session": "s""#, &format!(r#""session": "s-{round}-{n}""#))
        }))
    };
    let mut sent = 0;
    while activity.0.queue.full() < 0.7 {
        let _ = activity.submit(beats(sent).as_bytes(), VIEWER).await;
        sent += 1;
    }
    let sent = sent as u64 * 500;
    assert!(activity.stats().sampled.iter().any(|(_, count)| *count > 0));
    workers.start().unwrap().stop();
    let (activity, _) = Activity::open(&config).unwrap();
    let played_ms = activity.files(*AT_MS).unwrap().iter().map(|file| file.played_ms).sum::<u64>();
    let off = (played_ms as f64 / (sent * 10_000) as f64 - 1.0).abs();
    assert!(off < 0.1, "{sent} beats, off by {off}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_keeps_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { log_bytes_max: 2000, ..config(dir.path()) };
    let rig = Rig::start(&config);
    let mut n = 0;
    let refused = loop {
        n += 1;
        match rig.activity.submit(batch([event("play", &format!("e{n}"), "")]).as_bytes(), VIEWER).await {
            Ok(receipt) => assert_eq!(receipt.accepted, 1),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, Refused::Log(NotKept::Full));
    let again = rig.activity.submit(batch([event("play", &format!("e{n}"), "")]).as_bytes(), VIEWER).await;
    assert_eq!(again, Err(Refused::Log(NotKept::Full)), "what was not kept is no duplicate");
    assert_eq!(rig.activity.stats().failed_groups, 2);
    rig.running.stop();
    assert_eq!(ids(&config).len(), n - 1);
}

#[tokio::test]
async fn what_waits_is_written_and_synced_as_one_group() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (activity, workers) = Activity::open(&config).unwrap();
    let senders = (0..200).map(|sender| {
        let activity = activity.clone();
        tokio::spawn(async move { activity.submit(batch([event("play", &format!("e{sender}"), "")]).as_bytes(), VIEWER).await })
    });
    let senders: Vec<_> = senders.collect();
    until(|| activity.stats().batches == 200).await;
    let running = workers.start().unwrap();
    for sender in senders {
        assert_eq!(sender.await.unwrap().unwrap().accepted, 1);
    }
    assert_eq!(activity.stats().groups, 1);
    running.stop();
    assert_eq!(ids(&config).len(), 200);
}

#[tokio::test]
async fn a_fold_whose_checkpoint_is_damaged_begins_anew_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let rig = Rig::start(&config);
    rig.submit((0..50).map(|n| event("play", &format!("e{n}"), ""))).await;
    rig.running.stop();
    let known = known(&config);
    let path = config.folder.join("folds/trending.checkpoint");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(self::known(&config) == known, "it is what a recount of the log comes to");
}

/// All that is known after everything was folded, byte for byte.
fn known(config: &Config) -> Vec<Vec<u8>> {
    let (log, _) = Log::open(&config.folder.join("log"), config.segment_bytes, 0).unwrap();
    let mut consumer =
        Consumer::open(&config.folder.join("folds"), log.folder(), log.id(), (log.oldest(), log.newest()), config.users_max)
            .unwrap();
    consumer.catch_up(&log.progress());
    consumer.known()
}

/// The same from nothing but the log.
fn recount(config: &Config) -> Vec<Vec<u8>> {
    let (log, _) = Log::open(&config.folder.join("log"), config.segment_bytes, 0).unwrap();
    let nothing = tempfile::tempdir().unwrap();
    let mut consumer =
        Consumer::open(nothing.path(), log.folder(), log.id(), (log.oldest(), log.newest()), config.users_max).unwrap();
    consumer.catch_up(&log.progress());
    consumer.known()
}

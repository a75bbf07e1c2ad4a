//! Purges, and fills that are under way meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;

const LENGTH: u64 = 3 * SLICE as u64;

fn object() -> Purge {
    Purge::Object(key().to_string())
}

fn every_kind() -> [Purge; 4] {
    [object(), Purge::Prefix("/titles/a/".into()), Purge::Tag("film".into()), Purge::All]
}

#[tokio::test]
async fn what_is_purged_is_filled_anew_from_whichever_tier_it_was() {
    for purge in every_kind() {
        let ((cache, double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
        read(&cache, &source, 0..LENGTH).await.expect("fills");
        cache.purge(Purge::Prefix("/titles/b/".into())).await.expect("noted");
        cache.purge(Purge::Tag("films".into())).await.expect("noted");
        assert!(read(&cache, &source, 0..LENGTH).await.is_ok_and(|(verdict, _)| verdict == Verdict::Ram));
        // The same validator: only the purge tells the bytes apart.
        cache.purge(purge.clone()).await.expect("noted");
        for cache in [&cache, &restarted(config(64 << 20), &double)] {
            let before = source.asks();
            let (verdict, bytes) = read(cache, &source, 0..LENGTH).await.expect("fills anew");
            assert!(bytes == source.bytes(0..LENGTH));
            match before {
                3 => assert_eq!((verdict, source.asks()), (Verdict::Filled, 6), "{purge}"),
                _ => assert_eq!((verdict, source.asks()), (Verdict::Ssd, 6), "{purge}: what was filled since counts"),
            }
        }
    }
}

#[tokio::test]
async fn a_fill_that_began_before_a_purge_is_for_those_who_asked_before_it() {
    for purge in every_kind() {
        let ((cache, double), source) = (tiers(config(64 << 20)), Fake::gated(SLICE as u64));
        source.gate.add_permits(1);
        let mut early = reader(&cache, &source, 0..SLICE as u64).await.expect("leads");
        assert!(early.next().await.expect("a chunk").expect("bytes") == source.bytes(0..CHUNK as u64));
        cache.purge(purge.clone()).await.expect("noted");
        source.version.store(2, Ordering::Release);
        let late = reader(&cache, &source, 0..SLICE as u64).await.expect("leads another");
        assert_eq!((late.verdict(), source.asks(), cache.stats().flights), (Verdict::Filled, 2, 1), "{purge}");
        source.gate.add_permits(100);
        let rest: Vec<Bytes> = early.try_collect().await.expect("bytes");
        assert!(rest.concat() == Fake::bytes_of(1, CHUNK as u64..SLICE as u64), "one version to its end");
        let late: Vec<Bytes> = late.try_collect().await.expect("bytes");
        assert!(late.concat() == source.bytes(0..SLICE as u64));
        becomes(|| cache.stats().flights == 0).await;
        assert_eq!((cache.stats().slices, double.offers.lock().len()), (1, 1), "{purge}: what landed too late is not kept");
        assert!(read(&cache, &source, 0..SLICE as u64).await == Ok((Verdict::Ram, source.bytes(0..SLICE as u64))));
    }
}

/// Names the version that it had when it was asked, but only when it is told to: each time that it is asked by a gate of its own.
struct Late {
    fake: Arc<Fake>,
    gates: [Semaphore; 2],
}

impl Late {
    fn new() -> Arc<Self> {
        Arc::new(Self { fake: Fake::new(SLICE as u64), gates: [Semaphore::new(0), Semaphore::new(0)] })
    }

    fn open(self: &Arc<Self>, cache: &Cache) -> tokio::task::JoinHandle<Result<String, FillError>> {
        let (cache, source) = (cache.clone(), self.clone());
        tokio::spawn(async move { cache.open(&key(), 0, &source).await.map(|opened| opened.generation().validator.clone()) })
    }
}

impl Source for Late {
    async fn fill(self: Arc<Self>, want: Want, filler: Filler) -> Result<(), FillError> {
        let version = AtomicU64::new(self.fake.version.load(Ordering::Acquire));
        self.fake.asked.lock().push(want.clone());
        let gate = self.fake.asks() - 1;
        self.gates[gate].acquire().await.expect("open").forget();
        Arc::new(Fake { version, ..Fake::of(self.fake.length) }).fill(want, filler).await
    }
}

#[tokio::test]
async fn a_fill_whose_head_comes_after_the_purge_of_a_tag_is_not_joined_for_good() {
    let (cache, source) = (cache(64 << 20), Late::new());
    let early = source.open(&cache);
    becomes(|| source.fake.asks() == 1).await;
    source.fake.version.store(2, Ordering::Release);
    cache.purge(Purge::Tag("film".into())).await.expect("noted");
    let late = source.open(&cache);
    tokio::task::yield_now().await;
    source.gates.iter().for_each(|gate| gate.add_permits(1));
    assert_eq!(early.await.expect("no panic"), Ok("\"v1\"".into()));
    assert_eq!(late.await.expect("no panic"), Ok("\"v2\"".into()));
    assert_eq!(source.fake.asks(), 2);
}

#[tokio::test]
async fn a_head_that_comes_after_a_purge_does_not_replace_what_was_learnt_since() {
    let (cache, source) = (cache(64 << 20), Late::new());
    let early = source.open(&cache);
    becomes(|| source.fake.asks() == 1).await;
    source.fake.version.store(2, Ordering::Release);
    cache.purge(object()).await.expect("noted");
    let late = source.open(&cache);
    becomes(|| source.fake.asks() == 2).await;
    source.gates[1].add_permits(1);
    assert_eq!(late.await.expect("no panic"), Ok("\"v2\"".into()));
    source.gates[0].add_permits(1);
    assert_eq!(early.await.expect("no panic"), Ok("\"v1\"".into()));
    assert_eq!(source.open(&cache).await.expect("no panic"), Ok("\"v2\"".into()), "known without a third question");
}

#[tokio::test]
async fn the_end_of_a_fill_that_was_replaced_leaves_the_newer_one_to_be_joined() {
    let (cache, source) = (cache(64 << 20), Fake::gated(SLICE as u64));
    source.fails([Fault::FailsAfter(2 * CHUNK, FillError::NotFound)]);
    let early = reader(&cache, &source, 0..SLICE as u64).await.expect("leads");
    cache.purge(object()).await.expect("noted");
    let late = reader(&cache, &source, 0..SLICE as u64).await.expect("leads another");
    assert_eq!((source.asks(), source.at_once.load(Ordering::Acquire)), (2, 2));
    // They take turns, and the first fails at its third.
    source.gate.add_permits(3);
    becomes(|| source.at_once.load(Ordering::Acquire) == 1).await;
    assert_eq!(early.try_collect::<Vec<_>>().await, Err(FillError::NotFound));
    let later = reader(&cache, &source, 0..SLICE as u64).await.expect("the version is known");
    assert_eq!((later.verdict(), cache.stats().flights), (Verdict::Collapsed, 1));
    source.gate.add_permits(100);
    for reader in [late, later] {
        assert!(reader.try_collect::<Vec<_>>().await.is_ok_and(|chunks| chunks.concat() == source.bytes(0..SLICE as u64)));
    }
    assert_eq!(source.asks(), 2);
}

#[tokio::test]
async fn a_reader_under_way_keeps_its_version_over_a_purge() {
    let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
    let mut early = reader(&cache, &source, 0..LENGTH).await.expect("leads");
    let first = early.next().await.expect("a chunk").expect("bytes");
    cache.purge(Purge::All).await.expect("noted");
    assert!(read(&cache, &source, 0..LENGTH).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)));
    let rest: Vec<Bytes> = early.try_collect().await.expect("the same bytes by the validator");
    assert!([first].into_iter().chain(rest).collect::<Vec<_>>().concat() == source.bytes(0..LENGTH));
}

#[tokio::test]
async fn the_end_of_an_old_fill_does_not_forget_a_newer_version() {
    let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
    read(&cache, &source, 0..10).await.expect("fills");
    let old = cache.open(&key(), 0, &source).await.expect("known");
    cache.purge(object()).await.expect("noted");
    source.version.store(2, Ordering::Relaxed);
    read(&cache, &source, 0..10).await.expect("fills the new one");
    let asks = source.asks();
    let error = cache.read(&key(), old, LENGTH - 10..LENGTH, &source).await.err();
    assert_eq!(error, Some(FillError::Changed));
    let opened = cache.open(&key(), 0, &source).await.expect("known");
    assert_eq!((opened.verdict(), source.asks()), (Verdict::Ram, asks + 1), "the old reader asked, and nobody since");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_purge_storm_serves_no_old_byte_and_no_slice_is_filled_twice_after_it() {
    let ((cache, _double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    let (purged, is_over) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let answers = Arc::new(Mutex::new(Vec::new()));
    let viewers: Vec<_> = (0..16)
        .map(|viewer| {
            let (cache, source, purged, is_over, answers) =
                (cache.clone(), source.clone(), purged.clone(), is_over.clone(), answers.clone());
            tokio::spawn(async move {
                while !is_over.load(Ordering::Acquire) {
                    let not_before = purged.load(Ordering::Acquire);
                    let start = viewer % 3 * SLICE as u64;
                    match read(&cache, &source, start..LENGTH).await {
                        Ok((_, bytes)) => answers.lock().push((not_before, start, bytes[0], bytes)),
                        Err(error) => assert_eq!(error, FillError::Changed, "the source is there"),
                    }
                }
            })
        })
        .collect();
    for version in 2..60 {
        let answered = answers.lock().len();
        source.version.store(version, Ordering::Release);
        cache.purge(every_kind()[version as usize % 4].clone()).await.expect("noted");
        purged.store(version, Ordering::Release);
        // Sometimes one after the other, sometimes with some answers between.
        becomes(|| version % 3 > 0 || answers.lock().len() > answered).await;
    }
    is_over.store(true, Ordering::Release);
    for viewer in viewers {
        viewer.await.expect("no panic");
    }
    becomes(|| cache.stats().flights == 0).await;
    let answers = std::mem::take(&mut *answers.lock());
    assert!(!answers.is_empty());
    for (not_before, start, _, bytes) in answers {
        let is_of = |version: &u64| bytes[..64] == Fake::bytes_of(*version, start..start + 64);
        let version = (1..60).find(is_of).expect("one of the versions");
        assert!(version >= not_before, "asked after the purge of {not_before} returned, answered with {version}");
        assert!(bytes == Fake::bytes_of(version, start..LENGTH), "one version from its start to its end");
    }
    // One more purge, and everybody comes at once.
    cache.purge(Purge::All).await.expect("noted");
    source.asked.lock().clear();
    let reads: Vec<_> = (0..64)
        .map(|viewer| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move {
                let start = viewer % 3 * SLICE as u64;
                read(&cache, &source, start..LENGTH).await.is_ok_and(|(_, bytes)| bytes == source.bytes(start..LENGTH))
            })
        })
        .collect();
    for read in reads {
        assert!(read.await.expect("no panic"));
    }
    let asks = source.asks_by_slice();
    assert!(asks.len() == 3 && asks.values().all(|asks| *asks == 1), "{asks:?}");
}

//! Fills that fail half-way, stall, trickle, or are left by all who waited.

use std::sync::atomic::Ordering;

use super::*;

const LENGTH: u64 = SLICE as u64;

/// Tens of milliseconds instead of seconds.
fn impatient(rules: Rules) -> Config {
    Config { rules: Rules { progress_window: Duration::from_millis(60), ..rules }, ..config(64 << 20) }
}

fn broke() -> FillError {
    FillError::Unavailable("the connection broke".into())
}

#[tokio::test]
async fn a_fill_that_breaks_off_anywhere_is_finished_in_the_same_flight() {
    for cut in (0..=SLICE).step_by(16 << 10) {
        let (cache, source) = (cache(64 << 20), Fake::new(3 * LENGTH));
        source.fails([Fault::FailsAfter(cut, broke())]);
        let readers = (0..3).map(|_| read(&cache, &source, 0..LENGTH));
        for read in future::join_all(readers).await {
            assert!(read.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)), "cut at {cut}");
        }
        let asked = source.asked.lock().clone();
        assert!(asked[0].attempt == 0 && asked[0].generation.is_none());
        if cut == SLICE {
            assert_eq!(asked.len(), 1, "what broke after the last byte broke nothing");
            continue;
        }
        assert_eq!(asked.len(), 2, "cut at {cut}");
        assert_eq!((asked[1].attempt, asked[1].range.clone()), (1, cut as u64..LENGTH), "the rest, and no more");
        assert_eq!(asked[1].generation.as_deref(), Some(&source.generation()), "of the version that came before");
        let stats = cache.stats();
        assert_eq!((stats.fills, stats.attempts, stats.fill_failures, stats.misses), (1, 2, 0, 3));
        assert!(read(&cache, &source, 0..LENGTH).await.is_ok_and(|(verdict, _)| verdict == Verdict::Ram), "kept");
    }
}

#[tokio::test]
async fn after_the_last_attempt_all_waiters_are_told_the_same() {
    let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
    source.attempts_max.store(3, Ordering::Relaxed);
    source.fails([Fault::FailsAfter(CHUNK, broke()), Fault::Fails(broke()), Fault::FailsAfter(CHUNK, broke())]);
    let reads = future::join_all((0..50).map(|_| async {
        let mut reader = reader(&cache, &source, 0..LENGTH).await.expect("the version is known");
        let mut bytes = Vec::new();
        loop {
            match reader.next().await.expect("an error comes before the end") {
                Ok(chunk) => bytes.extend(chunk),
                Err(error) => return (bytes, error, reader.next().await.is_none()),
            }
        }
    }));
    for (bytes, error, is_over) in reads.await {
        assert!(bytes == source.bytes(0..2 * CHUNK as u64), "what came is right");
        assert_eq!((error, is_over), (broke(), true));
    }
    assert_eq!(source.asks(), 3);
}

#[tokio::test]
async fn what_a_source_says_is_not_asked_again_unless_elsewhere() {
    for error in [FillError::NotFound, FillError::OutOfRange, FillError::Refused("by its answer".into())] {
        let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
        source.fails([Fault::Fails(error.clone())]);
        assert_eq!(read(&cache, &source, 0..LENGTH).await, Err(error.clone()));
        assert_eq!(source.asks(), 1);
        source.is_elsewhere.store(true, Ordering::Relaxed);
        source.fails([Fault::Fails(error.clone())]);
        assert!(read(&cache, &source, 0..LENGTH).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)), "{error}");
        assert_eq!(source.asks(), 3);
    }
}

#[tokio::test]
async fn an_object_that_changes_between_two_attempts_is_not_mixed() {
    let (cache, source) = (cache(64 << 20), Fake::gated(LENGTH));
    source.fails([Fault::FailsAfter(2 * CHUNK, broke())]);
    source.gate.add_permits(1);
    let mut reader = reader(&cache, &source, 0..LENGTH).await.expect("the version is known");
    assert!(reader.next().await.expect("a chunk").is_ok_and(|chunk| chunk == source.bytes(0..CHUNK as u64)));
    source.version.store(2, Ordering::Relaxed);
    source.gate.add_permits(100);
    let second = reader.next().await.expect("a chunk");
    assert!(second.is_ok_and(|chunk| chunk == Fake::bytes_of(1, CHUNK as u64..2 * CHUNK as u64)));
    assert_eq!(reader.next().await, Some(Err(FillError::Changed)));
    assert_eq!(source.asks(), 2);
    assert!(read(&cache, &source, 0..LENGTH).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)));
}

#[tokio::test]
async fn a_fill_that_stalls_while_somebody_waits_is_replaced() {
    let (cache, source) = (Cache::new(impatient(Rules::default())), Fake::new(LENGTH));
    source.fails([Fault::StallsAfter(CHUNK)]);
    assert!(read(&cache, &source, 0..LENGTH).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)));
    assert_eq!(source.asked.lock()[1].range, CHUNK as u64..LENGTH);
    assert_eq!((cache.stats().stalls, source.at_once.load(Ordering::Relaxed)), (1, 0), "the first attempt was dropped");
}

#[tokio::test]
async fn a_trickle_is_no_progress_but_the_last_attempt_is_never_cut_for_slowness() {
    let (cache, source) = (Cache::new(impatient(Rules::default())), Fake::new(LENGTH));
    let trickle = || Fault::Trickles(4096, Duration::from_millis(8));
    source.fails([trickle(), trickle()]);
    assert!(read(&cache, &source, 0..LENGTH).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)));
    let asked = source.asked.lock().clone();
    assert_eq!((asked.len(), cache.stats().stalls), (2, 1));
    assert!(asked[1].range.start > 0, "what trickled in stays");
}

#[tokio::test]
async fn a_source_that_is_fast_enough_is_not_cut_nor_one_that_has_not_begun() {
    let rules = Rules { progress_bytes_min: 1, ..Rules::default() };
    let (cache, source) = (Cache::new(impatient(rules)), Fake::gated(LENGTH));
    source.fails([Fault::Trickles(SLICE / 16, Duration::from_millis(15))]);
    let reading = read(&cache, &source, 0..LENGTH);
    let opening = async {
        becomes(|| source.asks() == 1).await;
        // Longer than the window, before the first byte.
        tokio::time::sleep(Duration::from_millis(150)).await;
        source.gate.add_permits(16);
    };
    let (read, ()) = tokio::join!(reading, opening);
    assert!(read.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)));
    assert_eq!((source.asks(), cache.stats().stalls), (1, 0));
}

#[tokio::test]
async fn a_fill_that_nobody_waits_for_goes_on_unless_the_rules_say_otherwise() {
    for (abandoned_share, chunks_before, goes_on) in [(0.0, 1, true), (0.5, 1, false), (0.5, 2, true), (1.0, 3, false)] {
        let (cache, source) = (Cache::new(impatient(Rules { abandoned_share, ..Rules::default() })), Fake::gated(LENGTH));
        source.gate.add_permits(chunks_before);
        let first = reader(&cache, &source, 0..LENGTH).await.expect("leads");
        let second = reader(&cache, &source, 0..LENGTH).await.expect("joins");
        becomes(|| cache.stats().bytes_filled == (chunks_before * CHUNK) as u64).await;
        drop(first);
        tokio::task::yield_now().await;
        assert_eq!(cache.stats().flights, 1, "the other still waits");
        drop(second);
        if goes_on {
            source.gate.add_permits(100);
        }
        becomes(|| cache.stats().flights == 0 && source.at_once.load(Ordering::Acquire) == 0).await;
        let stats = cache.stats();
        assert_eq!((stats.abandoned, stats.slices, stats.fill_failures), (u64::from(!goes_on), u64::from(goes_on), 0));
        source.gate.add_permits(100);
        assert!(read(&cache, &source, 0..LENGTH).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)));
    }
}

#[tokio::test]
async fn a_filler_that_outlives_its_attempt_cannot_write() {
    /// Keeps the filler of its first attempt, and tries to use it after the second has taken over.
    struct Keeps(Arc<Fake>, parking_lot::Mutex<Option<Filler>>);
    impl Source for Keeps {
        async fn fill(self: Arc<Self>, want: Want, mut filler: Filler) -> Result<(), FillError> {
            if want.attempt == 0 {
                filler.head(self.0.generation())?;
                filler.write(&self.0.bytes(0..1000))?;
                *self.1.lock() = Some(filler);
                return Err(broke());
            }
            let mut kept = self.1.lock().take().expect("kept before");
            assert!(kept.write(b"late").is_err() && kept.head(self.0.generation()).is_err() && kept.unchanged().is_err());
            filler.head(self.0.generation())?;
            filler.write(&self.0.bytes(want.range))
        }
    }
    let (cache, fake) = (cache(64 << 20), Fake::new(LENGTH));
    let source = Arc::new(Keeps(fake.clone(), parking_lot::Mutex::default()));
    let opened = cache.open(&key(), 0, &source).await.expect("opens");
    let reader = cache.read(&key(), opened, 0..LENGTH, &source).await.expect("reads");
    let chunks: Vec<Bytes> = reader.try_collect().await.expect("the second attempt brings the rest");
    assert!(chunks.concat() == fake.bytes(0..LENGTH));
}

//! Readers, one fill per slice, and what a source does wrong.

use std::sync::atomic::Ordering;

use super::*;

#[tokio::test]
async fn a_second_read_comes_from_ram() {
    let (cache, source) = (cache(64 << 20), Fake::new(1_000_000));
    let first = read(&cache, &source, 0..1_000_000).await;
    assert!(first == Ok((Verdict::Filled, source.bytes(0..1_000_000))));
    let again = read(&cache, &source, 0..1_000_000).await;
    assert!(again == Ok((Verdict::Ram, source.bytes(0..1_000_000))));
    assert_eq!(source.asks(), 4, "once per slice of 256 KiB");
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.bytes_ram, stats.bytes_filled), (4, 4, 1_000_000, 1_000_000));
}

#[tokio::test]
async fn many_readers_of_a_cold_object_cause_one_fill_per_slice() {
    let (cache, source) = (cache(64 << 20), Fake::new(1_000_000));
    let reads = (0..200).map(|_| read(&cache, &source, 0..1_000_000));
    let all = future::join_all(reads).await;
    let expected = source.bytes(0..1_000_000);
    let mut leaders = 0;
    for read in all {
        let (verdict, bytes) = read.expect("every reader gets its bytes");
        assert!(bytes == expected);
        leaders += u32::from(verdict == Verdict::Filled);
    }
    assert_eq!(leaders, 1);
    assert_eq!(source.asks_by_slice().into_values().collect::<Vec<_>>(), [1; 4]);
}

#[tokio::test]
async fn a_slice_that_lands_between_a_look_up_and_the_question_for_it_is_not_asked_for_again() {
    let (cache, source) = (cache(64 << 20), Fake::new(10));
    read(&cache, &source, 0..10).await.expect("fills");
    let known = cache.0.objects.known(&key()).expect("known");
    // As those ask who looked before it landed.
    for wanted in [Wanted::Any { stale: None }, Wanted::Exactly(known)] {
        let (key, number, errand) = (&key(), 0, Errand::Viewer);
        let handle = cache.join(Ask { key, index: 0, wanted, number, errand, place: None, permit: None }, &source);
        assert!(handle.flight.bytes(0, 10).await.is_ok_and(|bytes| bytes == source.bytes(0..10)));
        assert_eq!((handle.verdict(), source.asks(), cache.stats().flights), (Verdict::Ram, 1, 0));
    }
}

#[tokio::test]
async fn waiters_get_bytes_while_the_fill_goes_on_and_outlive_the_leader() {
    let (cache, source) = (cache(64 << 20), Fake::gated(200_000));
    source.gate.add_permits(1);
    let opened = cache.open(&key(), 0, &source).await.expect("the head is not gated");
    let mut leader = cache.read(&key(), opened, 0..200_000, &source).await.expect("leads");
    let opened = cache.open(&key(), 0, &source).await.expect("known");
    let mut waiter = cache.read(&key(), opened, 0..200_000, &source).await.expect("joins");
    assert_eq!((leader.verdict(), waiter.verdict()), (Verdict::Filled, Verdict::Collapsed));
    let first = leader.next().await.expect("a chunk").expect("bytes");
    assert_eq!(first, source.bytes(0..65536));
    drop(leader);
    assert_eq!(waiter.next().await.expect("a chunk").expect("bytes"), first);
    source.gate.add_permits(100);
    let rest: Vec<Bytes> = waiter.try_collect().await.expect("the fill belongs to nobody");
    assert_eq!(rest.concat(), source.bytes(65536..200_000));
    assert_eq!(source.asks(), 1);
}

#[tokio::test]
async fn a_change_at_the_source_never_mixes_versions() {
    let (cache, source) = (cache(64 << 20), Fake::new(600_000));
    assert!(read(&cache, &source, 0..1000).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..1000)));
    source.version.store(2, Ordering::Relaxed);
    let mixed = read(&cache, &source, 0..600_000).await;
    assert_eq!(mixed, Err(FillError::Changed), "slice 0 is in RAM, but slice 1 is of another version");
    let again = read(&cache, &source, 0..600_000).await;
    assert!(again.map(|(_, bytes)| bytes) == Ok(source.bytes(0..600_000)));
}

#[tokio::test]
async fn a_stale_object_is_asked_for_again_and_kept_if_it_is_the_same() {
    let (cache, source) = (cache(64 << 20), Fake::new(100_000));
    source.fresh.store(false, Ordering::Relaxed);
    read(&cache, &source, 0..100_000).await.expect("fills");
    let kept = read(&cache, &source, 0..100_000).await;
    assert!(kept == Ok((Verdict::Ram, source.bytes(0..100_000))));
    assert_eq!(source.asks(), 2, "the second was a revalidation");
    source.version.store(2, Ordering::Relaxed);
    assert!(read(&cache, &source, 0..100_000).await == Ok((Verdict::Filled, source.bytes(0..100_000))));
}

#[tokio::test]
async fn faults_of_the_source_are_named_and_not_kept() {
    let gone = FillError::Unavailable("connection refused".into());
    for (faults, error) in [
        (vec![Fault::Fails(FillError::NotFound)], FillError::NotFound),
        (vec![Fault::Fails(gone.clone()), Fault::Fails(gone.clone())], gone.clone()),
        (vec![Fault::EndsAfter(65_536), Fault::EndsAfter(4_464)], FillError::Short { expected: 100_000, received: 70_000 }),
        (vec![Fault::Panics], FillError::Unavailable("the fill was broken off".into())),
    ] {
        let (cache, source) = (cache(64 << 20), Fake::new(100_000));
        source.fails(faults);
        assert_eq!(read(&cache, &source, 0..100_000).await, Err(error));
        assert!(read(&cache, &source, 0..100_000).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..100_000)));
        assert_eq!(cache.stats().flights, 0);
    }
}

#[tokio::test]
async fn a_slice_that_the_source_made_too_long_is_not_kept() {
    let (cache, source) = (cache(64 << 20), Fake::new(100_000));
    source.fails([Fault::SendsTooMuch]);
    for fills in 1..=2 {
        let (verdict, bytes) = read(&cache, &source, 0..100_000).await.expect("the bytes of the slice are right");
        assert!(verdict == Verdict::Filled && bytes == source.bytes(0..100_000));
        assert_eq!(source.asks(), fills);
    }
    assert_eq!(cache.stats().fill_failures, 1);
}

#[tokio::test]
async fn an_object_larger_than_the_budget_streams_within_it() {
    let (ram_bytes, length) = (16 * SLICE as u64, 200 * SLICE as u64 + 5);
    let (cache, source) = (cache(ram_bytes), Fake::new(length));
    let opened = cache.open(&key(), 0, &source).await.expect("opens");
    let mut reader = cache.read(&key(), opened, 0..length, &source).await.expect("reads");
    let mut at = 0;
    while let Some(chunk) = reader.next().await {
        let chunk = chunk.expect("bytes");
        assert!(chunk == source.bytes(at..at + chunk.len() as u64));
        at += chunk.len() as u64;
        assert!(cache.stats().ram_bytes <= ram_bytes);
    }
    assert_eq!(at, length);
    assert!(cache.stats().evictions > 100);
}

#[tokio::test]
async fn a_reader_that_finds_no_memory_in_time_is_told_so() {
    let (cache, source) = (cache(16 * SLICE as u64), Fake::new(100 * SLICE as u64));
    let mut held = Vec::new();
    let error = loop {
        let at = held.len() as u64 * SLICE as u64;
        match read_held(&cache, &source, at).await {
            Ok(chunk) => held.push(chunk),
            Err(error) => break error,
        }
        assert!(held.len() <= 16);
    };
    assert_eq!(error, FillError::Busy);
    held.clear();
    assert!(read(&cache, &source, 0..10).await.is_ok(), "memory came back");
}

async fn read_held(cache: &Cache, source: &Arc<Fake>, at: u64) -> Result<Bytes, FillError> {
    let opened = cache.open(&key(), at, source).await?;
    let mut reader = cache.read(&key(), opened, at..at + 1, source).await?;
    reader.next().await.expect("one byte")
}

#[tokio::test]
async fn an_empty_object_and_a_hint_beyond_the_end_are_no_errors() {
    let (cache, source) = (cache(64 << 20), Fake::new(0));
    let opened = cache.open(&key(), 0, &source).await.expect("opens");
    assert_eq!(opened.generation().length, 0);
    assert!(read(&cache, &source, 0..0).await.map(|(_, bytes)| bytes) == Ok(vec![]));
    cache.purge(Purge::All).await.expect("noted");
    let opened = cache.open(&key(), 1 << 40, &source).await.expect("the hint is only a hint");
    assert_eq!(opened.generation().length, 0);
}

#[tokio::test]
async fn purging_an_object_brings_the_new_version() {
    let (cache, source) = (cache(64 << 20), Fake::new(10));
    read(&cache, &source, 0..10).await.expect("fills");
    source.version.store(2, Ordering::Relaxed);
    cache.purge(Purge::Object(key().to_string())).await.expect("noted");
    assert!(read(&cache, &source, 0..10).await == Ok((Verdict::Filled, source.bytes(0..10))));
}

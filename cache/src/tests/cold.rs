//! Objects that are on SSD and that nobody knows any more.

use std::{sync::atomic::Ordering, time::Instant};

use super::*;

const LENGTH: u64 = 3 * SLICE as u64;

async fn cold() -> (Cache, Arc<Double>, Arc<Fake>) {
    let ((first, double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    read(&first, &source, 0..LENGTH).await.expect("fills");
    becomes(|| first.stats().flights == 0).await;
    source.asked.lock().clear();
    (restarted(config(64 << 20), &double), double, source)
}

#[tokio::test]
async fn one_that_is_fresh_is_known_at_once() {
    let (cache, double, source) = cold().await;
    double.ages(Duration::from_secs(20));
    let opened = cache.open(&key(), SLICE as u64 + 5, &source).await.expect("opens");
    assert_eq!((opened.verdict(), &**opened.generation()), (Verdict::Ssd, &source.generation()));
    let age = opened.age(Instant::now());
    assert!(age >= Duration::from_secs(20) && age < Duration::from_secs(40), "it ages while nobody knows it: {age:?}");
    assert!(read(&cache, &source, 0..LENGTH).await == Ok((Verdict::Ssd, source.bytes(0..LENGTH))));
    assert_eq!(source.asks(), 0);
}

#[tokio::test]
async fn one_that_is_stale_is_served_once_its_source_vouches_for_it() {
    let (cache, double, source) = cold().await;
    double.ages(Duration::from_secs(100));
    let opened = cache.open(&key(), 0, &source).await.expect("opens");
    assert_eq!(opened.verdict(), Verdict::Revalidated);
    assert!(opened.age(Instant::now()) < Duration::from_secs(20), "vouched for now");
    let reader = cache.read(&key(), opened, 0..LENGTH, &source).await.expect("reads");
    assert_eq!(reader.verdict(), Verdict::Ssd, "what was loaded is the answer's bytes");
    let chunks: Vec<Bytes> = reader.try_collect().await.expect("bytes");
    assert!(chunks.concat() == source.bytes(0..LENGTH));
    let asked = source.asked.lock().clone();
    assert!(asked.len() == 1 && asked[0].revalidate && asked[0].generation.as_deref() == Some(&source.generation()));
    assert_eq!((double.loads.load(Ordering::Relaxed), double.offers.lock().len()), (3, 3), "each read once, none offered again");
}

#[tokio::test]
async fn one_that_was_replaced_is_dropped_and_does_not_come_back() {
    let (cache, double, source) = cold().await;
    double.ages(Duration::from_secs(100));
    source.version.store(2, Ordering::Relaxed);
    assert!(read(&cache, &source, 0..10).await == Ok((Verdict::Filled, source.bytes(0..10))));
    assert_eq!(source.asks(), 1, "the answer to the revalidation brought the bytes");
    becomes(|| cache.stats().flights == 0).await;
    // The clock is set back, so that all that is on SSD looks fresh again; slices 1 and 2 are still of the old version.
    double.ages(Duration::ZERO);
    let again = restarted(config(64 << 20), &double);
    let opened = again.open(&key(), SLICE as u64, &source).await.expect("opens");
    assert_eq!(opened.generation().validator, "\"v2\"");
    assert!(read(&again, &source, 0..LENGTH).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..LENGTH)));
}

#[tokio::test]
async fn one_that_its_source_has_no_more_does_not_come_back() {
    let (cache, double, source) = cold().await;
    double.ages(Duration::from_secs(100));
    source.fails([Fault::Fails(FillError::NotFound)]);
    assert_eq!(read(&cache, &source, 0..10).await, Err(FillError::NotFound));
    double.ages(Duration::ZERO);
    let again = restarted(config(64 << 20), &double);
    assert!(read(&again, &source, 0..10).await.is_ok_and(|(verdict, _)| verdict == Verdict::Filled));
    assert_eq!(double.purges().len(), 1);
}

#[tokio::test]
async fn what_nobody_ever_had_is_no_purge() {
    let ((cache, double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    for _ in 0..10 {
        source.fails([Fault::Fails(FillError::NotFound)]);
        assert_eq!(read(&cache, &source, 0..10).await, Err(FillError::NotFound));
    }
    assert_eq!(double.purges().len(), 0);
}

#[tokio::test]
async fn one_whose_source_is_away_is_served_only_while_it_is_fresh() {
    let (cache, double, source) = cold().await;
    let gone = || Fault::Fails(FillError::Unavailable("no route".into()));
    source.fails([gone(), gone()]);
    assert!(read(&cache, &source, 0..LENGTH).await.is_ok());
    double.ages(Duration::from_secs(100));
    let again = restarted(config(64 << 20), &double);
    assert_eq!(read(&again, &source, 0..LENGTH).await, Err(FillError::Unavailable("no route".into())));
    assert!(read(&again, &source, 0..LENGTH).await.is_ok());
}

#[tokio::test]
async fn without_memory_for_two_slices_it_is_revalidated_all_the_same() {
    let (cache, double, source) = cold().await;
    double.ages(Duration::from_secs(100));
    let (one, budget) = (Duration::ZERO, &cache.0.budget);
    let mut held = Vec::new();
    while cache.stats().ram_bytes + 2 * (SLICE as u64 + 4096) <= cache.0.config.slices_bytes() {
        held.extend(budget.acquire(SLICE, slab::Priority::Viewer, one).await);
    }
    let opened = cache.open(&key(), 0, &source).await.expect("opens");
    assert_eq!((opened.verdict(), source.asks()), (Verdict::Revalidated, 1));
    assert_eq!(source.asked.lock()[0].generation.as_deref(), Some(&source.generation()));
}

#[tokio::test]
async fn the_verdict_of_an_opening_says_where_the_version_was_learnt_from() {
    let ((cache, _double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    source.fresh.store(false, Ordering::Relaxed);
    let opened = async || cache.open(&key(), 0, &source).await.expect("opens").verdict();
    let (first, second) = tokio::join!(opened(), opened());
    assert_eq!((first, second), (Verdict::Filled, Verdict::Collapsed));
    assert_eq!(opened().await, Verdict::Revalidated);
    source.fresh.store(true, Ordering::Relaxed);
    source.version.store(2, Ordering::Relaxed);
    assert_eq!(opened().await, Verdict::Filled);
    becomes(|| cache.stats().flights == 0).await;
    assert_eq!(opened().await, Verdict::Ram);
}

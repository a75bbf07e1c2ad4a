//! Planned content.

use std::sync::atomic::Ordering;

use super::*;

const LENGTH: u64 = 4 * SLICE as u64 + 10;

#[tokio::test]
async fn what_is_stocked_is_on_ssd_and_not_in_ram() {
    let ((cache, double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    let stocked = cache.stock(&key(), 0..u64::MAX, &source).await;
    assert_eq!(stocked, Stocked { bytes_filled: LENGTH, ..Stocked::default() });
    assert_eq!(*double.offers.lock(), (0..5).map(|index| (index, true)).collect::<Vec<_>>());
    assert_eq!((cache.stats().slices, cache.stats().ram_bytes, cache.stats().flights), (0, 0, 0));
    let again = cache.stock(&key(), 0..u64::MAX, &source).await;
    assert_eq!(again, Stocked { bytes_there: LENGTH, ..Stocked::default() });
    assert_eq!((source.asks(), double.loads.load(Ordering::Relaxed)), (5, 0));
    assert!(read(&cache, &source, 0..LENGTH).await == Ok((Verdict::Ssd, source.bytes(0..LENGTH))));
}

#[tokio::test]
async fn only_the_slices_of_the_range_are_stocked() {
    let ((cache, double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    let slice = SLICE as u64;
    let stocked = cache.stock(&key(), slice + 5..2 * slice + 5, &source).await;
    assert_eq!(stocked, Stocked { bytes_filled: 2 * slice, ..Stocked::default() });
    let rest = cache.stock(&key(), 0..LENGTH, &source).await;
    assert_eq!(rest, Stocked { bytes_filled: LENGTH - 2 * slice, bytes_there: 2 * slice, ..Stocked::default() });
    assert!(source.asks_by_slice().values().all(|asks| *asks == 1));
    assert_eq!(double.slices(), 5);
    let beyond = cache.stock(&key(), LENGTH + slice..u64::MAX, &source).await;
    assert_eq!(beyond, Stocked::default());
}

#[tokio::test]
async fn an_empty_object_is_stocked_too() {
    let ((cache, double), source) = (tiers(config(64 << 20)), Fake::new(0));
    assert_eq!(cache.stock(&key(), 0..u64::MAX, &source).await, Stocked::default());
    assert_eq!((double.slices(), source.asks()), (1, 1));
    assert!(read(&restarted(config(64 << 20), &double), &source, 0..0).await == Ok((Verdict::Ssd, vec![])));
}

#[tokio::test]
async fn what_flies_is_not_filled_twice_and_what_a_viewer_joins_stays_in_ram() {
    let ((cache, double), source) = (tiers(config(64 << 20)), Fake::gated(SLICE as u64));
    let stocking = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { cache.stock(&key(), 0..u64::MAX, &source).await }
    });
    becomes(|| source.asks() == 1).await;
    let viewer = reader(&cache, &source, 0..SLICE as u64).await.expect("joins");
    assert_eq!(viewer.verdict(), Verdict::Collapsed);
    let also = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { cache.stock(&key(), 0..u64::MAX, &source).await }
    });
    tokio::task::yield_now().await;
    source.gate.add_permits(100);
    let chunks: Vec<Bytes> = viewer.try_collect().await.expect("bytes");
    assert!(chunks.concat() == source.bytes(0..SLICE as u64));
    let bytes = SLICE as u64;
    assert_eq!(stocking.await.expect("no panic"), Stocked { bytes_filled: bytes, ..Stocked::default() });
    assert_eq!(also.await.expect("no panic"), Stocked { bytes_there: bytes, ..Stocked::default() });
    assert_eq!((source.asks(), cache.stats().slices, &**double.offers.lock()), (1, 1, &[(0, true)][..]));
}

#[tokio::test]
async fn a_plan_waits_for_memory_behind_viewers_and_is_refused_in_the_end() {
    let ((cache, _double), source) = (tiers(config(16 * SLICE as u64)), Fake::new(LENGTH));
    cache.open(&key(), 0, &source).await.expect("opens");
    becomes(|| cache.stats().flights == 0).await;
    let held: Vec<_> = std::iter::from_fn(|| cache.0.budget.try_acquire(SLICE, slab::Priority::Plan)).collect();
    let stocked = cache.stock(&key(), SLICE as u64..2 * SLICE as u64, &source).await;
    assert_eq!(stocked, Stocked { bytes_refused: SLICE as u64, ..Stocked::default() });
    assert_eq!((cache.stats().refused_plans, cache.stats().refused_busy), (1, 0));
    drop(held);
    assert_eq!(cache.stock(&key(), SLICE as u64..2 * SLICE as u64, &source).await.bytes_filled, SLICE as u64);
}

#[tokio::test]
async fn a_viewer_who_wants_what_a_plan_waits_for_does_not_wait_as_a_plan() {
    let ((cache, _double), source) =
        (tiers(Config { memory_wait_max: Duration::from_secs(20), ..config(16 * SLICE as u64) }), Fake::new(LENGTH));
    cache.open(&key(), 0, &source).await.expect("opens");
    becomes(|| cache.stats().flights == 0).await;
    let held: Vec<_> = std::iter::from_fn(|| cache.0.budget.try_acquire(SLICE, slab::Priority::Plan)).collect();
    let range = SLICE as u64..2 * SLICE as u64;
    let stocking = tokio::spawn({
        let (cache, source, range) = (cache.clone(), source.clone(), range.clone());
        async move { cache.stock(&key(), range, &source).await }
    });
    becomes(|| cache.stats().flights == 1).await;
    assert!(read(&cache, &source, range.clone()).await == Ok((Verdict::Collapsed, source.bytes(range))));
    assert_eq!(stocking.await.expect("no panic").bytes_filled, SLICE as u64);
    drop(held);
}

#[tokio::test]
async fn what_was_purged_or_replaced_is_stocked_again() {
    let ((cache, double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    cache.stock(&key(), 0..LENGTH, &source).await;
    cache.purge(Purge::Prefix("/titles/".into())).await.expect("noted");
    let stocked = cache.stock(&key(), 0..LENGTH, &source).await;
    assert_eq!(stocked, Stocked { bytes_filled: LENGTH, ..Stocked::default() });
    let stocked = cache.stock(&key(), 0..LENGTH, &source).await;
    assert_eq!(stocked, Stocked { bytes_there: LENGTH, ..Stocked::default() }, "by a look at each");
    assert!(double.parts.lock().iter().all(|part| *part == (0, 1)));
    source.version.store(2, Ordering::Relaxed);
    double.ages(Duration::from_secs(100));
    let stocked = restarted(config(64 << 20), &double).stock(&key(), 0..LENGTH, &source).await;
    assert_eq!(stocked, Stocked { bytes_filled: LENGTH, ..Stocked::default() });
}

#[tokio::test]
async fn a_plan_that_cannot_go_on_says_how_far_it_came() {
    let ((cache, _double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    let gone = FillError::Unavailable("no route".into());
    source.fails([Fault::None, Fault::Fails(gone.clone()), Fault::Fails(gone.clone())]);
    let stocked = cache.stock(&key(), 0..LENGTH, &source).await;
    assert_eq!(stocked, Stocked { bytes_filled: SLICE as u64, stopped_by: Some(gone), ..Stocked::default() });
    let without_ssd = super::cache(64 << 20).stock(&key(), 0..LENGTH, &source).await;
    assert_eq!(without_ssd, Stocked { bytes_refused: LENGTH, ..Stocked::default() });
}

#[tokio::test]
async fn a_planned_fill_is_never_abandoned() {
    let rules = Rules { abandoned_share: 1.0, ..Rules::default() };
    let ((cache, double), source) = (tiers(Config { rules, ..config(64 << 20) }), Fake::gated(SLICE as u64));
    let stocking = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { cache.stock(&key(), 0..u64::MAX, &source).await }
    });
    becomes(|| source.asks() == 1).await;
    stocking.abort();
    assert!(stocking.await.is_err());
    source.gate.add_permits(100);
    becomes(|| cache.stats().flights == 0).await;
    assert_eq!((cache.stats().abandoned, double.slices()), (0, 1));
}

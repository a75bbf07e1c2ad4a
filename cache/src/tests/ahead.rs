//! Read-ahead: what is fetched before it is wanted, and what is not.

use std::sync::atomic::Ordering;

use super::*;

const SLICES: u64 = 12;
const LENGTH: u64 = SLICES * SLICE as u64;

/// Which slices were asked for so far, in order.
fn asked(source: &Fake) -> Vec<u64> {
    let mut asked: Vec<_> = source.asked.lock().iter().map(|want| want.range.start / SLICE as u64).collect();
    asked.sort();
    asked
}

/// Reads until so many bytes of the object came.
async fn read_to(reader: &mut Reader, at: &mut u64, end: u64) {
    while *at < end {
        *at += reader.next().await.expect("more").expect("bytes").len() as u64;
    }
}

#[tokio::test]
async fn a_viewer_who_is_served_in_time_has_one_slice_fetched_ahead() {
    let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
    let (mut reader, mut at) = (reader(&cache, &source, 0..LENGTH).await.expect("leads"), 0);
    for slice in 1..SLICES {
        becomes(|| cache.stats().flights == 0).await;
        assert_eq!(asked(&source), (0..=slice).collect::<Vec<_>>(), "in slice {}", slice - 1);
        read_to(&mut reader, &mut at, slice * SLICE as u64 + 1).await;
    }
    let stats = cache.stats();
    assert_eq!((stats.read_ahead_started, stats.read_ahead_used, stats.misses), (SLICES - 1, SLICES - 1, SLICES));
}

#[tokio::test]
async fn a_viewer_who_comes_too_early_has_more_fetched_ahead_and_never_beyond_the_range() {
    let (cache, source) = (cache(64 << 20), Fake::gated(LENGTH));
    let end = 8 * SLICE as u64 + 10;
    let (mut reader, mut at) = (reader(&cache, &source, 0..end).await.expect("leads"), 0);
    let mut ahead = [0; 9];
    while at < end {
        match poll_once(&mut reader.next()).await {
            Poll::Ready(chunk) => {
                becomes(|| source.asks() as u64 == cache.stats().fills).await;
                let slice = at / SLICE as u64;
                ahead[slice as usize] = asked(&source).len() as u64 - slice - 1;
                at += chunk.expect("more").expect("bytes").len() as u64;
            }
            // One chunk for all that is asked for, and only when there is nothing to read: no slice is whole when the reader comes to it.
            Poll::Pending => {
                source.gate.add_permits(1);
                tokio::task::yield_now().await;
            }
        }
    }
    assert_eq!(ahead, [1, 2, 3, 4, 4, 3, 2, 1, 0], "one more at each boundary, as far as the rules and the range go");
    assert_eq!(asked(&source), (0..=8).collect::<Vec<_>>(), "no slice that the range does not touch");
    assert_eq!((cache.stats().read_ahead_started, cache.stats().read_ahead_used), (8, 8));
}

#[tokio::test]
async fn a_viewer_who_leaves_leaves_nothing_behind_but_what_flies() {
    let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
    let reader = reader(&cache, &source, 0..LENGTH).await.expect("leads");
    drop(reader);
    becomes(|| cache.stats().flights == 0).await;
    assert_eq!(asked(&source), [0, 1]);
    assert_eq!((cache.stats().read_ahead_started, cache.stats().read_ahead_used), (1, 0));
}

#[tokio::test]
async fn what_is_in_ram_is_not_fetched_and_nothing_is_fetched_for_a_reader_of_ram() {
    let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
    read(&cache, &source, 0..3 * SLICE as u64).await.expect("fills");
    let before = asked(&source);
    assert_eq!(before, [0, 1, 2]);
    let reader = reader(&cache, &source, 0..LENGTH).await.expect("opens");
    assert_eq!((reader.verdict(), asked(&source)), (Verdict::Ram, before));
}

#[tokio::test]
async fn without_memory_to_spare_nothing_is_fetched_ahead() {
    let (cache, source) = (cache(16 * SLICE as u64), Fake::new(LENGTH));
    let held: Vec<_> = std::iter::from_fn(|| cache.0.budget.try_acquire(SLICE, slab::Priority::Speculation)).collect();
    let reader = reader(&cache, &source, 0..LENGTH).await.expect("there is memory for who waits");
    assert_eq!((asked(&source), cache.stats().refused_speculation), (vec![0], 1));
    drop((held, reader));
}

#[tokio::test]
async fn without_a_window_nothing_is_fetched_ahead() {
    let rules = Rules { read_ahead_max: 0, ..Rules::default() };
    let (cache, source) = (Cache::new(Config { rules, ..config(64 << 20) }), Fake::new(LENGTH));
    assert!(read(&cache, &source, 0..LENGTH).await.is_ok());
    assert_eq!((source.asks() as u64, cache.stats().read_ahead_started), (SLICES, 0));
}

#[tokio::test]
async fn slices_on_ssd_are_read_ahead_too_but_not_those_of_which_little_is_wanted() {
    let (double, source) = (Arc::new(Double::new(Arc::default())), Fake::new(LENGTH));
    double.has_all_of(&key(), &source, SLICE);
    let cache = restarted(config(64 << 20), &double);
    let end = 2 * SLICE as u64 + 10;
    let mut reader = reader(&cache, &source, 0..end).await.expect("opens");
    becomes(|| cache.stats().flights == 0).await;
    assert_eq!((reader.verdict(), double.loads.load(Ordering::Relaxed), cache.stats().slices), (Verdict::Ssd, 2, 2));
    read_to(&mut reader, &mut 0, end).await;
    let stats = cache.stats();
    assert_eq!((stats.ssd_hits, stats.read_ahead_started, stats.read_ahead_used), (3, 1, 1));
    assert_eq!((double.loads.load(Ordering::Relaxed), &**double.parts.lock()), (2, &[(0, 10)][..]));
}

#[tokio::test]
async fn what_was_fetched_ahead_is_held_by_ram_alone() {
    let (cache, source) = (cache(64 << 20), Fake::new(LENGTH));
    let mut reader = reader(&cache, &source, 0..LENGTH).await.expect("leads");
    becomes(|| cache.stats().flights == 0).await;
    cache.0.memory.clear();
    let slice = SLICE as u64 + 4096;
    assert_eq!(cache.stats().ram_bytes, slice, "the reader is in the first; the second may go");
    let mut at = 0;
    read_to(&mut reader, &mut at, 2 * SLICE as u64).await;
    assert_eq!(source.asks_by_slice()[&1], 2);
}

//! The SSD tier in the life of a slice.

use std::sync::atomic::Ordering;

use super::*;

const LENGTH: u64 = 5 * SLICE as u64 - 100;

/// An SSD tier that has all of the object, and a cache that has forgotten it.
async fn filled(length: u64) -> (Arc<Double>, Arc<Fake>) {
    let ((first, double), source) = (tiers(config(64 << 20)), Fake::new(length));
    read(&first, &source, 0..length).await.expect("fills");
    becomes(|| first.stats().flights == 0).await;
    source.asked.lock().clear();
    (double, source)
}

#[tokio::test]
async fn what_is_filled_is_offered_and_comes_back_from_ssd() {
    let ((first, double), source) = (tiers(config(64 << 20)), Fake::new(LENGTH));
    assert!(read(&first, &source, 0..LENGTH).await == Ok((Verdict::Filled, source.bytes(0..LENGTH))));
    let mut offers = double.offers.lock().clone();
    offers.sort();
    assert_eq!(offers, (0..5).map(|index| (index, false)).collect::<Vec<_>>(), "each once, and none planned");
    let again = restarted(config(64 << 20), &double);
    assert!(read(&again, &source, 0..LENGTH).await == Ok((Verdict::Ssd, source.bytes(0..LENGTH))));
    assert!(read(&again, &source, 0..LENGTH).await == Ok((Verdict::Ram, source.bytes(0..LENGTH))), "it lands in RAM");
    assert_eq!((source.asks(), double.offers.lock().len()), (5, 5), "neither asked for nor offered again");
    let stats = again.stats();
    assert_eq!((stats.ssd_hits, stats.hits, stats.misses, stats.fills), (5, 5, 0, 0));
    assert_eq!((stats.bytes_ssd, stats.bytes_ram), (LENGTH, LENGTH));
}

#[tokio::test]
async fn many_readers_of_a_slice_on_ssd_share_one_read() {
    let (double, source) = filled(LENGTH).await;
    let cache = restarted(config(64 << 20), &double);
    double.gate.forget_permits(1 << 20);
    let reads = future::join_all((0..100).map(|_| read(&cache, &source, 0..LENGTH)));
    let opening = async {
        becomes(|| double.loads.load(Ordering::Acquire) == 1).await;
        double.gate.add_permits(1000);
    };
    let (reads, ()) = tokio::join!(reads, opening);
    for read in reads {
        assert!(read.is_ok_and(|(verdict, bytes)| verdict == Verdict::Ssd && bytes == source.bytes(0..LENGTH)));
    }
    assert_eq!((double.loads.load(Ordering::Relaxed), source.asks()), (5, 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_filled_as_if_nothing_had_been() {
    let (double, source) = filled(LENGTH).await;
    double.is_broken.store(true, Ordering::Relaxed);
    let cache = restarted(config(64 << 20), &double);
    assert!(read(&cache, &source, 0..LENGTH).await == Ok((Verdict::Filled, source.bytes(0..LENGTH))));
    assert_eq!(source.asks_by_slice().into_values().collect::<Vec<_>>(), [1; 5]);
    // A part that cannot be read, too.
    let cache = restarted(config(64 << 20), &double);
    cache.open(&key(), 0, &source).await.expect("opens");
    let range = SLICE as u64 + 10..SLICE as u64 + 20;
    assert!(read(&cache, &source, range.clone()).await.map(|(_, bytes)| bytes) == Ok(source.bytes(range)));
    assert_eq!(double.parts.lock().len(), 1);
}

#[tokio::test]
async fn who_wants_little_of_a_slice_reads_that_alone() {
    let (double, source) = filled(LENGTH).await;
    let cache = restarted(config(64 << 20), &double);
    cache.open(&key(), 0, &source).await.expect("opens");
    becomes(|| cache.stats().slices == 1).await;
    let slice = SLICE as u64;
    let quarter = 2 * slice + 100..2 * slice + 100 + slice / 4;
    assert!(read(&cache, &source, quarter.clone()).await == Ok((Verdict::Ssd, source.bytes(quarter.clone()))));
    assert_eq!(*double.parts.lock(), [(100, 100 + SLICE / 4)], "in one read");
    assert_eq!((cache.stats().slices, cache.stats().ram_bytes), (1, SLICE as u64 + 4096), "and not into RAM");
    let more = quarter.start..quarter.end + 1;
    assert!(read(&cache, &source, more.clone()).await == Ok((Verdict::Ssd, source.bytes(more))));
    assert_eq!((double.parts.lock().len(), cache.stats().slices), (1, 2), "more than that is read whole");
    let in_ram = read(&cache, &source, quarter.clone()).await;
    assert!(in_ram == Ok((Verdict::Ram, source.bytes(quarter))));
    // Across a boundary: much of one slice and little of the next.
    let across = 3 * slice..4 * slice + 10;
    assert!(read(&cache, &source, across.clone()).await == Ok((Verdict::Ssd, source.bytes(across))));
    assert_eq!(double.parts.lock()[1..], [(0, 10)]);
}

#[tokio::test]
async fn who_wants_little_joins_a_read_that_is_under_way() {
    let (double, source) = filled(LENGTH).await;
    let cache = restarted(config(64 << 20), &double);
    cache.open(&key(), 0, &source).await.expect("opens");
    double.gate.forget_permits(1 << 20);
    let slice = SLICE as u64;
    let whole = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { read(&cache, &source, slice..2 * slice).await }
    });
    becomes(|| double.loads.load(Ordering::Acquire) == 2).await;
    let little = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { read(&cache, &source, slice + 5..slice + 10).await }
    });
    tokio::task::yield_now().await;
    double.gate.add_permits(1);
    assert!(little.await.expect("no panic") == Ok((Verdict::Ssd, source.bytes(slice + 5..slice + 10))));
    assert!(whole.await.expect("no panic").is_ok());
    assert_eq!(*double.parts.lock(), []);
}

/// Readers that each hold what they were handed last, at places of their own, of one object that is on SSD.
async fn slow_readers(count: u64, ram_bytes: u64, slice_bytes: usize) {
    let config = Config { slice_bytes, memory_wait_max: Duration::from_secs(20), ..config(ram_bytes) };
    let length = 3 * count * slice_bytes as u64;
    let (double, source) = (Arc::new(Double::new(Arc::default())), Fake::new(length));
    double.has_all_of(&key(), &source, slice_bytes);
    let cache = restarted(config, &double);
    let mut readers = Vec::new();
    for number in 0..count {
        let start = number * length / count + 7;
        let reader = reader(&cache, &source, start..start + 2 * slice_bytes as u64).await.expect("opens");
        readers.push((reader, start, Bytes::new()));
    }
    let mut bytes_max = 0;
    for round in 0..4 {
        for (number, (reader, at, held)) in readers.iter_mut().enumerate() {
            // As a connection does: what was sent is let go before more is taken.
            *held = Bytes::new();
            *held = reader.next().await.expect("more").unwrap_or_else(|error| panic!("reader {number}, chunk {round}: {error}"));
            assert!(*held == source.bytes(*at..*at + held.len() as u64));
            *at += held.len() as u64;
            bytes_max = bytes_max.max(cache.stats().ram_bytes);
        }
    }
    assert!(bytes_max <= ram_bytes, "{bytes_max} of {ram_bytes}");
    assert!(double.parts.lock().len() as u64 > count, "most of it was read in parts");
    assert_eq!((cache.stats().fills, cache.stats().refused_busy), (0, 0));
}

#[tokio::test]
async fn five_hundred_slow_readers_fit_a_small_budget() {
    slow_readers(500, 256 << 20, 1 << 20).await;
}

#[tokio::test]
async fn slow_readers_of_large_slices_fit_too() {
    slow_readers(120, 64 << 20, 4 << 20).await;
}

#[tokio::test]
async fn a_reader_that_is_short_of_memory_gives_up_a_piece_before_it_takes_the_next() {
    let (double, source) = filled(LENGTH).await;
    let rules = Rules { read_ahead_max: 0, ..Rules::default() };
    let config = Config { memory_wait_max: Duration::from_secs(20), rules, ..config(16 * SLICE as u64) };
    let cache = restarted(config, &double);
    let mut reader = reader(&cache, &source, 0..LENGTH).await.expect("opens");
    let first = reader.next().await.expect("a chunk").expect("bytes");
    assert_eq!(first.len(), SLICE, "there is memory enough for whole slices");
    drop(first);
    let others: Vec<_> = std::iter::from_fn(|| cache.0.budget.try_acquire(CHUNK, slab::Priority::Speculation)).collect();
    let piece = reader.next().await.expect("a piece").expect("bytes");
    assert_eq!(piece.len(), CHUNK);
    assert!(poll_once(&mut reader.next()).await.is_pending(), "the piece is still held");
    drop(piece);
    let piece = reader.next().await.expect("a piece").expect("bytes");
    assert!(piece == source.bytes((SLICE + CHUNK) as u64..(SLICE + 2 * CHUNK) as u64));
    drop((piece, others));
    let rest: Vec<Bytes> = reader.try_collect().await.expect("bytes");
    assert!(rest.concat() == source.bytes((SLICE + 2 * CHUNK) as u64..LENGTH));
}

#[tokio::test]
async fn a_slice_is_not_held_between_chunks_when_memory_is_short() {
    let (double, source) = filled(LENGTH).await;
    let cache = restarted(config(16 * SLICE as u64), &double);
    let mut reader = reader(&cache, &source, 0..LENGTH).await.expect("opens");
    becomes(|| cache.stats().flights == 0).await;
    let others: Vec<_> = std::iter::from_fn(|| cache.0.budget.try_acquire(CHUNK, slab::Priority::Viewer)).collect();
    let chunk = reader.next().await.expect("a chunk").expect("bytes");
    assert_eq!(chunk.len(), 2 * CHUNK, "a small view of a whole slice");
    // Everything that nobody holds leaves RAM.
    cache.0.memory.clear();
    drop(chunk);
    assert_eq!(cache.stats().ram_bytes, (others.len() * (CHUNK + 4096)) as u64, "the reader holds nothing");
    let rest: Vec<Bytes> = {
        drop(others);
        reader.try_collect().await.expect("bytes")
    };
    assert!(rest.concat() == source.bytes(2 * CHUNK as u64..LENGTH));
}

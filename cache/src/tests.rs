//! The cache as a whole, against a source that does what it is told.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;

const SLICE: usize = 256 << 10;

/// One object that can change, fail and be held back.
struct Fake {
    length: u64,
    version: AtomicU64,
    fresh: AtomicBool,
    /// Fills may go on as long as there are permits: one per write of 64 KiB.
    gate: Semaphore,
    fills: Mutex<HashMap<u64, u32>>,
    faults: Mutex<Vec<Fault>>,
}

/// What goes wrong in the next fill, once.
enum Fault {
    Fails(FillError),
    EndsAfter(usize),
    SendsTooMuch,
    Panics,
}

impl Fake {
    fn new(length: u64) -> Arc<Self> {
        Arc::new(Self {
            length,
            version: AtomicU64::new(1),
            fresh: AtomicBool::new(true),
            gate: Semaphore::new(1 << 20),
            fills: Mutex::default(),
            faults: Mutex::default(),
        })
    }

    fn byte(version: u64, at: u64) -> u8 {
        (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ version as u8
    }

    fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let version = self.version.load(Ordering::Relaxed);
        range.map(|at| Self::byte(version, at)).collect()
    }

    fn generation(&self) -> Generation {
        Generation {
            validator: format!("\"v{}\"", self.version.load(Ordering::Relaxed)),
            length: self.length,
            headers: vec![("content-type".into(), "video/mp4".into())],
            fresh_for: if self.fresh.load(Ordering::Relaxed) { Duration::from_secs(60) } else { Duration::ZERO },
            initial_age: Duration::ZERO,
            tags: vec![],
        }
    }

    fn fills(&self) -> u32 {
        self.fills.lock().values().sum()
    }
}

impl Source for Fake {
    async fn fill(self: Arc<Self>, want: Want, mut filler: Filler) -> Result<(), FillError> {
        *self.fills.lock().entry(want.range.start / SLICE as u64).or_default() += 1;
        let fault = self.faults.lock().pop();
        match fault {
            Some(Fault::Fails(error)) => return Err(error),
            Some(Fault::Panics) => panic!("a source that panics"),
            _ => (),
        }
        let generation = self.generation();
        if want.revalidate && want.generation.is_some_and(|known| known.same_bytes(&generation)) {
            return filler.unchanged();
        }
        filler.head(generation)?;
        let bytes = self.bytes(want.range.start..want.range.end.min(self.length));
        let end = if let Some(Fault::EndsAfter(end)) = fault { end } else { bytes.len() };
        for chunk in bytes[..end].chunks(64 << 10) {
            self.gate.acquire().await.expect("open").forget();
            filler.write(chunk)?;
        }
        if matches!(fault, Some(Fault::SendsTooMuch)) {
            filler.write(b"!")?;
        }
        Ok(())
    }
}

fn cache(ram_bytes: u64) -> Cache {
    Cache::new(Config { ram_bytes, slice_bytes: SLICE, policy: Policy::Lru, memory_wait_max: Duration::from_millis(50), disk: None })
}

fn key() -> Arc<str> {
    "/titles/a/1.m4s".into()
}

async fn read(cache: &Cache, source: &Arc<Fake>, range: Range<u64>) -> Result<(Verdict, Vec<u8>), FillError> {
    let opened = cache.open(&key(), range.start, source).await?;
    let reader = cache.read(&key(), opened, range, source).await?;
    let verdict = reader.verdict();
    let chunks: Vec<Bytes> = reader.try_collect().await?;
    Ok((verdict, chunks.concat()))
}

#[tokio::test]
async fn a_second_read_comes_from_ram() {
    let (cache, source) = (cache(64 << 20), Fake::new(1_000_000));
    let first = read(&cache, &source, 0..1_000_000).await;
    assert!(first == Ok((Verdict::Filled, source.bytes(0..1_000_000))));
    let again = read(&cache, &source, 0..1_000_000).await;
    assert!(again == Ok((Verdict::Ram, source.bytes(0..1_000_000))));
    assert_eq!(source.fills(), 4, "once per slice of 256 KiB");
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
    assert_eq!(source.fills.lock().values().copied().collect::<Vec<_>>(), [1; 4]);
}

#[tokio::test]
async fn waiters_get_bytes_while_the_fill_goes_on_and_outlive_the_leader() {
    let (cache, mut source) = (cache(64 << 20), Fake::new(200_000));
    Arc::get_mut(&mut source).expect("not shared yet").gate = Semaphore::new(1);
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
    assert_eq!(source.fills(), 1);
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
    assert_eq!(source.fills(), 2, "the second was a revalidation");
    source.version.store(2, Ordering::Relaxed);
    assert!(read(&cache, &source, 0..100_000).await == Ok((Verdict::Filled, source.bytes(0..100_000))));
}

#[tokio::test]
async fn faults_of_the_source_are_named_and_not_kept() {
    let gone = FillError::Unavailable("connection refused".into());
    for (faults, error) in [
        (vec![Fault::Fails(FillError::NotFound)], FillError::NotFound),
        (vec![Fault::Fails(gone.clone())], gone.clone()),
        (vec![Fault::EndsAfter(70_000), Fault::EndsAfter(65_536)], FillError::Short { expected: 100_000, received: 65_536 }),
        (vec![Fault::Panics], FillError::Unavailable("the fill was broken off".into())),
    ] {
        let (cache, source) = (cache(64 << 20), Fake::new(100_000));
        *source.faults.lock() = faults.into_iter().rev().collect();
        assert_eq!(read(&cache, &source, 0..100_000).await, Err(error));
        assert!(read(&cache, &source, 0..100_000).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..100_000)));
        assert_eq!(cache.stats().flights, 0);
    }
}

#[tokio::test]
async fn a_fill_that_ends_early_is_finished_by_another_without_the_reader_noticing() {
    let (cache, source) = (cache(64 << 20), Fake::new(100_000));
    source.faults.lock().push(Fault::EndsAfter(70_000));
    assert!(read(&cache, &source, 0..100_000).await.map(|(_, bytes)| bytes) == Ok(source.bytes(0..100_000)));
    assert_eq!(source.fills(), 2);
}

#[tokio::test]
async fn a_slice_that_the_source_made_too_long_is_not_kept() {
    let (cache, source) = (cache(64 << 20), Fake::new(100_000));
    source.faults.lock().push(Fault::SendsTooMuch);
    for fills in 1..=2 {
        let (verdict, bytes) = read(&cache, &source, 0..100_000).await.expect("the bytes of the slice are right");
        assert!(verdict == Verdict::Filled && bytes == source.bytes(0..100_000));
        assert_eq!(source.fills(), fills);
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
    cache.forget(&key());
    let opened = cache.open(&key(), 1 << 40, &source).await.expect("the hint is only a hint");
    assert_eq!(opened.generation().length, 0);
}

#[tokio::test]
async fn forgetting_an_object_brings_the_new_version() {
    let (cache, source) = (cache(64 << 20), Fake::new(10));
    read(&cache, &source, 0..10).await.expect("fills");
    source.version.store(2, Ordering::Relaxed);
    cache.forget(&key());
    assert!(read(&cache, &source, 0..10).await == Ok((Verdict::Filled, source.bytes(0..10))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any ranges of an object, in any order, give exactly its bytes, and no slice is filled twice while there is room.
    #[test]
    fn ranges_give_exact_bytes(length in 1..(5 * SLICE as u64), cuts in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (cache, source) = (cache(64 << 20), Fake::new(length));
            for (a, b) in cuts {
                let (a, b) = ((a * length as f64) as u64, (b * length as f64) as u64);
                let range = a.min(b)..a.max(b) + 1;
                let (_, bytes) = read(&cache, &source, range.clone()).await.expect("reads");
                assert!(bytes == source.bytes(range));
            }
            assert!(source.fills.lock().values().all(|fills| *fills == 1));
        });
    }
}

//! A thousand viewers of one cold object.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const VIEWERS: usize = 1000;
const LENGTH: u64 = 100 << 20;
const MIB: usize = 1 << 20;

/// An object whose every MiB is the same; writes it in chunks, one per permit.
struct Film {
    mib: Vec<u8>,
    gate: tokio::sync::Semaphore,
    asks: parking_lot::Mutex<std::collections::HashMap<u64, u32>>,
    chunks: AtomicU64,
}

impl Source for Film {
    async fn fill(self: Arc<Self>, want: Want, mut filler: Filler) -> Result<(), FillError> {
        *self.asks.lock().entry(want.range.start).or_default() += 1;
        filler.head(Fake::of(LENGTH).generation())?;
        for chunk in self.mib.chunks(MIB / 4) {
            self.gate.acquire().await.expect("open").forget();
            self.chunks.fetch_add(1, Ordering::AcqRel);
            filler.write(chunk)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_thousand_viewers_of_a_cold_object_cost_one_fill_a_slice_and_wait_no_longer_than_the_first() {
    let mib: Vec<u8> = (0..MIB as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let (gate, asks, chunks) = (tokio::sync::Semaphore::new(0), parking_lot::Mutex::default(), AtomicU64::new(0));
    let source = Arc::new(Film { mib, gate, asks, chunks });
    let cache = Cache::new(Config { slice_bytes: MIB, memory_wait_max: Duration::from_secs(60), ..config(256 << 20) });
    let first_bytes = Arc::new(AtomicU64::new(0));
    let mut viewers: Vec<_> = (0..VIEWERS)
        .map(|_| {
            let (cache, source, first_bytes) = (cache.clone(), source.clone(), first_bytes.clone());
            tokio::spawn(async move {
                let opened = cache.open(&key(), 0, &source).await.expect("opens");
                let mut reader = cache.read(&key(), opened, 0..LENGTH, &source).await.expect("reads");
                let (mut at, mut first_at) = (0, None);
                while let Some(chunk) = reader.next().await {
                    let chunk = chunk.expect("bytes");
                    if first_at.is_none() {
                        first_at = Some(source.chunks.load(Ordering::Acquire));
                        first_bytes.fetch_add(1, Ordering::AcqRel);
                    }
                    let ends = [&chunk[..8], &chunk[chunk.len() - 8..]];
                    let within = [at % MIB, at % MIB + chunk.len() - 8];
                    assert!(std::iter::zip(ends, within).all(|(bytes, within)| *bytes == source.mib[within..within + 8]));
                    at += chunk.len();
                }
                (at as u64, first_at.expect("bytes"))
            })
        })
        .collect();
    becomes(|| cache.stats().collapsed == VIEWERS as u64 - 1).await;
    source.gate.add_permits(1);
    becomes(|| first_bytes.load(Ordering::Acquire) == VIEWERS as u64).await;
    let leader = viewers.remove(0);
    leader.abort();
    assert!(leader.await.is_err(), "it left");
    source.gate.add_permits(1 << 20);
    for viewer in viewers {
        let (bytes, first_at) = viewer.await.expect("no panic");
        assert_eq!((bytes, first_at), (LENGTH, 1), "the first byte with the first chunk of the fill, as the leader");
    }
    let asks = source.asks.lock();
    assert!(asks.len() == 100 && asks.values().all(|asks| *asks == 1), "{asks:?}");
    assert_eq!(cache.stats().bytes_filled, LENGTH);
}

//! The cache as a whole, against a source and an SSD tier that do what they are told.

mod ahead;
mod attempts;
mod cold;
mod content;
pub(crate) mod disk;
mod purging;
mod ranges;
mod reading;
mod restarts;
mod source;
mod ssd;
mod stampede;
mod stocking;

use std::task::Poll;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future};

use super::*;
use disk::Double;
use source::{Fake, Fault};

const SLICE: usize = 256 << 10;
/// What the source writes at once.
const CHUNK: usize = 64 << 10;

fn config(ram_bytes: u64) -> Config {
    Config { ram_bytes, slice_bytes: SLICE, policy: Policy::Lru, memory_wait_max: Duration::from_millis(50), ..Config::default() }
}

fn cache(ram_bytes: u64) -> Cache {
    Cache::new(config(ram_bytes))
}

/// A cache with an SSD tier that takes all it is offered.
fn tiers(config: Config) -> (Cache, Arc<Double>) {
    let budget = Arc::new(config.slices_budget());
    let purges = Arc::new(Purges::default());
    let double = Arc::new(Double::new(purges.clone()));
    (Cache::assemble(config, budget, purges, Tier::Open(Ssd::Double(double.clone()))), double)
}

/// The same SSD tier after a restart.
fn restarted(config: Config, double: &Arc<Double>) -> Cache {
    let budget = Arc::new(config.slices_budget());
    Cache::assemble(config, budget, double.purges(), Tier::Open(Ssd::Double(double.clone())))
}

fn key() -> Arc<str> {
    "/titles/a/1.m4s".into()
}

async fn reader(cache: &Cache, source: &Arc<Fake>, range: Range<u64>) -> Result<Reader, FillError> {
    let opened = cache.open(&key(), range.start, source).await?;
    cache.read(&key(), opened, range, source).await
}

async fn read(cache: &Cache, source: &Arc<Fake>, range: Range<u64>) -> Result<(Verdict, Vec<u8>), FillError> {
    let reader = reader(cache, source, range).await?;
    let verdict = reader.verdict();
    let chunks: Vec<Bytes> = reader.try_collect().await?;
    Ok((verdict, chunks.concat()))
}

/// Waits until `is_so`, which nobody tells; it must become so without anything more being done.
async fn becomes(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it becomes so");
}

/// Polls it this once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

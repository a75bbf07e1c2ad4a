//! What a cache says that it holds.

use super::*;

/// What the slices of the object are known by.
fn expected(cache: &Cache, slices: Range<u64>) -> Vec<u64> {
    let mut hashes: Vec<_> = slices.map(|index| cache.slice_hash(&key(), index)).collect();
    hashes.sort_unstable();
    hashes
}

fn hashes(cache: &Cache) -> Vec<u64> {
    let mut hashes = Vec::new();
    cache.hashes(|hash| hashes.push(hash));
    hashes.sort_unstable();
    hashes
}

#[tokio::test]
async fn slices_are_listed_from_when_they_are_kept_until_they_leave() {
    let (cache, source) = (cache(64 << 20), Fake::new(3 * SLICE as u64));
    assert!(hashes(&cache).is_empty());
    read(&cache, &source, 0..2 * SLICE as u64).await.expect("fills");
    becomes(|| cache.stats().slices == 2).await;
    assert_eq!(hashes(&cache), expected(&cache, 0..2));
    read(&cache, &source, 0..3 * SLICE as u64).await.expect("fills");
    becomes(|| cache.stats().slices == 3).await;
    assert_eq!(hashes(&cache), expected(&cache, 0..3), "what is read again is there once");
    cache.0.memory.clear();
    assert!(hashes(&cache).is_empty());
}

#[tokio::test]
async fn what_is_evicted_is_listed_no_more() {
    let (cache, source) = (cache(16 * SLICE as u64), Fake::new(40 * SLICE as u64));
    for slice in 0..40 {
        read(&cache, &source, slice * SLICE as u64..(slice + 1) * SLICE as u64).await.expect("fills");
    }
    becomes(|| cache.stats().flights == 0 && cache.stats().evictions > 0).await;
    assert_eq!(hashes(&cache).len() as u64, cache.stats().slices);
    assert!(hashes(&cache).iter().all(|hash| expected(&cache, 0..40).contains(hash)));
}

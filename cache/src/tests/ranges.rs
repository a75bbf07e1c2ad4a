//! Exact bytes, whatever the range.

use proptest::prelude::*;

use super::*;

const LITTLE: usize = 4096;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// Places around slice boundaries of an object of `length` bytes with slices of `slice` bytes.
fn boundaries(length: u64, slice: u64) -> Vec<u64> {
    let near =
        (0..=length.div_ceil(slice)).flat_map(|index| [(index * slice).saturating_sub(1), index * slice, index * slice + 1]);
    let mut places: Vec<_> = near.chain([length.saturating_sub(1), length]).filter(|at| *at <= length).collect();
    places.sort();
    places.dedup();
    places
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any ranges of an object, in any order, give exactly its bytes, and no slice is filled twice while there is room.
    #[test]
    fn ranges_give_exact_bytes(length in 1..(5 * SLICE as u64), cuts in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 1..8)) {
        run(async {
            let (cache, source) = (cache(64 << 20), Fake::new(length));
            for (a, b) in cuts {
                let (a, b) = ((a * length as f64) as u64, (b * length as f64) as u64);
                let range = a.min(b)..a.max(b) + 1;
                let (_, bytes) = read(&cache, &source, range.clone()).await.expect("reads");
                assert!(bytes == source.bytes(range));
            }
            assert!(source.asks_by_slice().values().all(|asks| *asks == 1));
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// All pairs of places at and beside slice boundaries, of objects that end at a boundary, beside one, or anywhere; from the source, from RAM and
    /// from SSD.
    #[test]
    fn all_boundary_pairs_give_exact_bytes(
        slices in 0..4u64,
        rest in prop_oneof![Just(0), Just(1), Just(LITTLE as u64 - 1), 0..LITTLE as u64],
        is_warm in any::<bool>(),
    ) {
        let (slice, length) = (LITTLE as u64, slices * LITTLE as u64 + rest);
        run(async {
            let config = Config { slice_bytes: LITTLE, ..config(4 << 20) };
            let ((cache, double), source) = (tiers(config.clone()), Fake::new(length));
            if is_warm {
                read(&cache, &source, 0..length).await.expect("fills");
            }
            for start in boundaries(length, slice) {
                for end in boundaries(length, slice).into_iter().filter(|end| *end >= start) {
                    let expected = Ok(source.bytes(start..end));
                    assert!(read(&cache, &source, start..end).await.map(|(_, bytes)| bytes) == expected, "{start}..{end} of {length}");
                    becomes(|| cache.stats().flights == 0).await;
                    let restarted = restarted(config.clone(), &double);
                    assert!(read(&restarted, &source, start..end).await.map(|(_, bytes)| bytes) == expected, "{start}..{end} of {length}");
                }
            }
            // A range that begins at the object's end may be the first that is asked for, and is no slice's.
            let asks = source.asked.lock().iter().filter(|want| want.range.start < length.max(1)).count() as u64;
            assert!(asks <= length.div_ceil(slice).max(1), "{asks} for {length} bytes");
        });
    }
}

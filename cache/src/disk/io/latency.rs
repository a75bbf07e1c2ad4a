//! How long operations took, counted by many threads at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{LATENCY_BOUNDS_US, Latency};

/// [`Latency`] in the making.
#[derive(Default)]
pub(super) struct LatencyCounter {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl LatencyCounter {
    pub(super) fn count(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Latency {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        Latency { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_counted_under_the_first_bound_that_it_did_not_exceed() {
        let counter = LatencyCounter::default();
        [0, 32, 33, 8_388_608, 8_388_609].into_iter().for_each(|us| counter.count(Duration::from_micros(us)));
        let latency = counter.snapshot();
        let counted: Vec<_> = latency.buckets.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert_eq!(counted, [(0, &2), (1, &1), (18, &1), (19, &1)]);
        assert_eq!(latency.sum_us, 65 + 8_388_608 + 8_388_609);
        assert_eq!((latency.quantile_us(0.6), latency.quantile_us(1.0)), (Some(64), None));
    }
}

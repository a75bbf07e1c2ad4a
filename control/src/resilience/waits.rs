//! How long whoever wants a turn waits for it, where turns are few: what stands before a queue that does not go away.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The shortest wait since it was asked for last: with a standing queue even that is long (RFC 8289 §3.1).
pub(crate) struct Waits(AtomicU64);

impl Default for Waits {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Waits {
    /// Someone had his turn after so long.
    pub(crate) fn add(&self, wait: Duration) {
        self.0.fetch_min(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The shortest wait since the last call; none if nobody had a turn.
    pub(crate) fn take_shortest(&self) -> Duration {
        match self.0.swap(u64::MAX, Ordering::Relaxed) {
            u64::MAX => Duration::ZERO,
            nanos => Duration::from_nanos(nanos),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_wait_counts_and_only_once() {
        let waits = Waits::default();
        assert_eq!(waits.take_shortest(), Duration::ZERO);
        for ms in [30, 10, 20] {
            waits.add(Duration::from_millis(ms));
        }
        assert_eq!(waits.take_shortest(), Duration::from_millis(10));
        assert_eq!(waits.take_shortest(), Duration::ZERO);
    }
}

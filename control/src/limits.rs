//! How many requests a viewer, an operator or an address may send: a token bucket for each. Pure: takes the time.
//!
//! A bucket is one number, when it will be full again; one that is full need not be kept. What is kept is bounded: a table has a
//! young and an old generation, and a bucket that was not asked for during a whole generation is full again.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::identity::{operators::OperatorName, user::UserId};

const SHARDS: usize = 16;
/// Buckets in one generation of one shard: half a million in all, about 64 bytes each.
const BUCKETS_MAX: usize = 16_384;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Viewer(UserId),
    Operator(OperatorName),
    Address(IpAddr),
}

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second; 0 for no limit.
    pub per_second: u32,
    /// Requests at once, at least one.
    pub burst: u32,
}

impl Rate {
    /// What fills it by one.
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }

    /// From empty to full, in whole seconds.
    fn window_s(self) -> u64 {
        u64::from(self.burst).div_ceil(u64::from(self.per_second))
    }
}

/// The rate of each kind of caller.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// For one viewer.
    pub viewer: Rate,
    /// For one operator.
    pub operator: Rate,
    /// For one address from which requests come that are nobody's.
    pub address: Rate,
}

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    policy: &'static str,
    rate: Rate,
    /// How many more would be taken now.
    pub(crate) remaining: u32,
    /// Too many: after this the next one is taken.
    pub(crate) retry_after: Option<Duration>,
    /// Until the bucket is full.
    full_after: Duration,
}

impl Taken {
    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11 §3): the quota, and the seconds in which it comes back.
    pub(crate) fn policy(&self) -> String {
        format!("\"{}\";q={};w={}", self.policy, self.rate.burst, self.rate.window_s())
    }

    /// `RateLimit` (§4): what is left, and for how many seconds it may have to do.
    pub(crate) fn limit(&self) -> String {
        format!("\"{}\";r={};t={}", self.policy, self.remaining, self.retry_after.map_or(seconds(self.full_after), seconds))
    }

    /// `Retry-After`, in seconds.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after.map(seconds)
    }
}

/// Rounded up, so that nobody comes too early.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// What the limits were, for those who are told that they are over one.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { per_second, burst } = self.rate;
        write!(f, "one {} may send {per_second} requests a second, and {burst} at once", self.policy)
    }
}

/// Everyone's buckets.
pub(crate) struct Limits {
    rates: Rates,
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// Of one generation of one shard.
    buckets_max: usize,
}

#[derive(Default)]
struct Shard {
    young: HashMap<Who, Instant>,
    old: HashMap<Who, Instant>,
}

impl Limits {
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, shards: Default::default(), hasher: RandomState::new(), buckets_max: BUCKETS_MAX }
    }

    /// Takes one request of `who` out of his bucket. None where he has no limit.
    pub(crate) fn take(&self, who: Who, now: Instant) -> Option<Taken> {
        let (policy, rate) = match who {
            Who::Viewer(_) => ("viewer", self.rates.viewer),
            Who::Operator(_) => ("operator", self.rates.operator),
            Who::Address(_) => ("address", self.rates.address),
        };
        if rate.per_second == 0 {
            return None;
        }
        let mut shard = self.shards[self.hasher.hash_one(&who) as usize % SHARDS].lock();
        let missing = shard.full_at(&who).map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        let capacity = rate.interval() * rate.burst;
        let after = missing + rate.interval();
        if after > capacity {
            // Kept, so that who goes on asking is not forgotten.
            shard.keep(who, now + missing, self.buckets_max);
            return Some(Taken { policy, rate, remaining: 0, retry_after: Some(after - capacity), full_after: missing });
        }
        shard.keep(who, now + after, self.buckets_max);
        let remaining = (capacity - after).as_nanos() / rate.interval().as_nanos();
        Some(Taken { policy, rate, remaining: remaining as u32, retry_after: None, full_after: after })
    }
}

impl Shard {
    fn full_at(&self, who: &Who) -> Option<Instant> {
        self.young.get(who).or_else(|| self.old.get(who)).copied()
    }

    fn keep(&mut self, who: Who, full_at: Instant, buckets_max: usize) {
        if self.young.len() >= buckets_max && !self.young.contains_key(&who) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(who, full_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_second: u32, burst: u32) -> Limits {
        let rate = Rate { per_second, burst };
        Limits::new(Rates { viewer: rate, operator: rate, address: rate })
    }

    fn address(n: u32) -> Who {
        Who::Address(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_burst_is_taken_and_then_the_rate() {
        let (limits, start) = (limits(10, 3), Instant::now());
        let take = |ms| limits.take(address(1), start + Duration::from_millis(ms)).unwrap();
        assert_eq!([take(0).remaining, take(0).remaining, take(0).remaining], [2, 1, 0]);
        let refused = take(0);
        assert_eq!((refused.remaining, refused.retry_after), (0, Some(Duration::from_millis(100))));
        assert_eq!(take(99).retry_after, Some(Duration::from_millis(1)));
        assert_eq!(take(100).retry_after, None, "a refused request costs nothing");
        assert_eq!(take(100).retry_after, Some(Duration::from_millis(100)));
        assert_eq!(take(10_000).remaining, 2, "full again and no fuller");
        assert_eq!(limits.take(address(2), start).unwrap().remaining, 2, "another one has his own");
    }

    #[test]
    fn clients_are_told_in_the_words_of_the_draft() {
        let (limits, now) = (limits(2, 5), Instant::now());
        let taken = limits.take(address(1), now).unwrap();
        assert_eq!((taken.policy(), taken.limit()), ("\"address\";q=5;w=3".into(), "\"address\";r=4;t=1".into()));
        assert_eq!(taken.retry_after_s(), None);
        (0..4).for_each(|_| assert_eq!(limits.take(address(1), now).unwrap().retry_after, None));
        let refused = limits.take(address(1), now).unwrap();
        // The draft, §6: Retry-After "SHOULD NOT reference a point in time earlier than the end of the effective window".
        assert_eq!((refused.limit(), refused.retry_after_s()), ("\"address\";r=0;t=1".into(), Some(1)));
        assert_eq!(refused.to_string(), "one address may send 2 requests a second, and 5 at once");
    }

    #[test]
    fn viewers_and_operators_do_not_share() {
        let rates = |n| Rate { per_second: 1, burst: n };
        let limits = Limits::new(Rates { viewer: rates(1), operator: rates(2), address: Rate { per_second: 0, burst: 1 } });
        let now = Instant::now();
        let viewer = || Who::Viewer("a".parse().unwrap());
        assert_eq!(limits.take(viewer(), now).unwrap().retry_after, None);
        assert!(limits.take(viewer(), now).unwrap().retry_after.is_some());
        assert_eq!(limits.take(Who::Operator("a".parse().unwrap()), now).unwrap().remaining, 1);
        assert_eq!(limits.take(address(1), now), None, "no limit");
    }

    #[test]
    fn the_table_is_bounded_and_does_not_forgive_who_goes_on() {
        let (limits, now) = (Limits { buckets_max: 256, ..limits(1, 4) }, Instant::now());
        for n in 0..20_000 {
            limits.take(address(n), now);
            if n % 100 == 0 {
                limits.take(address(u32::MAX), now);
            }
        }
        assert!(limits.take(address(u32::MAX), now).unwrap().retry_after.is_some());
        for shard in &limits.shards {
            let shard = shard.lock();
            assert!(shard.young.len() + shard.old.len() <= 2 * limits.buckets_max);
        }
    }
}

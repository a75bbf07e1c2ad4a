//! Rates: how much may be sent by when.
//!
//! [`Bucket`] is the arithmetic and pure. [`Brake`] holds one QUIC connection to a rate, datagram by datagram; a [`Gate`] holds all bodies that
//! pass it to a rate together, piece by piece and in the order in which they ask. Who shares a gate is not known here.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::{Sleep, sleep_until};

use super::{Cap, Counters};

/// What a connection may send at once after it was silent: longer than the runtime's timer is late, shorter than what fills a router's buffer.
const CONNECTION_BURST: Duration = Duration::from_millis(5);
/// The least of it in bytes: sixteen datagrams, so that slow connections are not woken for each.
const CONNECTION_BURST_BYTES: u64 = 16 * 1452;
/// How long a connection that has to wait collects at most, so that it sends several datagrams then.
const CONNECTION_PAUSE_MAX: Duration = Duration::from_millis(4);
/// The least that a connection with a cap may have unacknowledged or unsent, and the time that its cap is multiplied with otherwise: what
/// lies there cannot be overtaken by what is more urgent, and is sent after its player has gone elsewhere.
const SEND_WINDOW_BYTES_MIN: u64 = 1 << 20;
const SEND_WINDOW: Duration = Duration::from_secs(2);
/// What may pass a gate at once after nothing did.
const GATE_BURST: Duration = Duration::from_millis(100);
/// What a body takes through a gate at a time: so much of a second's worth, within bounds. Others pass between two pieces, and who is new waits for
/// one piece of each.
const PIECES_PER_SECOND: u64 = 100;
const PIECE_BYTES: (u64, u64) = (16 << 10, 128 << 10);

/// A rate and what of it is used. Bytes are booked, and go when their time has come.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    bits_per_second: u64,
    burst: Duration,
    /// Until when the rate is used up by what is booked.
    booked: Option<Instant>,
}

impl Bucket {
    /// `burst`: how much of the time in which nothing was booked may be made up for.
    pub(crate) fn new(bits_per_second: u64, burst: Duration) -> Self {
        Self { bits_per_second: bits_per_second.max(1), burst, booked: None }
    }

    /// Books `bytes`, and says when they may go; that may have been some time ago.
    pub(crate) fn book(&mut self, bytes: u64, now: Instant) -> Instant {
        let start = self.next(now);
        self.booked = Some(start + self.takes(bytes));
        start
    }

    /// When what is booked next may go.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        self.booked.map_or(earliest, |booked| booked.max(earliest))
    }

    /// How much may go at once.
    pub(crate) fn credit(&self, now: Instant) -> u64 {
        let unused = now.saturating_duration_since(self.next(now));
        let bytes = unused.as_nanos() * u128::from(self.bits_per_second) / 8_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether it is as if nothing had ever been booked.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.booked.is_none_or(|booked| booked + self.burst <= now)
    }

    /// Goes by another rate from now on.
    pub(crate) fn retune(&mut self, bits_per_second: u64) {
        self.bits_per_second = bits_per_second.max(1);
    }

    fn takes(&self, bytes: u64) -> Duration {
        takes(bytes, self.bits_per_second)
    }
}

fn takes(bytes: u64, bits_per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(bits_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Holds a connection to a rate. Pure.
///
/// QUIC's own pacing (RFC 9002 §7.7) spreads a congestion window over a round trip. This is beside it, since a window cannot hold a rate: at a
/// round trip of 50 µs one of two datagrams, the least there may be, is 460 Mbit/s.
#[derive(Debug)]
pub(crate) struct Brake {
    bucket: Bucket,
    /// Nothing is sent before.
    held: Option<Instant>,
    /// What is sent next had to wait.
    waited: bool,
}

impl Brake {
    pub(crate) fn new(bits_per_second: u64) -> Self {
        let burst = takes(CONNECTION_BURST_BYTES, bits_per_second).max(CONNECTION_BURST);
        Self { bucket: Bucket::new(bits_per_second, burst), held: None, waited: false }
    }

    /// How many datagrams of `bytes` may go now; `None` until [`Self::due`].
    pub(crate) fn allows(&mut self, bytes: usize, now: Instant) -> Option<usize> {
        if self.held.is_some_and(|held| now < held) {
            return None;
        }
        self.held = None;
        let next = self.bucket.next(now);
        if next > now {
            self.held = Some(next + CONNECTION_PAUSE_MAX.min(self.bucket.burst / 2));
            self.waited = true;
            return None;
        }
        let datagrams = self.bucket.credit(now) / bytes.max(1) as u64;
        Some(usize::try_from(datagrams).unwrap_or(usize::MAX).max(1))
    }

    /// So much was sent. Says whether it had to wait before.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) -> bool {
        self.bucket.book(bytes as u64, now);
        std::mem::take(&mut self.waited)
    }

    /// Until when it is held, if it is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.held
    }

    /// What a connection with this cap may have unacknowledged or unsent, given what it might without.
    pub(crate) fn send_window_bytes(bits_per_second: u64, uncapped_bytes: u64) -> u64 {
        let bytes = (bits_per_second / 8).saturating_mul(SEND_WINDOW.as_secs());
        bytes.max(SEND_WINDOW_BYTES_MIN).min(uncapped_bytes)
    }
}

/// Where bodies that share a rate pass one after the other.
pub struct Gate {
    bucket: Mutex<Bucket>,
    cap: Cap,
    counters: Arc<Counters>,
}

impl Gate {
    /// Lets so much through in all.
    pub fn new(bits_per_second: u64, cap: Cap, counters: Arc<Counters>) -> Self {
        Self { bucket: Mutex::new(Bucket::new(bits_per_second, GATE_BURST)), cap, counters }
    }

    /// Lets so much through from now on.
    pub(crate) fn retune(&self, bits_per_second: u64) {
        self.bucket.lock().retune(bits_per_second);
    }

    /// Whether forgetting it and making it anew would make no difference.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.bucket.lock().is_fresh(now)
    }

    fn piece_bytes(&self) -> u64 {
        let (min, max) = PIECE_BYTES;
        (self.bucket.lock().bits_per_second / 8 / PIECES_PER_SECOND).clamp(min, max)
    }

    /// Takes its place in the row: when it may go, if not at once.
    fn book(&self, bytes: u64) -> Option<Instant> {
        let now = super::quic::now();
        let start = self.bucket.lock().book(bytes, now);
        if start <= now {
            return None;
        }
        self.counters.paced(self.cap).add(bytes);
        Some(start)
    }
}

/// A body's way through one gate after another.
pub(super) struct Passage {
    gates: Vec<Arc<Gate>>,
    pub(super) piece_bytes: usize,
    /// Gates that the piece has passed.
    passed: usize,
    /// Runs while it stands before the next.
    wait: Option<Pin<Box<Sleep>>>,
}

impl Passage {
    pub(super) fn new(gates: Vec<Arc<Gate>>) -> Self {
        let piece_bytes = gates.iter().map(|gate| gate.piece_bytes()).min().unwrap_or(PIECE_BYTES.1) as usize;
        Self { gates, piece_bytes, passed: 0, wait: None }
    }

    /// Ready once a piece of `bytes` has passed them all. The next gate is booked when the one before is passed, so that what waits for one
    /// does not use up another's rate.
    pub(super) fn poll_pass(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(gate) = self.gates.get(self.passed) {
            if self.wait.is_none() {
                self.wait = gate.book(bytes as u64).map(|start| Box::pin(sleep_until(start.into())));
            }
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            self.passed += 1;
        }
        self.passed = 0;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 1_000_000;

    fn clock() -> impl Fn(u64) -> Instant {
        // Some time after the clock's own beginning, so that a burst before it can be told.
        let start = Instant::now() + Duration::from_secs(1000);
        move |ms| start + Duration::from_millis(ms)
    }

    #[test]
    fn bytes_are_booked_one_after_the_other_at_the_rate() {
        let at = clock();
        // One byte a microsecond.
        let mut bucket = Bucket::new(8 * MBIT, Duration::ZERO);
        let starts: Vec<_> = (0..4).map(|_| bucket.book(10_000, at(0)) - at(0)).collect();
        assert_eq!(starts, [0, 10, 20, 30].map(Duration::from_millis));
        assert_eq!(bucket.book(1000, at(100)), at(100), "time that nobody used is lost");
        assert_eq!(bucket.book(1000, at(100)), at(101));
    }

    #[test]
    fn what_was_not_used_is_made_up_for_as_far_as_the_burst_goes() {
        let at = clock();
        let mut bucket = Bucket::new(8 * MBIT, Duration::from_millis(20));
        assert!(bucket.is_fresh(at(0)));
        assert_eq!(bucket.credit(at(0)), 20_000);
        assert_eq!(bucket.book(15_000, at(0)) + Duration::from_millis(20), at(0));
        assert_eq!(bucket.credit(at(0)), 5000);
        assert_eq!(bucket.book(10_000, at(0)) + Duration::from_millis(5), at(0), "it goes whole");
        assert_eq!((bucket.credit(at(0)), bucket.next(at(0))), (0, at(5)));
        assert!(!bucket.is_fresh(at(24)) && bucket.is_fresh(at(25)));
        assert_eq!(bucket.credit(at(10_000)), 20_000, "no more than the burst");
    }

    #[test]
    fn no_rate_and_no_number_of_bytes_is_too_much_for_the_arithmetic() {
        let at = clock();
        for rate in [0, 1, 100_000_000_000_000, u64::MAX] {
            let mut bucket = Bucket::new(rate, GATE_BURST);
            bucket.book(1 << 20, at(0));
            bucket.credit(at(1));
            assert!(takes(u64::MAX, rate) > Duration::ZERO, "{rate}");
        }
    }

    /// Whatever a connection is asked for, and however late the timer is.
    #[test]
    fn a_connection_never_sends_more_than_its_rate_and_one_burst() {
        for (rate, late_us) in [(MBIT, 0), (8 * MBIT, 1300), (100 * MBIT, 900), (10_000 * MBIT, 1500)] {
            let start = Instant::now() + Duration::from_secs(1000);
            let (mut brake, mut now, mut sent, mut turns) = (Brake::new(rate), start, 0, 0_u64);
            while now < start + Duration::from_secs(2) {
                turns += 1;
                match brake.allows(1452, now) {
                    Some(datagrams) => {
                        let bytes = datagrams.min(44) * 1452;
                        brake.sent(bytes, now);
                        sent += bytes as u64;
                    }
                    None => now = brake.due().expect("it is held") + Duration::from_micros(late_us),
                }
                let most = (now - start).as_secs_f64() * rate as f64 / 8.0 + brake.bucket.burst.as_secs_f64() * rate as f64 / 8.0;
                // One datagram goes at the very moment; the rest is rounding.
                assert!(sent as f64 <= most * 1.0001 + 1452.0, "{rate}: {sent} bytes, and at most {most}");
            }
            let least = 2.0 * rate as f64 / 8.0 * 0.99;
            assert!(sent as f64 >= least, "{rate}: {sent} bytes only");
            assert!(turns < 2 * 2000 + sent / 1452 / 4, "{rate}: {turns} turns");
        }
    }

    #[test]
    fn a_window_is_a_few_seconds_of_a_cap_and_never_larger_than_without() {
        let window = |rate| Brake::send_window_bytes(rate, 32 << 20);
        assert_eq!((window(MBIT), window(40 * MBIT), window(100_000 * MBIT)), (1 << 20, 10_000_000, 32 << 20));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_pass_a_gate_in_turns_and_together_at_its_rate() {
        let counters = Arc::new(Counters::default());
        // 1 MB/s, so pieces of 16 KiB; one burst is 100 000 bytes.
        let gate = Arc::new(Gate::new(8 * MBIT, Cap::Site, counters.clone()));
        let start = tokio::time::Instant::now();
        let (log, mut passed) = tokio::sync::mpsc::unbounded_channel();
        for body in 0..3 {
            let (gate, log) = (gate.clone(), log.clone());
            tokio::spawn(async move {
                let mut passage = Passage::new(vec![gate]);
                assert_eq!(passage.piece_bytes, 16 << 10);
                for _ in 0..20 {
                    std::future::poll_fn(|cx| passage.poll_pass(16 << 10, cx)).await;
                    log.send(body).expect("the test listens");
                }
            });
        }
        drop(log);
        let mut order = Vec::new();
        while let Some(body) = passed.recv().await {
            order.push(body);
        }
        // What is in all three but the last piece, less the burst; the timer counts whole milliseconds.
        let expected = Duration::from_millis((59 * 16_384 - 100_000) / 1000);
        let took = start.elapsed();
        assert!(took >= expected && took < expected + Duration::from_millis(5), "{took:?} and not {expected:?}");
        // The first to ask has the burst, seven pieces, and books one more; until it is done all have their turns.
        let mut rows = order[8..8 + 3 * 12].chunks(3);
        assert!(rows.all(|row| *row == [1, 2, 0]), "{order:?}");
        assert!(counters.paced(Cap::Site).value() >= 50 * 16_384 && counters.paced(Cap::Token).value() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_narrower_of_two_gates_decides_and_leaves_the_wider_one_to_others() {
        let counters = Arc::new(Counters::default());
        let narrow = Arc::new(Gate::new(8 * MBIT, Cap::Token, counters.clone()));
        let wide = Arc::new(Gate::new(16 * MBIT, Cap::Site, counters));
        let carry = |gates: Vec<Arc<Gate>>, pieces: u32| async move {
            let start = tokio::time::Instant::now();
            let mut passage = Passage::new(gates);
            for _ in 0..pieces {
                std::future::poll_fn(|cx| passage.poll_pass(16_000, cx)).await;
            }
            start.elapsed()
        };
        // 1.6 MB at 1 MB/s, while another takes what the site has left.
        let (both, other) = tokio::join!(carry(vec![narrow, wide.clone()], 100), carry(vec![wide], 100));
        let near = |took: Duration, ms: u64| (ms - 150..ms + 50).contains(&(took.as_millis() as u64));
        assert!(near(both, 1600), "{both:?}");
        assert!(near(other, 1600), "{other:?}");
    }
}

//! How busy an edge is and which tiers serve it, from what it has counted: pure, samples in and shares out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use wire::report::{HitRatios, Load};

/// What load is measured over, at least where there are samples so old.
const LOAD_WINDOW: Duration = Duration::from_secs(5);
/// What hit ratios are measured over.
const RATIO_WINDOW: Duration = Duration::from_secs(60);
/// Samples are no closer than this, so their number is bounded.
const SAMPLE_EVERY_MIN: Duration = Duration::from_millis(50);
/// What is sent says something about capacity from this part of the threads' time on.
const TELLING_CPU_SHARE: f64 = 0.5;

/// What an edge has counted since its start, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Body bytes sent to players.
    pub(super) bytes_sent: u64,
    /// Serving threads, and how long all of them have been running.
    pub(super) processor: Option<(usize, Duration)>,
    /// Slices that were wanted, by where they were.
    pub(super) from_ram: u64,
    pub(super) from_ssd: u64,
    pub(super) from_elsewhere: u64,
}

/// Keeps samples and draws conclusions.
pub(super) struct Meter {
    samples: VecDeque<(Instant, Counted)>,
    /// As configured, in bits per second.
    capacity: Option<u64>,
    /// As measured, in bits per second: the largest of what was sent while the threads were busy, by the part of their time that it took.
    measured: Option<u64>,
}

impl Meter {
    pub(super) fn new(capacity: Option<u64>) -> Self {
        Self { samples: VecDeque::new(), capacity, measured: None }
    }

    /// Takes a sample.
    pub(super) fn add(&mut self, now: Instant, counted: Counted) {
        if self.samples.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < SAMPLE_EVERY_MIN) {
            return;
        }
        self.samples.push_back((now, counted));
        // One that is older than the window stays, to measure from.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATIO_WINDOW) {
            self.samples.pop_front();
        }
        if let Some((bits_per_second, Some(cpu_share))) = self.lately()
            && cpu_share >= TELLING_CPU_SHARE
        {
            let all = (bits_per_second as f64 / cpu_share) as u64;
            self.measured = self.measured.max(Some(all));
        }
    }

    /// As of the last sample.
    pub(super) fn load(&self) -> Load {
        let (bits_per_second, cpu_share) = self.lately().unwrap_or_default();
        Load { bits_per_second, bits_per_second_max: self.capacity.or(self.measured), cpu_share }
    }

    /// Bits sent each second, and the part of the threads' time.
    fn lately(&self) -> Option<(u64, Option<f64>)> {
        let (took, from, to) = self.over(LOAD_WINDOW)?;
        let bits = to.bytes_sent.saturating_sub(from.bytes_sent) as f64 * 8.0;
        let cpu_share = from.processor.zip(to.processor).map(|((_, before), (threads, after))| {
            (after.saturating_sub(before).as_secs_f64() / took.as_secs_f64() / threads as f64).clamp(0.0, 1.0)
        });
        Some(((bits / took.as_secs_f64()) as u64, cpu_share))
    }

    /// Of what was wanted of late.
    pub(super) fn hit_ratios(&self) -> HitRatios {
        let Some((_, from, to)) = self.over(RATIO_WINDOW) else { return HitRatios::default() };
        let ram = to.from_ram.saturating_sub(from.from_ram);
        let ssd = to.from_ssd.saturating_sub(from.from_ssd);
        let all = ram + ssd + to.from_elsewhere.saturating_sub(from.from_elsewhere);
        let share = |of: u64| (all > 0).then(|| of as f64 / all as f64);
        HitRatios { ram: share(ram), ssd: share(ssd) }
    }

    /// The last sample, the latest one that is at least `window` older (or else the first), and the time between them.
    fn over(&self, window: Duration) -> Option<(Duration, Counted, Counted)> {
        let (end, to) = *self.samples.back()?;
        let mut older = self.samples.iter().rev().skip(1);
        let (begin, from) = older.find(|(at, _)| end - *at >= window).or_else(|| self.samples.front()).copied()?;
        let took = end - begin;
        (took > Duration::ZERO).then_some((took, from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 1_000_000;

    /// A second by a second: bits sent, and the part of two threads' time.
    fn metered(meter: &mut Meter, start: Instant, seconds: impl IntoIterator<Item = (u64, f64)>) {
        let (mut counted, mut cpu) = (Counted { processor: Some((2, Duration::ZERO)), ..Counted::default() }, 0.0);
        meter.add(start, counted);
        for (second, (bits, share)) in (1..).zip(seconds) {
            cpu += share * 2.0;
            counted.bytes_sent += bits / 8;
            counted.processor = Some((2, Duration::from_secs_f64(cpu)));
            meter.add(start + Duration::from_secs(second), counted);
        }
    }

    #[test]
    fn load_is_what_was_sent_over_the_last_seconds() {
        let mut meter = Meter::new(Some(100 * MBIT));
        assert_eq!(meter.load(), Load { bits_per_second_max: Some(100 * MBIT), ..Load::default() });
        metered(&mut meter, Instant::now(), (0..20).map(|second| (if second < 15 { 80 * MBIT } else { 20 * MBIT }, 0.25)));
        let load = meter.load();
        assert_eq!((load.bits_per_second, load.bits_per_second_max), (20 * MBIT, Some(100 * MBIT)));
        assert!(load.cpu_share.is_some_and(|share| (share - 0.25).abs() < 1e-6));
    }

    #[test]
    fn capacity_is_measured_once_the_threads_are_busy() {
        let start = Instant::now();
        let mut meter = Meter::new(None);
        metered(&mut meter, start, [(10 * MBIT, 0.1); 10]);
        assert_eq!(meter.load().bits_per_second_max, None, "an idle edge's traffic says nothing about what it can do");
        let mut meter = Meter::new(None);
        metered(&mut meter, start, [(300 * MBIT, 0.6); 10].into_iter().chain([(10 * MBIT, 0.1); 10]));
        assert_eq!(meter.load().bits_per_second_max, Some(500 * MBIT), "and what was once possible is remembered");
    }

    #[test]
    fn hit_ratios_are_those_of_the_last_minute() {
        let start = Instant::now();
        let mut meter = Meter::new(None);
        let at = |from_ram, from_ssd, from_elsewhere| Counted { from_ram, from_ssd, from_elsewhere, ..Counted::default() };
        meter.add(start, at(0, 0, 100));
        assert_eq!(meter.hit_ratios(), HitRatios::default());
        meter.add(start + Duration::from_secs(1), at(0, 0, 1000));
        assert_eq!(meter.hit_ratios(), HitRatios { ram: Some(0.0), ssd: Some(0.0) });
        meter.add(start + Duration::from_secs(61), at(50, 30, 1020));
        assert_eq!(meter.hit_ratios(), HitRatios { ram: Some(0.5), ssd: Some(0.3) });
        meter.add(start + Duration::from_secs(122), at(50, 30, 1020));
        assert_eq!(meter.hit_ratios(), HitRatios::default(), "nothing was wanted");
    }

    #[test]
    fn samples_are_bounded_however_often_they_are_taken() {
        let start = Instant::now();
        let mut meter = Meter::new(None);
        (0..1_000_000).for_each(|n| meter.add(start + Duration::from_millis(n), Counted::default()));
        assert!(meter.samples.len() <= 1202, "{}", meter.samples.len());
    }

    #[test]
    fn a_system_that_does_not_tell_of_threads_is_no_fault() {
        let start = Instant::now();
        let mut meter = Meter::new(None);
        meter.add(start, Counted::default());
        meter.add(start + Duration::from_secs(5), Counted { bytes_sent: 1000, ..Counted::default() });
        assert_eq!(meter.load(), Load { bits_per_second: 1600, bits_per_second_max: None, cpu_share: None });
    }
}

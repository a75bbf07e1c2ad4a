//! Who is let in when control is behind. Each request has a priority; how far control is behind is one number, the pressure, and the lowest
//! priorities are shed first. [`Pressure`] is pure; [`Admission`] keeps it current and counts.
//!
//! Control is behind when what is ready to run has to wait: for a core, a connection of the database, or a turn to search. For cores that is
//! measured by a task that asks to be woken at intervals: by how much it comes too late, at least, during a window (a standing queue, as
//! CoDel has it, RFC 8289 §3.1, and not one stall).

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What a request is for, the first to be shed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    Activity,
    Recommendations,
    Search,
    Catalogue,
    Resume,
    Playback,
    /// Edges, operators and monitoring: without them nobody could mend it. Not shed by pressure.
    Operation,
}

impl Priority {
    pub(crate) const ALL: [Self; 7] =
        [Self::Activity, Self::Recommendations, Self::Search, Self::Catalogue, Self::Resume, Self::Playback, Self::Operation];

    /// The share of all requests in progress that there may be when one of this priority is let in, in percent.
    const fn room_percent(self) -> usize {
        match self {
            Self::Activity => 50,
            Self::Recommendations => 60,
            Self::Search => 70,
            Self::Catalogue => 80,
            Self::Resume => 90,
            Self::Playback => 95,
            Self::Operation => 100,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Activity => "activity",
            Self::Recommendations => "recommendations",
            Self::Search => "search",
            Self::Catalogue => "catalogue",
            Self::Resume => "resume",
            Self::Playback => "playback",
            Self::Operation => "operation",
        })
    }
}

/// Priorities that pressure sheds.
const SHED: u32 = 6;
/// What a window adds to the pressure for each time that the lag is longer than the wanted one.
const RISE: f64 = 0.04;
/// What a window adds at most once all but playback is shed: what was let in before needs time to be done. From none to all of playback in four
/// seconds.
const RISE_LAST: f64 = 0.002;
/// A lag counts as at most this many times the wanted one: from none to all in half a second.
const EXCESS_MAX: f64 = 4.0;
/// What a window without lag takes from it: from all to none in two and a half seconds.
const FALL: f64 = 0.02;

/// How far control is behind, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub(crate) struct Pressure(f64);

impl Pressure {
    /// From 0 to 1.
    pub(crate) fn value(self) -> f64 {
        self.0
    }

    /// A window later, in which what was ready waited for `lag`, and before that for `before`, where `wanted` is allowed.
    pub(crate) fn after(self, before: Duration, lag: Duration, wanted: Duration) -> Self {
        let excess = lag.as_secs_f64() / wanted.as_secs_f64() - 1.0;
        let change = match excess {
            // A queue that shrinks needs time and no more pressure: it would be more than is needed.
            _ if excess > 0.0 && lag < before => 0.0,
            _ if excess > 0.0 => RISE * excess.min(EXCESS_MAX),
            _ => FALL * excess,
        };
        let all_others = f64::from(Priority::Playback as u32) / f64::from(SHED);
        let most = if self.0 < all_others { all_others } else { self.0 + RISE_LAST };
        Self((self.0 + change).clamp(0.0, most.min(1.0)))
    }

    fn or(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    /// No more than sheds `priority` and all that are less urgent.
    fn at_most(self, priority: Priority) -> Self {
        Self(self.0.min(f64::from(priority as u32 + 1) / f64::from(SHED)))
    }

    /// The share of requests of `priority` that is shed: none at first, then more and more, then all, one priority after the other.
    pub(crate) fn sheds(self, priority: Priority) -> f64 {
        let rank = f64::from(priority as u32);
        if priority as u32 >= SHED { 0.0 } else { (self.0 * f64::from(SHED) - rank).clamp(0.0, 1.0) }
    }
}

/// When requests are shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overload {
    /// How long what is ready to run may wait.
    pub lag: Duration,
    /// Requests in progress, at most.
    pub requests_max: usize,
}

impl Default for Overload {
    fn default() -> Self {
        Self { lag: Duration::from_millis(20), requests_max: 4096 }
    }
}

/// The measuring task asks to be woken this often.
const TICK: Duration = Duration::from_millis(10);
/// Of as many ticks the shortest lag counts.
const TICKS: usize = 5;
/// How finely the pressure is kept.
const SCALE: f64 = 1e6;

/// Where requests wait for something else than a core.
pub(crate) struct Queue<'a> {
    /// Of the requests that wait there. To shed what is more urgent would not make it shorter.
    pub(crate) most_urgent: Priority,
    /// How long was waited there at least, since this was asked last.
    pub(crate) shortest_wait: &'a (dyn Fn() -> Duration + Sync),
}

/// Lets requests in.
pub(crate) struct Admission {
    rules: Overload,
    /// In parts of [`SCALE`].
    pressure: AtomicU32,
    in_progress: AtomicUsize,
    counts: [Counts; Priority::ALL.len()],
}

#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    shed: AtomicU64,
    crowded_out: AtomicU64,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shed {
    #[error("control is behind, and others come first")]
    Behind,
    #[error("too many requests are in progress")]
    Crowded,
}

/// A request that was let in, until it is answered.
pub(crate) struct Admitted<'a>(&'a AtomicUsize);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(crate) fn new(rules: Overload) -> Self {
        Self { rules, pressure: AtomicU32::new(0), in_progress: AtomicUsize::new(0), counts: Default::default() }
    }

    /// Lets a request in, or says why not.
    pub(crate) fn admit(&self, priority: Priority) -> Result<Admitted<'_>, Shed> {
        let counts = &self.counts[priority as usize];
        let turn = counts.asked.fetch_add(1, Ordering::Relaxed);
        if is_due(turn, self.pressure().sheds(priority)) {
            counts.shed.fetch_add(1, Ordering::Relaxed);
            return Err(Shed::Behind);
        }
        let others = self.in_progress.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(&self.in_progress);
        if others * 100 >= self.rules.requests_max * priority.room_percent() {
            counts.crowded_out.fetch_add(1, Ordering::Relaxed);
            return Err(Shed::Crowded);
        }
        Ok(admitted)
    }

    pub(crate) fn pressure(&self) -> Pressure {
        Pressure(f64::from(self.pressure.load(Ordering::Relaxed)) / SCALE)
    }

    /// Asked for, shed by pressure, and refused for want of room.
    pub(crate) fn counts(&self, priority: Priority) -> (u64, u64, u64) {
        let Counts { asked, shed, crowded_out } = &self.counts[priority as usize];
        (asked.load(Ordering::Relaxed), shed.load(Ordering::Relaxed), crowded_out.load(Ordering::Relaxed))
    }

    pub(crate) fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// Keeps the pressure current until `stop`.
    pub(crate) async fn run(&self, queues: &[Queue<'_>], stop: CancellationToken) {
        let mut was_shedding = false;
        // Of cores, then of the queues.
        let mut states = vec![(Pressure::default(), Duration::ZERO); 1 + queues.len()];
        loop {
            let lag = tokio::select! {
                () = stop.cancelled() => return,
                lag = shortest_lag() => lag,
            };
            let cores = (Priority::Playback, lag);
            let lags = std::iter::once(cores).chain(queues.iter().map(|queue| (queue.most_urgent, (queue.shortest_wait)())));
            for ((pressure, before), (most_urgent, lag)) in states.iter_mut().zip(lags) {
                *pressure = pressure.after(*before, lag, self.rules.lag).at_most(most_urgent);
                *before = lag;
            }
            let pressure = states.iter().map(|(pressure, _)| *pressure).fold(Pressure::default(), Pressure::or);
            self.set(pressure);
            let is_shedding = pressure.sheds(Priority::Activity) > 0.0;
            if is_shedding && !was_shedding {
                tracing::warn!(lags = ?states.iter().map(|(_, lag)| *lag).collect::<Vec<_>>(), "control is behind: what is least urgent is answered 503 until it is not");
            }
            was_shedding = is_shedding;
        }
    }

    fn set(&self, Pressure(pressure): Pressure) {
        self.pressure.store((pressure * SCALE) as u32, Ordering::Relaxed);
    }
}

/// By how much a task comes too late, at least, during a window.
async fn shortest_lag() -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..TICKS {
        let due = Instant::now() + TICK;
        sleep_until(due).await;
        shortest = shortest.min(due.elapsed());
    }
    shortest
}

/// Whether the `turn`th is one of the given share: as evenly spread as can be.
fn is_due(turn: u64, share: f64) -> bool {
    // Weyl's sequence of the golden ratio.
    let place = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / 2_f64.powi(64);
    place < share
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Duration = Duration::from_millis(10);

    fn admission(pressure: f64) -> Admission {
        let admission = Admission::new(Overload { lag: WANTED, requests_max: 100 });
        admission.set(Pressure(pressure));
        admission
    }

    #[test]
    fn one_priority_after_the_other_is_shed_as_pressure_rises() {
        let shed = |pressure: f64| Priority::ALL.map(|priority| (Pressure(pressure).sheds(priority) * 100.0).round());
        assert_eq!(shed(0.0), [0.0; 7]);
        assert_eq!(shed(0.5 / 6.0), [50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(shed(2.25 / 6.0), [100.0, 100.0, 25.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(shed(5.0 / 6.0), [100.0, 100.0, 100.0, 100.0, 100.0, 0.0, 0.0]);
        assert_eq!(shed(1.0), [100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 0.0]);
    }

    #[test]
    fn what_is_shed_is_the_share_that_the_curve_says() {
        for percent in [1, 10, 33, 50, 99] {
            let admission = admission(f64::from(percent) / 100.0 / 6.0);
            let shed = (0..10_000).filter(|_| admission.admit(Priority::Activity).is_err()).count();
            assert!(shed.abs_diff(100 * percent as usize) <= 10, "{percent} %: {shed} of 10000");
            assert!(admission.admit(Priority::Recommendations).is_ok());
            assert_eq!(admission.counts(Priority::Activity), (10_000, shed as u64, 0));
        }
    }

    #[test]
    fn playback_is_shed_slowly_and_only_once_all_else_is() {
        let late = |pressure: Pressure| pressure.after(Duration::ZERO, 100 * WANTED, WANTED);
        let mut pressure = Pressure::default();
        while pressure.sheds(Priority::Resume) < 1.0 {
            pressure = late(pressure);
            assert_eq!(pressure.sheds(Priority::Playback), 0.0, "{pressure:?}");
        }
        // A second, and then as long as it may take.
        let second = (0..20).fold(pressure, |pressure, _| late(pressure));
        assert!((0.2..0.3).contains(&second.sheds(Priority::Playback)), "{second:?}");
        assert_eq!((0..80).fold(second, |pressure, _| late(pressure)), Pressure(1.0));
    }

    /// Requests that need more time than there is: the pressure settles where as much is shed as must be.
    #[test]
    fn pressure_rises_until_the_queue_stops_growing_and_falls_when_it_is_over() {
        /// A window is 50 ms, on one core.
        const WINDOW_MS: f64 = 50.0;
        let mut pressure = Pressure::default();
        let (mut queue_ms, mut lag) = (0.0_f64, Duration::ZERO);
        // Work that comes in each window, by priority: five times what there is time for, a tenth of it playback.
        let offered = [100.0, 50.0, 50.0, 15.0, 10.0, 25.0];
        let mut playback_shed = 0.0;
        for window in 0..400 {
            let load = if window < 200 { 1.0 } else { 0.1 };
            for (priority, work) in Priority::ALL.into_iter().zip(offered) {
                queue_ms += work * load * (1.0 - pressure.sheds(priority));
            }
            queue_ms = (queue_ms - WINDOW_MS).max(0.0);
            let now = Duration::from_secs_f64(queue_ms / 1000.0);
            pressure = pressure.after(lag, now, WANTED);
            lag = now;
            playback_shed += pressure.sheds(Priority::Playback);
            if (50..200).contains(&window) {
                assert!(pressure.sheds(Priority::Activity) == 1.0, "window {window}: {pressure:?}");
                assert!(queue_ms < 200.0, "window {window}: {queue_ms} ms wait");
            }
        }
        assert_eq!((playback_shed, pressure), (0.0, Pressure(0.0)));
    }

    #[test]
    fn room_is_kept_for_what_is_more_urgent() {
        let admission = admission(0.0);
        let mut inside = Vec::new();
        let expected = [50, 60, 70, 80, 90, 95, 100];
        for (priority, expected) in Priority::ALL.into_iter().zip(expected) {
            while let Ok(admitted) = admission.admit(priority) {
                inside.push(admitted);
            }
            assert_eq!((inside.len(), admission.in_progress()), (expected, expected), "{priority}");
            assert_eq!(admission.counts(priority).2, 1);
        }
        inside.truncate(10);
        assert!(admission.admit(Priority::Activity).is_ok());
    }

    #[tokio::test]
    async fn a_busy_runtime_is_told_by_its_lag() {
        let admission = admission(0.0);
        let stop = CancellationToken::new();
        let busy = async {
            // One thread for all: while this computes nothing else does.
            while admission.pressure().sheds(Priority::Search) == 0.0 {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(50) {
                    std::hint::spin_loop();
                }
                tokio::task::yield_now().await;
            }
            while admission.pressure() != Pressure(0.0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        tokio::join!(admission.run(&[], stop.clone()), busy);
    }

    #[tokio::test]
    async fn a_queue_sheds_what_waits_in_it_and_nothing_that_is_more_urgent() {
        let admission = admission(0.0);
        let stop = CancellationToken::new();
        let growing = AtomicU64::new(100);
        let shortest_wait = || Duration::from_millis(growing.fetch_add(1, Ordering::Relaxed));
        let queues = [Queue { most_urgent: Priority::Search, shortest_wait: &shortest_wait }];
        let watched = async {
            while admission.pressure().sheds(Priority::Search) < 1.0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let asked = growing.load(Ordering::Relaxed);
            while growing.load(Ordering::Relaxed) < asked + 10 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(admission.pressure().sheds(Priority::Catalogue), 0.0);
            stop.cancel();
        };
        tokio::join!(admission.run(&queues, stop.clone()), watched);
    }
}

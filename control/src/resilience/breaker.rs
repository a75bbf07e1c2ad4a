//! A circuit breaker: what fails more often than not is left alone for a while, then tried by one call at a time. Pure: takes the time.

use std::time::{Duration, Instant};

/// Calls are counted for this long, in two halves: what is older than both is forgotten.
const HALF_WINDOW: Duration = Duration::from_secs(5);
/// Fewer calls say nothing.
const CALLS_MIN: u32 = 20;
/// How long what failed is left alone at first; each trial that fails doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// And at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Closed while at least half of the calls succeed; open after that, until one that was let through succeeds.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { half_ends: Instant, now: Counts, before: Counts },
    Open { next_trial: Instant, pause: Duration },
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    calls: u32,
    failures: u32,
}

/// A call that may be made. Its outcome goes to [`Breaker::ended`]; one that is given up before it ended has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Usual,
    Trial,
}

impl Breaker {
    pub(crate) fn closed(now: Instant) -> Self {
        Self { state: State::closed(now) }
    }

    /// Whether a call may be made now. While it is open one is let through at each end of its pause.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Pass> {
        match &mut self.state {
            State::Closed { .. } => Some(Pass::Usual),
            State::Open { next_trial, pause } if now >= *next_trial => {
                *next_trial = now + *pause;
                Some(Pass::Trial)
            }
            State::Open { .. } => None,
        }
    }

    /// Takes a call's outcome. Whether it opens or closes by that.
    pub(crate) fn ended(&mut self, pass: Pass, succeeded: bool, at: Instant) -> Option<Change> {
        match (&mut self.state, pass) {
            (State::Closed { half_ends, now, before }, _) => {
                if at >= *half_ends {
                    // Nothing is left of calls that are two halves old.
                    *before = if at < *half_ends + HALF_WINDOW { *now } else { Counts::default() };
                    *now = Counts::default();
                    *half_ends = at + HALF_WINDOW;
                }
                now.calls += 1;
                now.failures += u32::from(!succeeded);
                let (calls, failures) = (now.calls + before.calls, now.failures + before.failures);
                let opens = calls >= CALLS_MIN && failures * 2 > calls;
                opens.then(|| {
                    self.state = State::Open { next_trial: at + PAUSE_MIN, pause: PAUSE_MIN };
                    Change::Opened
                })
            }
            (State::Open { .. }, Pass::Trial) if succeeded => {
                self.state = State::closed(at);
                Some(Change::Closed)
            }
            (State::Open { next_trial, pause }, Pass::Trial) => {
                *pause = (*pause * 2).min(PAUSE_MAX);
                *next_trial = at + *pause;
                None
            }
            // Begun before it opened.
            (State::Open { .. }, Pass::Usual) => None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }
}

impl State {
    fn closed(now: Instant) -> Self {
        Self::Closed { half_ends: now + HALF_WINDOW, now: Counts::default(), before: Counts::default() }
    }
}

/// For the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Opened,
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(breaker: &mut Breaker, succeeds: bool, at: Instant) -> Option<Pass> {
        let pass = breaker.admit(at)?;
        breaker.ended(pass, succeeds, at);
        Some(pass)
    }

    fn opened(start: Instant) -> Breaker {
        let mut breaker = Breaker::closed(start);
        (0..CALLS_MIN).for_each(|_| assert_eq!(call(&mut breaker, false, start), Some(Pass::Usual)));
        assert!(breaker.is_open());
        breaker
    }

    #[test]
    fn it_opens_when_more_than_half_of_enough_calls_fail() {
        let start = Instant::now();
        let mut half = Breaker::closed(start);
        (0..1000).for_each(|n| _ = call(&mut half, n % 2 == 0, start));
        assert!(!half.is_open());
        _ = call(&mut half, false, start);
        assert!(half.is_open());
        let mut few = Breaker::closed(start);
        (1..CALLS_MIN).for_each(|_| _ = call(&mut few, false, start));
        assert!(!few.is_open());
    }

    #[test]
    fn what_failed_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut breaker = Breaker::closed(start);
        for n in 0..100 {
            _ = call(&mut breaker, false, start + n * HALF_WINDOW);
        }
        assert!(!breaker.is_open(), "one call in five seconds is too few to judge by");
        // Of two halves both count.
        (1..CALLS_MIN).for_each(|_| _ = call(&mut breaker, false, start + 200 * HALF_WINDOW));
        _ = call(&mut breaker, false, start + 201 * HALF_WINDOW);
        assert!(breaker.is_open());
    }

    #[test]
    fn while_open_one_call_is_let_through_at_the_end_of_each_longer_pause() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let (mut at, mut pause) = (start, PAUSE_MIN);
        for _ in 0..10 {
            assert_eq!(call(&mut breaker, false, at + pause - Duration::from_millis(1)), None);
            at += pause;
            assert_eq!(call(&mut breaker, false, at), Some(Pass::Trial));
            assert_eq!(breaker.admit(at), None);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        assert_eq!(call(&mut breaker, true, at + pause), Some(Pass::Trial));
        assert!(!breaker.is_open());
        assert_eq!(call(&mut breaker, false, at + pause), Some(Pass::Usual), "it begins anew");
    }

    #[test]
    fn a_trial_that_is_given_up_makes_room_for_the_next_one() {
        let start = Instant::now();
        let mut breaker = opened(start);
        assert_eq!(breaker.admit(start + PAUSE_MIN), Some(Pass::Trial));
        assert_eq!(breaker.admit(start + PAUSE_MIN), None);
        assert_eq!(breaker.admit(start + 2 * PAUSE_MIN), Some(Pass::Trial));
    }

    #[test]
    fn a_call_from_before_neither_closes_it_nor_counts() {
        let start = Instant::now();
        let mut breaker = opened(start);
        assert_eq!(breaker.ended(Pass::Usual, true, start), None);
        assert!(breaker.is_open());
    }
}

//! How far ahead of a viewer slices are fetched. Pure.
//!
//! The window follows what was seen at the last slice boundary: too late makes it longer, and so early that one slice less would have been
//! in time makes it shorter. So a viewer who reads slowly has one slice fetched ahead, and one who reads faster than a single fill brings has
//! several fills under way.

use std::time::{Duration, Instant};

/// A reader's window.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    window: u64,
    window_max: u64,
    turned: Option<Instant>,
}

/// How the fill of a slice stood when the viewer came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stood {
    /// Nobody had begun it for this viewer.
    NotAhead,
    /// Under way.
    Filling,
    /// Over, since then.
    Ended(Instant),
}

impl Pace {
    pub(crate) fn new(window_max: u32) -> Self {
        let window_max = u64::from(window_max);
        Self { window: window_max.min(1), window_max, turned: None }
    }

    /// Slices to have fetched ahead.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// The viewer comes to a slice.
    pub(crate) fn turn(&mut self, now: Instant, next: Stood) {
        let slice_took = self.turned.replace(now).map(|turned| now.saturating_duration_since(turned));
        match next {
            Stood::NotAhead => {}
            Stood::Filling => self.window = (self.window + 1).min(self.window_max),
            Stood::Ended(ended) if slice_took.is_some_and(|took| is_long(now.saturating_duration_since(ended), took)) => {
                self.window = (self.window - 1).max(1).min(self.window_max);
            }
            Stood::Ended(_) => {}
        }
    }
}

/// Begun one slice later it would still have ended in time.
fn is_long(unused_for: Duration, slice_took: Duration) -> bool {
    unused_for > slice_took
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A viewer who takes `slice_ms` per slice, and a source that takes `fill_ms` per slice however many it fills at once: the windows at each slice.
    fn watch(slices: usize, slice_ms: u64, fill_ms: u64) -> Vec<u64> {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(4);
        let (mut now_ms, mut ends, mut windows) = (0, vec![fill_ms], Vec::new());
        for index in 0..slices {
            let stood = match ends.get(index) {
                Some(_) if index == 0 => Stood::NotAhead,
                Some(end_ms) if *end_ms > now_ms => Stood::Filling,
                Some(end_ms) => Stood::Ended(after(*end_ms)),
                None => Stood::NotAhead,
            };
            pace.turn(after(now_ms), stood);
            windows.push(pace.window());
            while ends.len() as u64 <= index as u64 + pace.window() {
                ends.push(now_ms + fill_ms);
            }
            now_ms = now_ms.max(ends[index]) + slice_ms;
        }
        windows
    }

    #[test]
    fn the_window_is_as_long_as_the_fills_need() {
        assert!(watch(20, 1000, 100).iter().all(|window| *window == 1), "one slice ahead is always in time");
        assert_eq!(watch(20, 100, 150).last(), Some(&2), "a fill takes one slice and a half");
        assert_eq!(watch(20, 100, 350).last(), Some(&4));
        assert_eq!(watch(20, 1, 150).last(), Some(&4), "no longer than is allowed");
    }

    #[test]
    fn a_viewer_who_slows_down_gets_a_short_window_again() {
        let start = Instant::now();
        let mut pace = Pace { window: 4, window_max: 4, turned: Some(start) };
        let mut windows = Vec::new();
        for (second, unused_s) in [(1, 0), (2, 1), (4, 3), (6, 3), (8, 3), (10, 3), (12, 2)] {
            let at = start + Duration::from_secs(second);
            pace.turn(at, Stood::Ended(at - Duration::from_secs(unused_s)));
            windows.push(pace.window());
        }
        assert_eq!(
            windows,
            [4, 4, 3, 2, 1, 1, 1],
            "never shorter than one slice, nor for what was used within the time of a slice"
        );
    }

    #[test]
    fn without_a_window_nothing_is_fetched_ahead() {
        let mut pace = Pace::new(0);
        pace.turn(Instant::now(), Stood::Filling);
        assert_eq!(pace.window(), 0);
    }
}

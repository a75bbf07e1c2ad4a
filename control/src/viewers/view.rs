//! Views: what of a title was watched in one go, made of what players say every few seconds.
//!
//! Pure. A view sums up the events of one title that are no further apart than a gap. Summing up is a join: in whatever order, how often, and
//! in whatever pieces events come together, the same events make the same views. So a journal may be replayed, memory may lie over a
//! database, and old views may be packed, and nobody has to ask which came first.

use std::{fmt, str::FromStr};

use wire::title::TitleId;

/// The longest name of a device, in characters.
pub(crate) const DEVICE_CHARS_MAX: usize = 64;

/// What the viewer calls what she watches on, or her player does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Device(Box<str>);

impl Device {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Device {
    type Err = NotADevice;

    fn from_str(name: &str) -> Result<Self, NotADevice> {
        let is_good = !name.is_empty() && name.chars().count() <= DEVICE_CHARS_MAX && !name.chars().any(char::is_control);
        if is_good { Ok(Self(name.into())) } else { Err(NotADevice) }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a device's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device's name is 1 to {DEVICE_CHARS_MAX} characters, none of them a control character")]
pub(crate) struct NotADevice;

/// What of a title was watched in one go. Times are milliseconds since 1970, positions milliseconds from the title's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) title: TitleId,
    /// The time of its first event.
    pub(crate) begun_ms: u64,
    /// The time of its last event.
    pub(crate) last_ms: u64,
    /// Where she was at its last event.
    pub(crate) position_ms: u64,
    /// The furthest she was.
    pub(crate) furthest_ms: u64,
    /// What its last event came from.
    pub(crate) device: Option<Device>,
}

impl View {
    /// A view of one event.
    pub(crate) fn at(title: TitleId, at_ms: u64, position_ms: u64, device: Option<Device>) -> Self {
        Self { title, begun_ms: at_ms, last_ms: at_ms, position_ms, furthest_ms: position_ms, device }
    }

    /// Which of two last events wins: the later; of two at one time, the one that is further.
    pub(crate) fn last(&self) -> (u64, u64) {
        (self.last_ms, self.position_ms)
    }

    /// Whether both are parts of one view.
    pub(crate) fn touches(&self, other: &Self, gap_ms: u64) -> bool {
        self.title == other.title
            && self.begun_ms <= other.last_ms.saturating_add(gap_ms)
            && other.begun_ms <= self.last_ms.saturating_add(gap_ms)
    }

    /// Adds the events of another part.
    pub(crate) fn join(&mut self, other: Self) {
        self.begun_ms = self.begun_ms.min(other.begun_ms);
        self.furthest_ms = self.furthest_ms.max(other.furthest_ms);
        if (other.last(), &other.device) > (self.last(), &self.device) {
            (self.last_ms, self.position_ms, self.device) = (other.last_ms, other.position_ms, other.device);
        }
    }
}

/// Adds a part to `views`, of which no two touch. True if it was joined to what was there.
pub(crate) fn fold(views: &mut Vec<View>, mut part: View, gap_ms: u64) -> bool {
    let before = views.len();
    // Only those that touch the part itself: what would touch another of them would have been joined to that already.
    for view in views.extract_if(.., |view| view.touches(&part, gap_ms)).collect::<Vec<_>>() {
        part.join(view);
    }
    let joined = views.len() < before;
    views.push(part);
    joined
}

/// The views that `parts` make, of which any may touch: by title, in the order in which they began.
pub(crate) fn joined(mut parts: Vec<View>, gap_ms: u64) -> Vec<View> {
    parts.sort_by(|a, b| (&a.title, a.begun_ms).cmp(&(&b.title, b.begun_ms)));
    let mut views: Vec<View> = Vec::with_capacity(parts.len());
    for part in parts {
        match views.last_mut() {
            Some(view) if view.touches(&part, gap_ms) => view.join(part),
            _ => views.push(part),
        }
    }
    views
}

/// What is left of a title that counts as watched: the credits.
const REST_PERCENT: u64 = 5;
const REST_MS: u64 = 3 * 60_000;
/// Of a short title three minutes are more than credits, so no more than this.
const SHORT_REST_PERCENT: u64 = 20;

/// Whether someone who stopped at `position_ms` has seen it all but the credits: the last three minutes or 5 %, whichever is more, but
/// never more than a fifth.
pub(crate) fn is_finished(position_ms: u64, duration_ms: u64) -> bool {
    let part = |percent: u64| duration_ms / 100 * percent + duration_ms % 100 * percent / 100;
    let rest_ms = part(REST_PERCENT).max(REST_MS.min(part(SHORT_REST_PERCENT)));
    position_ms.saturating_add(rest_ms) >= duration_ms
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    const GAP_MS: u64 = 10;

    pub(crate) fn title(name: &str) -> TitleId {
        name.parse().unwrap()
    }

    fn event() -> impl Strategy<Value = View> {
        (0..3_usize, 0..200_u64, 0..50_u64, 0..3_usize).prop_map(|(name, at_ms, position_ms, device)| {
            let device = [None, Some("phone"), Some("tv")][device].map(|name| name.parse().unwrap());
            View::at(title(["a", "b", "c"][name]), at_ms, position_ms, device)
        })
    }

    /// What the definition says: events of one title, in order of time, parted where the next is further away than the gap.
    pub(crate) fn defined(mut events: Vec<View>, gap_ms: u64) -> Vec<View> {
        events.sort_by(|a, b| (&a.title, a.last(), &a.device).cmp(&(&b.title, b.last(), &b.device)));
        let mut views: Vec<View> = Vec::new();
        for event in events {
            match views.last_mut() {
                Some(view) if view.title == event.title && event.last_ms - view.last_ms <= gap_ms => {
                    view.furthest_ms = view.furthest_ms.max(event.position_ms);
                    (view.last_ms, view.position_ms, view.device) = (event.last_ms, event.position_ms, event.device);
                }
                _ => views.push(event),
            }
        }
        views
    }

    pub(crate) fn sorted(mut views: Vec<View>) -> Vec<View> {
        views.sort_by(|a, b| (&a.title, a.begun_ms).cmp(&(&b.title, b.begun_ms)));
        views
    }

    proptest! {
        #[test]
        fn the_same_events_make_the_same_views_in_any_order_and_in_any_pieces(
            events in prop::collection::vec(event(), 0..40),
            shuffled in prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize), 0..80),
        ) {
            let expected = defined(events.clone(), GAP_MS);
            let mut whole = Vec::new();
            events.iter().for_each(|event| { fold(&mut whole, event.clone(), GAP_MS); });
            prop_assert_eq!(sorted(whole), expected.clone());

            // Some of them again, elsewhere, in another order; then piece by piece together.
            let mut pieces = [const { Vec::new() }; 3];
            if !events.is_empty() {
                for (which, piece) in shuffled {
                    fold(&mut pieces[piece], events[which.index(events.len())].clone(), GAP_MS);
                }
            }
            for (n, event) in events.iter().enumerate().rev() {
                fold(&mut pieces[n % 3], event.clone(), GAP_MS);
            }
            prop_assert_eq!(joined(pieces.concat(), GAP_MS), expected.clone());
            let mut all = Vec::new();
            pieces.into_iter().rev().flatten().for_each(|part| { fold(&mut all, part, GAP_MS); });
            prop_assert_eq!(sorted(all), expected);
        }
    }

    #[test]
    fn an_older_event_never_moves_the_position_back() {
        let mut views = vec![View::at(title("a"), 1000, 500, None)];
        assert!(fold(&mut views, View::at(title("a"), 999, 900, None), GAP_MS));
        assert_eq!((views[0].position_ms, views[0].furthest_ms, views[0].begun_ms), (500, 900, 999));
        fold(&mut views, View::at(title("a"), 1000, 501, None), GAP_MS);
        fold(&mut views, View::at(title("a"), 1000, 400, None), GAP_MS);
        assert_eq!(views[0].position_ms, 501, "of two at one time the larger wins");
        fold(&mut views, View::at(title("a"), 1001, 3, None), GAP_MS);
        assert_eq!((views.len(), views[0].position_ms, views[0].furthest_ms), (1, 3, 900), "who goes back goes back");
    }

    #[test]
    fn a_part_that_touches_two_views_makes_them_one() {
        let mut views =
            vec![View::at(title("a"), 0, 1, None), View::at(title("a"), 20, 2, None), View::at(title("b"), 10, 3, None)];
        assert!(fold(&mut views, View::at(title("a"), 10, 9, None), GAP_MS));
        assert_eq!(views.len(), 2);
        let one = &views[1];
        assert_eq!((one.begun_ms, one.last_ms, one.position_ms, one.furthest_ms), (0, 20, 2, 9));
    }

    #[test]
    fn what_counts_as_finished_depends_on_the_length() {
        const MINUTE: u64 = 60_000;
        for (duration, last_unfinished) in [
            (120 * MINUTE, 114 * MINUTE - 1),
            (50 * MINUTE, 47 * MINUTE - 1),
            (15 * MINUTE, 12 * MINUTE - 1),
            (5 * MINUTE, 4 * MINUTE - 1),
            (10_000, 7999),
        ] {
            assert!(!is_finished(last_unfinished, duration), "{duration}");
            assert!(is_finished(last_unfinished + 1, duration), "{duration}");
        }
        assert!(is_finished(u64::MAX, 1) && is_finished(0, 0));
        assert!(!is_finished(0, u64::MAX));
    }

    #[test]
    fn devices_have_short_plain_names() {
        for good in ["tv", "Änne's phone", &"x".repeat(DEVICE_CHARS_MAX)] {
            assert_eq!(good.parse::<Device>().map(|device| device.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "a\nb", &"x".repeat(DEVICE_CHARS_MAX + 1)] {
            assert_eq!(bad.parse::<Device>(), Err(NotADevice));
        }
    }
}

//! What a client may do to no purpose, and how often: each kind of flood by its name, and the budget that tells it from use.
//!
//! Knows no bytes and no sockets. What libraries refuse by themselves has its name here too, so that an operator finds all in one place.

use std::time::Duration;

use tokio::time::Instant;

/// A kind of flood. Each ends the connection that it comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flood {
    /// Requests given up as soon as they are made: RST_STREAM, or STOP_SENDING in HTTP/3 (CVE-2023-44487).
    RapidReset,
    /// HTTP/2 errors of streams, so that it is us who reset them (CVE-2025-8671). Limits are h2's, and one of ours for what escapes it.
    ProvokedResets,
    /// CONTINUATION frames without end (CVE-2024-27316). The limit is h2's.
    Continuation,
    /// SETTINGS frames, each of which must be acknowledged (CVE-2019-9515).
    Settings,
    /// PING frames, the same (CVE-2019-9512), in HTTP/2 and QUIC.
    Ping,
    /// DATA frames with nothing, or next to nothing, in them (CVE-2019-9518).
    EmptyFrames,
    /// WINDOW_UPDATE frames for bytes that were never sent (CVE-2019-9517, in part).
    WindowUpdates,
    /// PRIORITY frames, and those of types that HTTP/2 does not have (CVE-2019-9513).
    OtherFrames,
    /// HTTP/3 requests without a head.
    Headless,
    /// QUIC's PATH_CHALLENGE, each of which must be answered.
    PathChallenges,
    /// NEW_CONNECTION_ID and RETIRE_CONNECTION_ID.
    ConnectionIds,
    /// DATA_BLOCKED, STREAM_DATA_BLOCKED and STREAMS_BLOCKED.
    Blocked,
    /// CRYPTO frames that carry no handshake.
    Crypto,
    /// Anything else that a library calls too much.
    Other,
}

impl Flood {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::RapidReset,
        Self::ProvokedResets,
        Self::Continuation,
        Self::Settings,
        Self::Ping,
        Self::EmptyFrames,
        Self::WindowUpdates,
        Self::OtherFrames,
        Self::Headless,
        Self::PathChallenges,
        Self::ConnectionIds,
        Self::Blocked,
        Self::Crypto,
        Self::Other,
    ];

    /// What metrics and the log call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid_reset",
            Self::ProvokedResets => "provoked_resets",
            Self::Continuation => "continuation",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::EmptyFrames => "empty_frames",
            Self::WindowUpdates => "window_updates",
            Self::OtherFrames => "other_frames",
            Self::Headless => "headless",
            Self::PathChallenges => "path_challenges",
            Self::ConnectionIds => "connection_ids",
            Self::Blocked => "blocked",
            Self::Crypto => "crypto",
            Self::Other => "other",
        }
    }

    /// What h2 means by the words in its GOAWAY with ENHANCE_YOUR_CALM; `None` if it is a head that is too large.
    pub(super) fn of_h2(words: &str) -> Option<Self> {
        Some(match words {
            words if words.contains("header_list_way_too_large") => return None,
            words if words.contains("too_many_resets") => Self::RapidReset,
            words if words.contains("too_many_internal_resets") => Self::ProvokedResets,
            words if words.contains("too_many_data_frames") => Self::EmptyFrames,
            words if words.contains("too_many_continuations") => Self::Continuation,
            _ => Self::Other,
        })
    }
}

/// How much of something a connection may do: so many at once, and so many a second from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// At once.
    pub burst: u32,
    /// A second.
    pub per_second: u32,
}

/// What is left of an [`Allowance`].
#[derive(Debug)]
pub(super) struct Budget {
    allowance: Allowance,
    /// When all that was taken would have come back.
    even: Option<Instant>,
}

impl Budget {
    pub(super) const fn new(allowance: Allowance) -> Self {
        Self { allowance, even: None }
    }

    /// Takes `count`; false if there is not so much, and then all is gone that there was.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> bool {
        let Allowance { burst, per_second } = self.allowance;
        let each = Duration::from_secs(1) / per_second;
        let even = self.even.map_or(now, |even| even.max(now)) + each.saturating_mul(count);
        self.even = Some(even);
        even.duration_since(now) <= each * burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut budget = Budget::new(Allowance { burst: 10, per_second: 100 });
        for _ in 0..10 {
            assert!(budget.take(1, at(0)));
        }
        assert!(!budget.take(1, at(0)));
        let mut budget = Budget::new(Allowance { burst: 10, per_second: 100 });
        assert!(budget.take(10, at(0)));
        for tick in 1..1000 {
            assert!(budget.take(1, at(10 * tick)), "as many as come back");
        }
        assert!(!budget.take(2, at(9995)));
        let mut budget = Budget::new(Allowance { burst: 10, per_second: 100 });
        assert!(budget.take(10, at(0)) && budget.take(10, at(100_000)), "idleness gives all back, and no more");
        assert!(!budget.take(1, at(100_000)));
        assert!(!Budget::new(Allowance { burst: 10, per_second: 100 }).take(u32::MAX, at(0)));
    }

    #[test]
    fn no_two_floods_have_one_name() {
        let names: std::collections::HashSet<_> = Flood::ALL.into_iter().map(Flood::name).collect();
        assert_eq!(names.len(), Flood::ALL.len());
        for (place, flood) in Flood::ALL.into_iter().enumerate() {
            assert_eq!(flood as usize, place);
        }
    }
}

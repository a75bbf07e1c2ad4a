//! Frames that a client sends to no purpose, counted now and then: quinn-proto answers each, keeps a bounded number of answers, and lets it
//! go on for ever.

use quinn_proto::{FrameStats, VarInt};
use tokio::time::Instant;

use crate::http::{
    floods::{Budget, Flood},
    limits::{BLOCKED, CONNECTION_IDS, CRYPTO, PATH_CHALLENGES, PINGS},
};

/// Datagrams between two looks. A flood goes on for so long before it is seen, and a connection that is well pays next to nothing.
pub(super) const LOOK_DATAGRAMS: u32 = 64;
/// With which code a flood ends: H3_EXCESSIVE_LOAD (RFC 9114 §8.1). QUIC itself has no such code, and HTTP/3 is all that runs here.
pub(super) const CODE: VarInt = VarInt::from_u32(0x107);

/// Of one connection.
pub(super) struct Noise {
    heard: u32,
    /// By kind, as counted at the last look.
    kinds: [(Flood, u64, Budget); 5],
}

impl Noise {
    pub(super) fn new() -> Self {
        let kind = |flood, allowance| (flood, 0, Budget::new(allowance));
        Self {
            heard: 0,
            kinds: [
                kind(Flood::Ping, PINGS),
                kind(Flood::PathChallenges, PATH_CHALLENGES),
                kind(Flood::ConnectionIds, CONNECTION_IDS),
                kind(Flood::Blocked, BLOCKED),
                kind(Flood::Crypto, CRYPTO),
            ],
        }
    }

    /// A datagram came.
    pub(super) fn heard(&mut self) {
        self.heard += 1;
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self) -> bool {
        self.heard >= LOOK_DATAGRAMS
    }

    /// Looks at what has come so far.
    pub(super) fn look(&mut self, frames: &FrameStats, now: Instant) -> Option<Flood> {
        self.heard = 0;
        let blocked = frames.data_blocked + frames.stream_data_blocked + frames.streams_blocked_bidi + frames.streams_blocked_uni;
        let counts = [
            frames.ping,
            frames.path_challenge + frames.path_response,
            frames.new_connection_id + frames.retire_connection_id,
            blocked,
            frames.crypto,
        ];
        let mut flood = None;
        for ((kind, seen, budget), count) in self.kinds.iter_mut().zip(counts) {
            let new = u32::try_from(count - *seen).unwrap_or(u32::MAX);
            *seen = count;
            if new > 0 && !budget.take(new, now) {
                flood = flood.or(Some(*kind));
            }
        }
        flood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_the_last_look_is_taken_from_the_budget_of_its_kind() {
        let now = Instant::now();
        let mut noise = Noise::new();
        let mut frames = FrameStats::default();
        frames.ping = PINGS.burst.into();
        frames.acks = 1 << 40;
        frames.stream = 1 << 40;
        frames.max_data = 1 << 40;
        for _ in 0..3 {
            assert_eq!(noise.look(&frames, now), None, "nothing new");
        }
        frames.path_challenge += u64::from(PATH_CHALLENGES.burst) + 1;
        assert_eq!(noise.look(&frames, now), Some(Flood::PathChallenges));
        frames.ping += 1;
        assert_eq!(noise.look(&frames, now), Some(Flood::Ping));
    }
}

//! What the protocols count. Plain atomics, read when somebody asks.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{Flood, Protocol, clock::ThreadClock};

/// RFC 9000 §20.1, by number; the last stands for all that follow, TLS's alerts among them.
const QUIC_ERRORS: [&str; 18] = [
    "NO_ERROR",
    "INTERNAL_ERROR",
    "CONNECTION_REFUSED",
    "FLOW_CONTROL_ERROR",
    "STREAM_LIMIT_ERROR",
    "STREAM_STATE_ERROR",
    "FINAL_SIZE_ERROR",
    "FRAME_ENCODING_ERROR",
    "TRANSPORT_PARAMETER_ERROR",
    "CONNECTION_ID_LIMIT_ERROR",
    "PROTOCOL_VIOLATION",
    "INVALID_TOKEN",
    "APPLICATION_ERROR",
    "CRYPTO_BUFFER_EXCEEDED",
    "KEY_UPDATE_ERROR",
    "AEAD_LIMIT_REACHED",
    "NO_VIABLE_PATH",
    "CRYPTO_ERROR",
];

/// Counters of all workers together, since start unless named otherwise.
#[derive(Debug, Default)]
pub struct Counters {
    protocols: [ProtocolCounters; 3],
    /// By [`Cap`].
    paced_bytes: [Count; 3],
    /// The workers' own.
    clocks: Mutex<Vec<ThreadClock>>,
    /// Handshakes of TLS or QUIC that failed.
    pub handshakes_failed: Count,
    /// Connections closed at once because there were [`super::Limits::connections_max`].
    pub refused_connections: Count,
    /// QUIC clients that were asked to show that they are where they say, because many connections were open.
    pub retries: Count,
    /// Connections closed because a request head, a handshake or the next request took too long.
    pub timed_out: Count,
    /// Answers broken off because the client took nothing for [`super::Limits::write_stall_max`].
    pub stalled: Count,
    /// Requests refused because their head is larger than [`super::Limits::header_bytes_max`].
    pub heads_too_large: Count,
    /// Connections closed for a [`Flood`] of any kind.
    pub floods: Count,
    kinds: [Count; Flood::ALL.len()],
    /// Requests of HTTP/1.1 that are refused because what they say is no HTTP, or more than one thing.
    pub malformed: Count,
    /// Requests of HTTP/1.1 that are refused because they have content.
    pub contents: Count,
    /// Connections of HTTP/2 that ended because the client broke its rules.
    pub http2_violations: Count,
    quic_violations: [Count; QUIC_ERRORS.len()],
    /// Accepts that failed (too many open files, mostly).
    pub accepts_failed: Count,
    /// Workers whose batches of datagrams the system refused, so that they send them one by one.
    pub segmentation_refused: Count,
    /// Sends over UDP that failed (no route, mostly); what they held is sent again.
    pub sends_failed: Count,
    /// Receives over UDP that failed.
    pub receives_failed: Count,
    /// Datagrams handed to a process that this one took over from.
    pub passed: Count,
    /// The same, lost because it had no room for them.
    pub passed_dropped: Count,
}

/// A rate that what is sent to players is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// Of one connection.
    Connection,
    /// Of all that one token, or one subject of tokens, is sent.
    Token,
    /// Of all that players are sent.
    Site,
}

impl Cap {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connection, Self::Token, Self::Site];

    /// What metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Token => "token",
            Self::Site => "site",
        }
    }
}

/// Counters of one protocol.
#[derive(Debug, Default)]
pub struct ProtocolCounters {
    /// Connections open now.
    pub open: Count,
    /// Connections since start.
    pub connections: Count,
    /// Requests since start.
    pub requests: Count,
}

impl Counters {
    /// Those of one protocol.
    pub fn of(&self, protocol: Protocol) -> &ProtocolCounters {
        &self.protocols[protocol as usize]
    }

    /// Bytes that had to wait for a cap. Not those of a connection of TCP: there the kernel holds them, and does not count.
    pub fn paced(&self, cap: Cap) -> &Count {
        &self.paced_bytes[cap as usize]
    }

    /// A connection is closed for a flood.
    pub(super) fn flood(&self, flood: Flood) {
        self.floods.up();
        self.kinds[flood as usize].up();
    }

    /// Connections closed for a flood of this kind.
    pub fn floods_of(&self, flood: Flood) -> u64 {
        self.kinds[flood as usize].value()
    }

    /// A connection ended because the client broke QUIC's rules; with which code we told it.
    pub(super) fn quic_violation(&self, code: u64) {
        let place = usize::try_from(code).map_or(QUIC_ERRORS.len() - 1, |code| code.min(QUIC_ERRORS.len() - 1));
        self.quic_violations[place].up();
    }

    /// Connections that ended because the client broke QUIC's rules, by the name of the code (RFC 9000 §20.1).
    pub fn quic_violations(&self) -> impl Iterator<Item = (&'static str, u64)> {
        QUIC_ERRORS.into_iter().zip(&self.quic_violations).map(|(name, count)| (name, count.value()))
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.protocols.iter().map(|protocol| protocol.open.value()).sum()
    }

    /// The thread that asks serves from now on.
    pub(super) fn serves(&self) {
        self.clocks.lock().extend(ThreadClock::of_this_thread());
    }

    /// How many threads serve, and how long all of them together have been running on a processor. `None` where the system does not tell.
    pub(crate) fn processor_time(&self) -> Option<(usize, Duration)> {
        let clocks = self.clocks.lock();
        let time = clocks.iter().map(|clock| clock.read()).sum::<Option<Duration>>()?;
        (!clocks.is_empty()).then_some((clocks.len(), time))
    }
}

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

//! What a client may take, by name.

use std::time::Duration;

/// Limits of the protocols. Every one that is hit is counted in [`super::Counters`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once, all workers and protocols together.
    pub connections_max: u64,
    /// Requests under way at once on one connection of HTTP/2 or HTTP/3.
    pub streams_max: u32,
    /// Bytes of a request's head, counted as in RFC 9114 §4.2.2: names, values, and 32 for each field. More is answered with 431. A
    /// client that sends [`HEAD_BUFFER_FACTOR`] times as much loses its stream (HTTP/3) or its connection (HTTP/1.1).
    pub header_bytes_max: u32,
    /// How long a handshake or a request's head may take. In HTTP/2 a head that does not end is idleness.
    pub header_timeout: Duration,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
    /// How long a client may take next to nothing (16 KiB over TCP, nothing over QUIC) of what is ready for it.
    pub write_stall_max: Duration,
    /// How long a drain waits for what is being sent.
    pub drain_timeout: Duration,
    /// The most that one connection is sent.
    pub connection_bits_per_second_max: Option<u64>,
    /// How QUIC finds out what a path carries.
    pub congestion: Congestion,
}

/// How QUIC finds out what a path carries. TCP's is the system's to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438).
    Cubic,
    /// NewReno, as in RFC 9002 §7.
    NewReno,
}

/// How much of a head that is too large is read nevertheless, so that it gets an answer, in units of [`Limits::header_bytes_max`].
pub const HEAD_BUFFER_FACTOR: u32 = 4;

impl Limits {
    /// The most bytes of a request's head that are kept.
    pub(super) fn head_buffer_bytes(&self) -> u32 {
        // hyper wants a place for its own reads.
        self.header_bytes_max.saturating_mul(HEAD_BUFFER_FACTOR).max(16 << 10)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 15_000,
            streams_max: 100,
            header_bytes_max: 16 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_stall_max: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            connection_bits_per_second_max: None,
            congestion: Congestion::Cubic,
        }
    }
}

//! What a client may take, by name.

use std::time::Duration;

/// Limits of the protocols. Every one that is hit is counted in [`super::Counters`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once, all workers and protocols together.
    pub connections_max: u64,
    /// Requests under way at once on one connection of HTTP/2 or HTTP/3.
    pub streams_max: u32,
    /// Bytes of a request's head.
    pub header_bytes_max: u32,
    /// How long a handshake or a request's head may take.
    pub header_timeout: Duration,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of what is ready for it.
    pub write_stall_max: Duration,
    /// How long a drain waits for what is being sent.
    pub drain_timeout: Duration,
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
        }
    }
}

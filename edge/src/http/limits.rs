//! What a client may take, by name. `docs/hostile-clients.md` has the attack, the metric and the test of each, libraries' own limits included.

use std::time::Duration;

use super::floods::Allowance;

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
    /// How long a client may take next to nothing (less than 16 KiB) of what is ready for it.
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

/// Requests of a connection that the client gives up before they are answered (HTTP/2: RST_STREAM; HTTP/3: STOP_SENDING). A player gives
/// up a few with each seek, a browser that leaves a page all of its hundred at once.
pub const RESETS: Allowance = Allowance { burst: 500, per_second: 50 };
/// Streams of an HTTP/2 connection that we reset for the client's errors, a hundred streams too many at its start among them. h2 has a limit
/// for most of them; a window that is opened too far escapes it.
pub const PROVOKED_RESETS: Allowance = Allowance { burst: 400, per_second: 10 };
/// SETTINGS frames of an HTTP/2 connection. Clients send one, and then one in a great while.
pub const SETTINGS: Allowance = Allowance { burst: 100, per_second: 1 };
/// PING frames of a connection. Some clients measure the path with each answer, or keep it warm several times a second.
pub const PINGS: Allowance = Allowance { burst: 1000, per_second: 100 };
/// Frames of an HTTP/2 connection that carry nothing: DATA without a byte. No client needs one; h2 has a limit of its own for those with few.
pub const EMPTY_FRAMES: Allowance = Allowance { burst: 100, per_second: 10 };
/// Frames of an HTTP/2 connection that mean nothing to an edge: PRIORITY, and types that RFC 9113 does not have.
pub const OTHER_FRAMES: Allowance = Allowance { burst: 1000, per_second: 100 };
/// WINDOW_UPDATE frames of an HTTP/2 connection, before anything was sent to it …
pub const WINDOW_UPDATES_FREE: u64 = 1000;
/// … with each request …
pub const WINDOW_UPDATES_PER_REQUEST: u64 = 4;
/// … and one for so many bytes sent: clients open a window by a frame's worth (16 KiB) at least, for stream and connection.
pub const WINDOW_UPDATE_BYTES: u64 = 512;
/// PATH_CHALLENGE frames of a QUIC connection: a client that changes its address sends a few.
pub const PATH_CHALLENGES: Allowance = Allowance { burst: 200, per_second: 10 };
/// NEW_CONNECTION_ID and RETIRE_CONNECTION_ID frames of a QUIC connection: a few with each change of address.
pub const CONNECTION_IDS: Allowance = Allowance { burst: 200, per_second: 10 };
/// Frames of a QUIC connection that say that the client would like to send more than it may.
pub const BLOCKED: Allowance = Allowance { burst: 1000, per_second: 100 };
/// CRYPTO frames of a QUIC connection, its handshake's among them, which may come in small pieces and more than once.
pub const CRYPTO: Allowance = Allowance { burst: 300, per_second: 10 };

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

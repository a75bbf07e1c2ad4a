//! QUIC for servers: a driver of our own over quinn-proto, one task a worker.
//!
//! quinn-proto is the protocol and does no I/O. `driver` moves datagrams between it and the worker's socket, in large batches, and keeps
//! one timer for all connections; [`Connection`], [`SendStream`] and [`RecvStream`] are what the rest of a worker holds of it. Knows no HTTP.
//!
//! What always holds: a connection is listed with the driver whenever a handle has given it something to do. No task but the driver is
//! woken, and no handle dropped, under a lock; locks are taken in the order endpoint, connection, hub. Handles behave as those of the `quinn` crate, which clients use: the last one dropped closes the
//! connection, a [`SendStream`] that is dropped is finished, a [`RecvStream`] that is dropped before its end is stopped.
//!
//! The memory of a connection is bounded by its `TransportConfig`: what is written and not yet acknowledged by `send_window` (views of the
//! writer's memory, not copies), what is received and not yet read by `receive_window`, streams and those who wait for them by
//! `max_concurrent_bidi_streams` and `max_concurrent_uni_streams`. A worker adds one batch to send, one to receive, and
//! `ServerConfig::max_incoming` handshakes that nobody has taken yet.

mod connection;
mod driver;
mod endpoint;
mod hub;
mod noise;
mod passage;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod timers;
mod waiters;

pub use connection::Connection;
pub use endpoint::{Endpoint, Incoming};
pub(crate) use passage::{Elders, pair};
pub use quinn_proto::{ConnectionError, ConnectionStats, StreamId, VarInt, Written};
pub use stream::{ReadError, RecvStream, SendStream, Stopped, WriteError};

use std::time::Instant;

/// The runtime's clock, which the timer goes by.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

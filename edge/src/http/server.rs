//! Workers: one thread, one current-thread runtime, one TCP listener and one QUIC endpoint each.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use ::http::HeaderValue;
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Counters, Handler, Limits, Protocol, h3, tcp};
use crate::{listener::Sockets, tls::Tls};

/// What a QUIC connection may have unacknowledged: sixteen segments of 2 MiB at once, so that none waits for another's acknowledgements.
/// They are views of cache memory; only what is packed into datagrams is copied.
const QUIC_SEND_WINDOW_BYTES: u64 = 32 << 20;
/// What a client may send before it is read: requests are small.
const QUIC_RECEIVE_WINDOW_BYTES: u32 = 256 << 10;
/// Streams that a client may open beside its requests: control and the two of QPACK, and some to spare (RFC 9114 §6.2).
const QUIC_UNI_STREAMS_MAX: u32 = 8;
/// The pause after an accept that failed, so that a process without file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long closed QUIC connections may linger at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that the protocols need.
pub struct Server {
    /// A pair for each worker.
    pub sockets: Sockets,
    /// The certificate.
    pub tls: Tls,
    /// What clients may take.
    pub limits: Limits,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// What the connections of a worker share.
pub(super) struct Shared<H> {
    pub(super) handler: Arc<H>,
    pub(super) tls: Tls,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    pub(super) drain: CancellationToken,
    /// Tells clients of TCP that HTTP/3 is on the same port number (RFC 7838).
    pub(super) alt_svc: HeaderValue,
}

impl Server {
    /// Serves until `drain`: then no connection and no request is taken any more, what is being sent is finished within
    /// [`Limits::drain_timeout`], and this returns.
    ///
    /// # Errors
    /// When a worker's thread or runtime cannot be made, or a worker panicked.
    pub async fn run<H: Handler>(self, handler: Arc<H>, drain: CancellationToken) -> io::Result<()> {
        let Self { sockets, tls, limits, counters } = self;
        let alt_svc = format!("h3=\":{}\"; ma=86400", sockets.addr().port());
        let alt_svc = HeaderValue::try_from(alt_svc).expect("ASCII");
        let shared = Arc::new(Shared { handler, tls, limits, counters, drain, alt_svc });
        let mut workers = Vec::new();
        for (number, (tcp, udp)) in sockets.into_pairs().into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (shared, (done, ended)) = (shared.clone(), oneshot::channel());
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let _ = done.send(runtime.block_on(work(tcp, udp, shared)));
            })?;
            workers.push(ended);
        }
        for worker in workers {
            worker.await.map_err(|_| io::Error::other("a worker panicked"))??;
        }
        Ok(())
    }
}

async fn work<H: Handler>(tcp: TcpListener, udp: UdpSocket, shared: Arc<Shared<H>>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(tcp)?;
    let endpoint = endpoint(udp, &shared)?;
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(place) = Place::take(&shared) {
                        connections.spawn(tcp::serve(stream, peer, place));
                    }
                }
                Err(error) => {
                    shared.counters.accepts_failed.up();
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => match Place::take(&shared) {
                    Some(place) => drop(connections.spawn(h3::serve(incoming, place))),
                    None => incoming.refuse(),
                },
                None => break,
            },
            () = shared.drain.cancelled() => break,
        }
    }
    drop(listener);
    connections.close();
    let finished = async {
        tokio::select! {
            () = connections.wait() => (),
            // A socket that is silent would leave a newcomer waiting; this sends him on.
            () = refuse_all(&endpoint) => (),
        }
    };
    if tokio::time::timeout(shared.limits.drain_timeout, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain timed out; closing what is left");
    }
    endpoint.close(h3::NO_ERROR, b"");
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
    Ok(())
}

async fn refuse_all(endpoint: &quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        incoming.refuse();
    }
}

fn endpoint<H>(udp: UdpSocket, shared: &Shared<H>) -> io::Result<quinn::Endpoint> {
    let limits = &shared.limits;
    let mut transport = TransportConfig::default();
    transport
        .send_window(QUIC_SEND_WINDOW_BYTES)
        .receive_window(QUIC_RECEIVE_WINDOW_BYTES.into())
        .stream_receive_window(limits.header_bytes_max.max(64 << 10).into())
        .max_concurrent_bidi_streams(limits.streams_max.into())
        .max_concurrent_uni_streams(QUIC_UNI_STREAMS_MAX.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::try_from(limits.idle_timeout).unwrap_or_else(|_| VarInt::MAX.into())));
    let mut config = quinn::ServerConfig::with_crypto(shared.tls.quic());
    config.transport_config(Arc::new(transport));
    quinn::Endpoint::new(EndpointConfig::default(), Some(config), udp, Arc::new(quinn::TokioRuntime))
}

/// A connection's place among [`Limits::connections_max`], given back on drop.
pub(super) struct Place<H> {
    shared: Arc<Shared<H>>,
    protocol: Protocol,
}

impl<H> Place<H> {
    /// `None`, counted, if there is none. Until TLS says more, a TCP connection counts as HTTP/1.1.
    fn take(shared: &Arc<Shared<H>>) -> Option<Self> {
        if shared.counters.open() >= shared.limits.connections_max {
            shared.counters.refused_connections.up();
            return None;
        }
        shared.counters.of(Protocol::Http1).open.up();
        Some(Self { shared: shared.clone(), protocol: Protocol::Http1 })
    }

    /// The protocol is known: the connection counts for it.
    pub(super) fn speaks(&mut self, protocol: Protocol) {
        let counters = &self.shared.counters;
        counters.of(protocol).open.up();
        counters.of(protocol).connections.up();
        counters.of(self.protocol).open.down();
        self.protocol = protocol;
    }

    pub(super) fn shared(&self) -> &Arc<Shared<H>> {
        &self.shared
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl<H> Drop for Place<H> {
    fn drop(&mut self) {
        self.counters().of(self.protocol).open.down();
    }
}

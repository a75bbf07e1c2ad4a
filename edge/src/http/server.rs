//! Workers: one thread, one current-thread runtime, one TCP listener and one QUIC endpoint each.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use ::http::{HeaderValue, Method, StatusCode, header};
use aws_lc_rs::{hkdf, hmac, rand};
use quinn_proto::{
    EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    congestion::{ControllerFactory, CubicConfig, NewRenoConfig},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Body, Congestion, Counters, Handler, Limits, Orders, Protocol, Request, Response, h3,
    leave::{Leave, Order},
    quic, tcp,
};
use crate::{
    listener::{Route, Sockets, Worker},
    tls::Tls,
};

/// What a QUIC connection may have unacknowledged: sixteen segments of 2 MiB at once, so that none waits for another's acknowledgements.
/// They are views of cache memory; only what is packed into datagrams is copied.
pub(super) const QUIC_SEND_WINDOW_BYTES: u64 = 32 << 20;
/// What a client may send before it is read: requests are small.
const QUIC_RECEIVE_WINDOW_BYTES: u32 = 256 << 10;
/// Streams that a client may open beside its requests: control and the two of QPACK, and some to spare (RFC 9114 §6.2).
const QUIC_UNI_STREAMS_MAX: u32 = 8;
/// Clients of a worker that have said their first word and that it has not yet taken or refused, which it does as fast as it can. The
/// first words of more are not heard; clients repeat them.
const QUIC_INCOMING_MAX: usize = 4096;
/// What such a client may have sent besides: the rest of a ClientHello, which is a few kilobytes.
const QUIC_INCOMING_BUFFER_BYTES: u64 = 64 << 10;
/// The same of all such clients of a worker.
const QUIC_INCOMING_BUFFERS_BYTES: u64 = 16 << 20;
/// Polls of tasks after which a busy worker asks the system for news of its sockets. One turn of the QUIC driver may take half a
/// millisecond, and clients of TCP wait for it.
const POLLS_PER_EVENT_CHECK: u32 = 16;
/// The pause after an accept that failed, so that a process without file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long the other side may take to agree that a connection ends.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// What QUIC proves by.
    pub secrets: Secrets,
    /// Who may say that another process takes over.
    pub orders: Orders,
}

/// Keys of what clients show again later: they stay good in a process that takes over.
#[derive(Clone)]
pub struct Secrets {
    /// Of the tokens that end a connection which nobody knows any more (RFC 9000 §10.3).
    pub reset: [u8; 32],
    /// Of the tokens by which clients show their addresses (RFC 9000 §8.1).
    pub token: [u8; 32],
}

impl Secrets {
    /// New ones.
    pub fn new() -> Self {
        let random = || {
            let mut bytes = [0; 32];
            rand::fill(&mut bytes).expect("the system has random bytes");
            bytes
        };
        Self { reset: random(), token: random() }
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new()
    }
}

/// What the connections of a worker share.
pub(super) struct Shared<H> {
    pub(super) handler: Arc<H>,
    pub(super) tls: Tls,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    /// The server ends: nobody is waited for who has not asked yet.
    pub(super) drain: CancellationToken,
    /// It takes nobody new: it drains, or another process takes over.
    pub(super) leave: Leave,
    /// Tells clients of TCP that HTTP/3 is on the same port number (RFC 7838).
    pub(super) alt_svc: HeaderValue,
}

impl Server {
    /// Serves until `drain`: then no connection and no request is taken any more, what is being sent is finished within
    /// [`Limits::drain_timeout`], and this returns. Or until [`super::Orderer::leave`].
    ///
    /// # Errors
    /// When a worker's thread or runtime cannot be made, or a worker panicked.
    pub async fn run<H: Handler>(self, handler: Arc<H>, drain: CancellationToken) -> io::Result<()> {
        let Self { sockets, tls, limits, counters, secrets, orders } = self;
        let alt_svc = format!("h3=\":{}\"; ma=86400", sockets.addr().port());
        let alt_svc = HeaderValue::try_from(alt_svc).expect("ASCII");
        let quic = quic_config(&tls, &limits, &secrets);
        let reset = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secrets.reset));
        let (leave, ending) = (orders.leave.clone(), drain.clone());
        let shared = Arc::new(Shared { handler, tls, limits, counters, drain, leave: leave.clone(), alt_svc });
        let mut workers = Vec::new();
        for ((number, worker), orders) in sockets.into_workers().into_iter().enumerate().zip(orders.of_workers()) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().event_interval(POLLS_PER_EVENT_CHECK).build()?;
            let (shared, config, (done, ended)) = (shared.clone(), (quic.clone(), reset.clone()), oneshot::channel());
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                shared.counters.serves();
                let _ = done.send(runtime.block_on(work(worker, config, orders, shared)));
            })?;
            workers.push(ended);
        }
        let all = async {
            for worker in workers {
                worker.await.map_err(|_| io::Error::other("a worker panicked"))??;
            }
            Ok(())
        };
        let mut all = std::pin::pin!(all);
        tokio::select! {
            ended = &mut all => return ended,
            () = ending.cancelled() => leave.begin(),
        }
        all.await
    }
}

impl<H: Handler> Shared<H> {
    /// Answers a request of whichever protocol.
    pub(super) async fn answer(&self, request: Request) -> Response {
        self.counters.of(request.protocol).requests.up();
        let method = request.method.clone();
        let response = if request.head_bytes() > self.limits.header_bytes_max as usize {
            self.counters.heads_too_large.up();
            let mut response = Response::new(Body::full("the request's header fields are too large\n"));
            *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            response
        } else {
            self.handler.handle(request).await
        };
        framed(&method, response)
    }
}

/// Makes `Content-Length` and body agree (RFC 9110 §8.6): a HEAD is told what a GET would get, a 304 may be, a 204 must not.
pub(super) fn framed(method: &Method, response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let length = HeaderValue::from(body.bytes_left());
    let bodiless = match head.status {
        StatusCode::NO_CONTENT => {
            head.headers.remove(header::CONTENT_LENGTH);
            true
        }
        StatusCode::NOT_MODIFIED => true,
        _ if method == Method::HEAD => {
            head.headers.entry(header::CONTENT_LENGTH).or_insert(length);
            true
        }
        _ => {
            head.headers.insert(header::CONTENT_LENGTH, length);
            false
        }
    };
    Response::from_parts(head, if bodiless { Body::empty() } else { body })
}

async fn work<H: Handler>(
    worker: Worker,
    (config, reset): (ServerConfig, Arc<hmac::Key>),
    mut orders: mpsc::Receiver<Order>,
    shared: Arc<Shared<H>>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(worker.tcp)?;
    let plain = worker.plain.map(tokio::net::TcpListener::from_std).transpose()?;
    let endpoint = endpoint(worker.udp, worker.route, config, reset, shared.counters.clone())?;
    endpoint.serve_elders(quic::Elders::new(worker.elders, shared.counters.clone()));
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Some((stream, peer, place)) = admitted(accepted, &shared).await {
                connections.spawn(tcp::serve(stream, peer, place));
            },
            accepted = accept(plain.as_ref()) => if let Some((stream, peer, place)) = admitted(accepted, &shared).await {
                connections.spawn(tcp::serve_plain(stream, peer, place));
            },
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => welcome(incoming, &shared, &connections),
                None => break,
            },
            Some(Order { passage, done }) = orders.recv() => drop(done.send(endpoint.receive_from(passage))),
            () = shared.leave.begun() => break,
        }
    }
    drop((listener, plain));
    connections.close();
    let finished = async {
        tokio::select! {
            biased;
            // A socket that is silent would leave a newcomer waiting; this sends him on.
            () = refuse_all(&endpoint), if shared.drain.is_cancelled() => (),
            // Where another process takes over, newcomers are those who came before that.
            () = welcome_all(&endpoint, &shared, &connections), if !shared.drain.is_cancelled() => (),
            () = connections.wait() => (),
        }
    };
    if tokio::time::timeout(shared.limits.drain_timeout, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain timed out; closing what is left");
    }
    endpoint.close(h3::NO_ERROR, b"");
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
    Ok(())
}

/// Where there is no such listener, nobody comes.
async fn accept(listener: Option<&tokio::net::TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// A connection that was accepted, and its place, if there is one.
async fn admitted<H: Handler>(
    accepted: io::Result<(TcpStream, SocketAddr)>,
    shared: &Arc<Shared<H>>,
) -> Option<(TcpStream, SocketAddr, Place<H>)> {
    match accepted {
        // Until TLS says more it is taken for HTTP/1.1.
        Ok((stream, peer)) => Some((stream, canonical(peer), Place::take(shared, Protocol::Http1)?)),
        Err(error) => {
            shared.counters.accepts_failed.up();
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn welcome<H: Handler>(incoming: quic::Incoming, shared: &Arc<Shared<H>>, connections: &TaskTracker) {
    if must_show_its_address(&incoming, shared) {
        shared.counters.retries.up();
        return incoming.retry();
    }
    match Place::take(shared, Protocol::Http3) {
        Some(place) => drop(connections.spawn(h3::serve(incoming, place))),
        None => incoming.refuse(),
    }
}

async fn welcome_all<H: Handler>(endpoint: &quic::Endpoint, shared: &Arc<Shared<H>>, connections: &TaskTracker) {
    while let Some(incoming) = endpoint.accept().await {
        welcome(incoming, shared, connections);
    }
}

async fn refuse_all(endpoint: &quic::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        incoming.refuse();
    }
}

/// Anybody can send first packets in others' names and so take all places without ever being seen. Once half of them are taken, a client
/// must show that it receives what is sent to its address (RFC 9000 §8.1.2), which costs it a round trip.
fn must_show_its_address<H>(incoming: &quic::Incoming, shared: &Shared<H>) -> bool {
    !incoming.remote_address_validated() && shared.counters.open() > shared.limits.connections_max / 2
}

/// An IPv4 client of a socket on `[::]` under its own address.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// One for all workers, so that they share the key of the tokens by which clients show their addresses.
fn quic_config(tls: &Tls, limits: &Limits, secrets: &Secrets) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .send_window(QUIC_SEND_WINDOW_BYTES)
        .receive_window(QUIC_RECEIVE_WINDOW_BYTES.into())
        .stream_receive_window(limits.head_buffer_bytes().min(QUIC_RECEIVE_WINDOW_BYTES).into())
        .max_concurrent_bidi_streams(limits.streams_max.into())
        .max_concurrent_uni_streams(QUIC_UNI_STREAMS_MAX.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::try_from(limits.idle_timeout).unwrap_or_else(|_| VarInt::MAX.into())))
        .congestion_controller_factory(congestion(limits.congestion));
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secrets.token);
    let mut config = ServerConfig::new(tls.quic(), Arc::new(token_key));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(QUIC_INCOMING_MAX)
        .incoming_buffer_size(QUIC_INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(QUIC_INCOMING_BUFFERS_BYTES);
    config
}

fn congestion(congestion: Congestion) -> Arc<dyn ControllerFactory + Send + Sync> {
    match congestion {
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::NewReno => Arc::new(NewRenoConfig::default()),
    }
}

fn endpoint(
    udp: UdpSocket,
    route: Route,
    config: ServerConfig,
    reset: Arc<hmac::Key>,
    counters: Arc<Counters>,
) -> io::Result<quic::Endpoint> {
    let mut own = EndpointConfig::new(reset);
    own.cid_generator(move || Box::new(route));
    quic::Endpoint::new(udp, own, config, true, counters)
}

/// A connection's place among [`Limits::connections_max`], given back on drop.
pub(super) struct Place<H> {
    shared: Arc<Shared<H>>,
    protocol: Protocol,
}

impl<H> Place<H> {
    /// `None`, counted, if there is none.
    fn take(shared: &Arc<Shared<H>>, protocol: Protocol) -> Option<Self> {
        // Taken before it is looked at: other workers do the same at the same time.
        shared.counters.of(protocol).open.up();
        let place = Self { shared: shared.clone(), protocol };
        if shared.counters.open() > shared.limits.connections_max {
            shared.counters.refused_connections.up();
            return None;
        }
        Some(place)
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

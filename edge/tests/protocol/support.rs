//! A server with a handler that does what the path says, and clients for it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use edge::{
    http::{
        Body, Count, Counters, Flood, Handler, Limits, Orderer, Orders, Protocol, Request, Response, Secrets, Server,
        client::Connection,
    },
    listener::Sockets,
    tls::{Options, Tls},
};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, response::Parts};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::Notify, task::JoinHandle};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| (0..5_000_000_u32).map(|at| (at * 31 + at / 251) as u8).collect());

/// What [`Echo`] sends for `/bytes/N`.
pub(crate) fn pattern(length: usize) -> Bytes {
    PATTERN.slice(..length)
}

/// Answers by the path: `/bytes/N` a body of N bytes; `/sevens/N` one that costs nothing to make; `/broken/N` announces twice the N bytes
/// that it sends; `/gated` ten bytes, then ten more once the gate is opened; `/part/N` N bytes as a part of more; `/status/N` that status
/// with a body; anything else the request's own words.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) gate: Notify,
    pub(crate) gated: Notify,
    pub(crate) dropped: Arc<Dropped>,
    /// Bytes of `/sevens` that the protocols have taken.
    pub(crate) handed_bytes: Arc<AtomicU64>,
}

/// Tells when a gated body was dropped.
#[derive(Default)]
pub(crate) struct Dropped {
    pub(crate) count: AtomicU64,
    pub(crate) notify: Notify,
}

struct Guard(Arc<Dropped>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        self.0.notify.notify_one();
    }
}

pub(crate) struct Shared(pub(crate) Arc<Echo>);

impl Handler for Shared {
    async fn handle(&self, request: Request) -> Response {
        let mut parts = request.path_and_query[1..].split('/');
        let kind = parts.next().unwrap_or_default();
        let length: usize = parts.next().and_then(|length| length.parse().ok()).unwrap_or(0);
        let chunks = |length: usize| {
            let whole = pattern(length);
            let starts = (0..length).step_by(100_000);
            stream::iter(starts.map(move |at| Ok::<_, std::io::Error>(whole.slice(at..(at + 100_000).min(length)))))
        };
        let mut status = StatusCode::OK;
        let body = match kind {
            "bytes" => Body::stream(length as u64, chunks(length)),
            "sevens" => {
                let chunk = Bytes::from(vec![7; 1_000_000]);
                let handed = self.0.handed_bytes.clone();
                let count = move |chunk: Bytes| {
                    handed.fetch_add(chunk.len() as u64, Ordering::SeqCst);
                    Ok::<_, std::io::Error>(chunk)
                };
                Body::stream(length as u64, stream::repeat(chunk).take(length / 1_000_000).map(count))
            }
            "broken" => Body::stream(2 * length as u64, chunks(length)),
            "gated" => {
                let (echo, guard) = (self.0.clone(), Guard(self.0.dropped.clone()));
                let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"))]);
                let second = stream::once(async move {
                    let _guard = guard;
                    echo.gated.notify_one();
                    echo.gate.notified().await;
                    Ok(Bytes::from_static(b"abcdefghij"))
                });
                Body::stream(20, first.chain(second))
            }
            "part" => {
                status = StatusCode::PARTIAL_CONTENT;
                Body::stream(length as u64, chunks(length))
            }
            "status" => {
                status = StatusCode::from_u16(length as u16).expect("a status");
                Body::full("a body that must not be sent")
            }
            _ => {
                let Request { protocol, method, authority, path_and_query, peer, .. } = request;
                Body::full(format!("{} {method} {authority} {path_and_query} from {}", protocol.alpn(), peer.ip()))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes 10-{}/1000000", 9 + length);
            response.headers_mut().insert(header::CONTENT_RANGE, HeaderValue::try_from(range).expect("ASCII"));
        }
        response
    }
}

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) plain_addr: SocketAddr,
    pub(crate) echo: Arc<Echo>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) drain: CancellationToken,
    pub(crate) orderer: Orderer,
    pub(crate) tls: Tls,
    pub(crate) client_tls: Arc<rustls::ClientConfig>,
    pub(crate) dir: TempDir,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

/// Starts a server with two workers.
pub(crate) fn start(limits: Limits) -> Running {
    start_on("127.0.0.1:0", limits)
}

pub(crate) fn start_on(listen: &str, limits: Limits) -> Running {
    start_as(listen, limits, |_| {})
}

/// As [`start`], with TLS as `adjust` makes it.
pub(crate) fn start_as(listen: &str, limits: Limits, adjust: impl FnOnce(&mut Options)) -> Running {
    start_named(listen, vec!["127.0.0.1".into()], limits, adjust)
}

/// The same, with a certificate for these names.
pub(crate) fn start_named(listen: &str, names: Vec<String>, limits: Limits, adjust: impl FnOnce(&mut Options)) -> Running {
    let dir = tempfile::tempdir().expect("a directory");
    write_certificate_for(dir.path(), names);
    let mut options = Options::new(dir.path().join("edge.crt"), dir.path().join("edge.key"));
    adjust(&mut options);
    let tls = Tls::open(options).expect("a certificate");
    let sockets = Sockets::bind(listen.parse().expect("an address"), 2).expect("binds");
    let sockets = sockets.and_plain("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let (addr, plain_addr) = (sockets.addr(), sockets.plain_addr().expect("bound"));
    let (echo, counters, drain) = (Arc::new(Echo::default()), Arc::new(Counters::default()), CancellationToken::new());
    let (orderer, orders) = Orders::new(2);
    let server = Server { sockets, tls: tls.clone(), limits, counters: counters.clone(), secrets: Secrets::new(), orders };
    let task = tokio::spawn(server.run(Arc::new(Shared(echo.clone())), drain.clone()));
    let client_tls = trusting(dir.path());
    Running { addr, plain_addr, echo, counters, drain, orderer, tls, client_tls, dir, task }
}

/// Writes a new certificate for 127.0.0.1 and its key to `edge.crt` and `edge.key`.
pub(crate) fn write_certificate(dir: &Path) {
    write_certificate_for(dir, vec!["127.0.0.1".into()]);
}

fn write_certificate_for(dir: &Path, names: Vec<String>) {
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(dir.join("edge.crt"), made.cert.pem()).expect("writes");
    std::fs::write(dir.join("edge.key"), made.signing_key.serialize_pem()).expect("writes");
}

fn roots(dir: &Path) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("edge.crt")).expect("a certificate")).expect("usable");
    roots
}

pub(crate) fn trusting(dir: &Path) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    Arc::new(builder.with_root_certificates(roots(dir)).with_no_client_auth())
}

impl Running {
    /// Those who trust its certificate.
    pub(crate) fn roots(&self) -> rustls::RootCertStore {
        roots(self.dir.path())
    }

    pub(crate) async fn connect(&self, protocol: Protocol) -> Connection {
        Connection::connect(protocol, self.addr, "127.0.0.1", self.client_tls.clone()).await.expect("connects")
    }

    /// A connection over which a test says what it likes.
    pub(crate) async fn raw_tls(&self, protocol: Protocol) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.addr).await.expect("connects");
        let mut tls = rustls::ClientConfig::clone(&self.client_tls);
        tls.alpn_protocols = vec![protocol.alpn().into()];
        let name = "127.0.0.1".try_into().expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("shakes hands")
    }

    /// The same for HTTP/3. The endpoint comes with it.
    pub(crate) async fn raw_quic(&self) -> (quinn::Endpoint, quinn::Connection) {
        self.raw_quic_by(quinn::TransportConfig::default()).await
    }

    /// The same, by windows and patience of its own.
    pub(crate) async fn raw_quic_by(&self, transport: quinn::TransportConfig) -> (quinn::Endpoint, quinn::Connection) {
        let mut tls = rustls::ClientConfig::clone(&self.client_tls);
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("TLS 1.3");
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let connecting = endpoint.connect_with(config, self.addr, "127.0.0.1").expect("an address");
        let connection = connecting.await.expect("shakes hands");
        (endpoint, connection)
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) {
        self.drain.cancel();
        self.task.await.expect("no panic").expect("ends well");
    }
}

/// What `work` comes to, if it does so in time. Long enough for a busy machine; no test waits so long unless it fails.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// The same for what takes thousands of messages.
pub(crate) async fn patient<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(240), work).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Waits until so many connections were closed for a flood of this kind.
pub(crate) async fn counted_flood(counters: &Counters, flood: Flood, value: u64) {
    let reached = tokio::time::timeout(Duration::from_secs(60), async {
        while counters.floods_of(flood) < value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if reached.await.is_err() {
        let counted: Vec<_> = Flood::ALL.into_iter().map(|flood| (flood.name(), counters.floods_of(flood))).collect();
        panic!("{flood:?} is not counted; counted are {counted:?} and {} violations", counters.http2_violations.value());
    }
}

/// Waits until `count` is at least `value`.
pub(crate) async fn counted(what: &str, count: &Count, value: u64) {
    let reached = async {
        while count.value() < value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, reached).await;
}

/// The whole answer to a GET.
pub(crate) async fn fetch(connection: &Connection, path: &str) -> Result<(Parts, Vec<u8>), edge::http::client::ClientError> {
    fetch_as(connection, Method::GET, path, HeaderMap::new()).await
}

pub(crate) async fn fetch_as(
    connection: &Connection,
    method: Method,
    path: &str,
    headers: HeaderMap<HeaderValue>,
) -> Result<(Parts, Vec<u8>), edge::http::client::ClientError> {
    let (head, mut body) = connection.send(method, "edge.example", path, headers).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok((head, bytes))
}

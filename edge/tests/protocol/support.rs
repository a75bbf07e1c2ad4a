//! A server with a handler that does what the path says, and clients for it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use edge::{
    http::{Body, Counters, Handler, Limits, Protocol, Request, Response, Server, client::Connection},
    listener::Sockets,
    tls::Tls,
};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, header, response::Parts};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// What [`Echo`] sends for `/bytes/N`.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Answers by the path: `/bytes/N` a body of N bytes; `/sevens/N` one that costs nothing to make; `/broken/N` announces twice the N bytes that it sends; `/gated` ten bytes, then ten more once
/// the gate is opened; `/headers` the request's own words.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) gate: Notify,
    pub(crate) gated: Notify,
    pub(crate) dropped: Arc<Dropped>,
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
            let whole = Bytes::from(pattern(length));
            let starts = (0..length).step_by(100_000);
            stream::iter(starts.map(move |at| Ok::<_, std::io::Error>(whole.slice(at..(at + 100_000).min(length)))))
        };
        let (body, announced) = match kind {
            "bytes" => (Body::stream(length as u64, chunks(length)), length),
            "sevens" => {
                let chunk = Bytes::from(vec![7; 1_000_000]);
                let all = stream::repeat(chunk).take(length / 1_000_000).map(Ok::<_, std::io::Error>);
                (Body::stream(length as u64, all), length)
            }
            "broken" => (Body::stream(2 * length as u64, chunks(length)), 2 * length),
            "gated" => {
                let (echo, guard) = (self.0.clone(), Guard(self.0.dropped.clone()));
                let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"))]);
                let second = stream::once(async move {
                    let _guard = guard;
                    echo.gated.notify_one();
                    echo.gate.notified().await;
                    Ok(Bytes::from_static(b"abcdefghij"))
                });
                (Body::stream(20, first.chain(second)), 20)
            }
            _ => {
                let said =
                    format!("{} {} {} {}", request.protocol.alpn(), request.method, request.authority, request.path_and_query);
                let length = said.len();
                (Body::full(said), length)
            }
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_LENGTH, announced.into());
        response
    }
}

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) echo: Arc<Echo>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) drain: CancellationToken,
    pub(crate) tls: Tls,
    pub(crate) client_tls: Arc<rustls::ClientConfig>,
    pub(crate) dir: TempDir,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

/// Starts a server with two workers.
pub(crate) fn start(limits: Limits) -> Running {
    let dir = tempfile::tempdir().expect("a directory");
    write_certificate(dir.path());
    let tls = Tls::load(&dir.path().join("edge.crt"), &dir.path().join("edge.key")).expect("a certificate");
    let sockets = Sockets::bind("127.0.0.1:0".parse().expect("an address"), 2).expect("binds");
    let addr = sockets.addr();
    let (echo, counters, drain) = (Arc::new(Echo::default()), Arc::new(Counters::default()), CancellationToken::new());
    let server = Server { sockets, tls: tls.clone(), limits, counters: counters.clone() };
    let task = tokio::spawn(server.run(Arc::new(Shared(echo.clone())), drain.clone()));
    let client_tls = trusting(dir.path());
    Running { addr, echo, counters, drain, tls, client_tls, dir, task }
}

/// Writes a new certificate for 127.0.0.1 and its key to `edge.crt` and `edge.key`.
pub(crate) fn write_certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
    std::fs::write(dir.join("edge.crt"), made.cert.pem()).expect("writes");
    std::fs::write(dir.join("edge.key"), made.signing_key.serialize_pem()).expect("writes");
}

pub(crate) fn trusting(dir: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("edge.crt")).expect("a certificate")).expect("usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Running {
    pub(crate) async fn connect(&self, protocol: Protocol) -> Connection {
        Connection::connect(protocol, self.addr, "127.0.0.1", self.client_tls.clone()).await.expect("connects")
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) {
        self.drain.cancel();
        self.task.await.expect("no panic").expect("ends well");
    }
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

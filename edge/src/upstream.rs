//! Connections to another tier: HTTP/1.1 over TCP or TLS, kept alive and used again; and HTTP/2, for an exchange that lasts.
//!
//! A connection is driven by a task on the runtime that opened it, and only requests of the same runtime use it: so a fill stays on the core of
//! the viewer who started it, and a worker that ends takes no connection of another one with it. Knows no object and no report.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{HeaderValue, Method, Request, Response, header, request};
use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{
        http1::{self, SendRequest},
        http2,
    },
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use wire::secret::{Secret, SecretError};

use crate::{config::HttpUrl, http::Protocol};

/// Connections that wait for their next request, all runtimes together.
const IDLE_MAX: usize = 128;
/// How long a connection may wait for its next request. Servers commonly close theirs after a minute.
const IDLE_FOR_MAX: Duration = Duration::from_secs(30);
/// What hyper may buffer of what an upstream sends, in bytes: its heads, and pieces of bodies.
const READ_BUFFER_BYTES_MAX: usize = 128 << 10;

/// Another tier.
pub(crate) struct Upstream {
    url: HttpUrl,
    tls: Option<Arc<ClientConfig>>,
    patience: Duration,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    runtime: runtime::Id,
    since: Instant,
}

/// A connection in use. Dropping it closes it; [`Upstream::keep`] keeps it for the next request.
pub(crate) struct Lease {
    sender: SendRequest<Full<Bytes>>,
    is_fresh: bool,
}

/// Why an upstream did not answer. Its fault or the network's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("cannot connect to {authority}: {reason}")]
    Connect { authority: String, reason: std::io::Error },
    #[error("{authority} {what} for {} ms", .after.as_millis())]
    Silent { authority: String, what: &'static str, after: Duration },
    #[error("the connection to {authority} broke: {reason}")]
    Broke { authority: String, reason: hyper::Error },
    #[error("{authority} does not speak HTTP/2; a proxy before it must, on both sides")]
    NoHttp2 { authority: String },
}

/// Why an upstream cannot be asked at all: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamConfigError {
    /// A file with certificates of authorities.
    #[error("cannot use the certificates in {}: {reason}; it holds one or more PEM certificates of authorities", .file.display())]
    Authorities {
        /// Where.
        file: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// A file with a secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Upstream {
    /// One that is never waited for longer than `patience`: to connect, and to begin its answer. Certificates must come from an
    /// authority in `ca_file`, or from one of the public web's.
    pub(crate) fn new(url: HttpUrl, ca_file: Option<&Path>, patience: Duration) -> Result<Self, UpstreamConfigError> {
        let tls = if url.is_https() { Some(Arc::new(trust(ca_file)?)) } else { None };
        Ok(Self { url, tls, patience, idle: Mutex::default() })
    }

    /// A request for `path`, which begins with a slash, below the upstream's own prefix.
    pub(crate) fn request(&self, method: Method, path: &str, secret: &HeaderValue) -> request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url.prefix()))
            .header(header::HOST, self.url.authority())
            .header(header::AUTHORIZATION, secret)
    }

    /// Sends `request`, which must be safe to repeat, and waits for the answer's head. A connection that was kept may have been closed
    /// by the other side meanwhile, so a request that fails is sent once more, on a fresh connection.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let mut lease = match self.kept() {
            Some(lease) => lease,
            None => self.connect().await?,
        };
        match self.attempt(&mut lease, request.clone()).await {
            Ok(answer) => return Ok((answer, lease)),
            Err(error @ UpstreamError::Silent { .. }) if lease.is_fresh => return Err(error),
            Err(error) => tracing::debug!(%error, "asking again on a fresh connection"),
        }
        self.send_fresh(request).await
    }

    /// The same on a connection of its own, once.
    pub(crate) async fn send_fresh(&self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let mut lease = self.connect().await?;
        let answer = self.attempt(&mut lease, request).await?;
        Ok((answer, lease))
    }

    /// Sends a request with a body that goes on while the answer comes, on a connection of its own: over TLS where HTTP/2 is agreed, or with prior
    /// knowledge of it (RFC 9113 §3.3). The connection lasts as long as the exchange.
    pub(crate) async fn exchange<B>(&self, path: &str, secret: &HeaderValue, body: B) -> Result<Response<Incoming>, UpstreamError>
    where
        B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
    {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.url))
            .header(header::AUTHORIZATION, secret)
            .header(header::CONTENT_TYPE, wire::report::MEDIA_TYPE);
        let request = request.body(body).expect("a name is a path segment");
        let failed = |reason| UpstreamError::Connect { authority: self.url.authority().to_owned(), reason };
        let connecting = timeout(self.patience, self.stream(Some(Protocol::Http2)));
        let connected = connecting.await.map_err(|_| self.silent("could not be connected to"))?;
        let (stream, is_agreed) = connected.map_err(failed)?;
        if !is_agreed {
            return Err(UpstreamError::NoHttp2 { authority: self.url.authority().to_owned() });
        }
        let answering = async {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(async { drop(connection.await) });
            sender.send_request(request).await
        };
        let answer = timeout(self.patience, answering).await.map_err(|_| self.silent("gave no answer"))?;
        answer.map_err(|reason| UpstreamError::Broke { authority: self.url.authority().to_owned(), reason })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn keep(&self, lease: Lease) {
        let mut idle = self.idle.lock();
        if !lease.sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push(Idle { sender: lease.sender, runtime: runtime::Handle::current().id(), since: Instant::now() });
        }
    }

    /// The connection of this runtime that was used last, if one is open.
    fn kept(&self) -> Option<Lease> {
        let here = runtime::Handle::current().id();
        let mut idle = self.idle.lock();
        idle.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < IDLE_FOR_MAX);
        let at = idle.iter().rposition(|kept| kept.runtime == here)?;
        Some(Lease { sender: idle.remove(at).sender, is_fresh: false })
    }

    async fn connect(&self) -> Result<Lease, UpstreamError> {
        let failed = |reason| UpstreamError::Connect { authority: self.url.authority().to_owned(), reason };
        let handshake = async { start(self.stream(None).await?.0).await };
        timeout(self.patience, handshake).await.map_err(|_| self.silent("could not be connected to"))?.map_err(failed)
    }

    /// A TCP connection, in TLS if the URL says so; there, `protocol` is asked for (RFC 7301). Also says whether it was agreed upon, or
    /// need not be.
    async fn stream(&self, protocol: Option<Protocol>) -> std::io::Result<(Box<dyn Stream>, bool)> {
        let tcp = TcpStream::connect((self.url.host(), self.url.port())).await?;
        tcp.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok((Box::new(tcp), true)) };
        let mut config = config.clone();
        if let Some(protocol) = protocol {
            Arc::make_mut(&mut config).alpn_protocols = vec![protocol.alpn().into()];
        }
        let name = ServerName::try_from(self.url.host().to_owned()).map_err(std::io::Error::other)?;
        let tls = TlsConnector::from(config).connect(name, tcp).await?;
        let is_agreed = protocol.is_none_or(|protocol| tls.get_ref().1.alpn_protocol() == Some(protocol.alpn().as_bytes()));
        Ok((Box::new(tls), is_agreed))
    }

    async fn attempt(&self, lease: &mut Lease, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, UpstreamError> {
        let answering = async {
            lease.sender.ready().await?;
            lease.sender.send_request(request).await
        };
        let answer = timeout(self.patience, answering).await.map_err(|_| self.silent("gave no answer"))?;
        answer.map_err(|reason| UpstreamError::Broke { authority: self.url.authority().to_owned(), reason })
    }

    fn silent(&self, what: &'static str) -> UpstreamError {
        UpstreamError::Silent { authority: self.url.authority().to_owned(), what, after: self.patience }
    }
}

/// A connection's bytes, in the clear or in TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn start(stream: Box<dyn Stream>) -> std::io::Result<Lease> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ_BUFFER_BYTES_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    // Whoever sends learns of errors from the request; the task only drives.
    tokio::spawn(async { drop(connection.await) });
    Ok(Lease { sender, is_fresh: true })
}

fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, UpstreamConfigError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let flawed = |reason: String| UpstreamConfigError::Authorities { file: file.to_owned(), reason };
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| flawed(error.to_string()))? {
                let certificate = certificate.map_err(|error| flawed(error.to_string()))?;
                roots.add(certificate).map_err(|error| flawed(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(flawed("it holds no certificate".into()));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites of TLS 1.2 and 1.3");
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The value of `Authorization` with the secret in `file`, which the configuration names by `key`.
pub(crate) fn bearer(file: &Path, key: &'static str) -> Result<HeaderValue, UpstreamConfigError> {
    Ok(Secret::read(file, key, fs::File::open(file))?.bearer())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

    async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        head
    }

    /// Answers `requests` requests on each of `connections` connections, one connection after the other, and closes it.
    async fn server(connections: usize, requests: usize) -> HttpUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..requests {
                    let head = head(&mut stream).await;
                    assert!(head.starts_with(b"GET /base/x HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
                    stream.write_all(ANSWER).await.unwrap();
                }
            }
        });
        url
    }

    fn upstream(url: HttpUrl) -> Upstream {
        Upstream::new(url, None, Duration::from_secs(5)).unwrap()
    }

    fn ask(upstream: &Upstream) -> Request<Full<Bytes>> {
        let secret = HeaderValue::from_static("Bearer secret");
        upstream.request(Method::GET, "/x", &secret).body(Full::default()).unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_one_that_was_closed_is_replaced() {
        let upstream = upstream(server(2, 2).await);
        for is_fresh in [true, false, true, false] {
            let (answer, lease) = upstream.send(ask(&upstream)).await.unwrap();
            assert_eq!((answer.status().as_u16(), lease.is_fresh), (204, is_fresh));
            drop(answer);
            upstream.keep(lease);
        }
    }

    #[tokio::test]
    async fn a_connection_of_another_runtime_is_not_used() {
        let upstream = Arc::new(upstream(server(2, 1).await));
        let (answer, lease) = upstream.send(ask(&upstream)).await.unwrap();
        drop(answer);
        upstream.keep(lease);
        let elsewhere = upstream.clone();
        let is_fresh = std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { elsewhere.send(ask(&elsewhere)).await.unwrap().1.is_fresh })
        });
        assert!(tokio::task::spawn_blocking(|| is_fresh.join()).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let upstream = Upstream::new(url, None, Duration::from_millis(50)).unwrap();
        let error = upstream.send(ask(&upstream)).await.err().unwrap();
        assert_eq!(error.to_string(), format!("{} gave no answer for 50 ms", listener.local_addr().unwrap()));
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let error = upstream.send(ask(&upstream)).await.err().unwrap();
        assert!(error.to_string().starts_with(&format!("cannot connect to {addr}: Connection refused")), "{error}");
    }

    #[tokio::test]
    async fn behind_tls_only_one_whose_authority_is_trusted_is_asked() {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HttpUrl = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut asked = [0; 4096];
                if stream.read(&mut asked).await.is_ok_and(|bytes| bytes > 0) {
                    // Whoever has the answer may be gone.
                    let _ = stream.write_all(ANSWER).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        fs::write(&file, made.cert.pem()).unwrap();
        let trusted = Upstream::new(url.clone(), Some(&file), Duration::from_secs(5)).unwrap();
        assert_eq!(trusted.send(ask(&trusted)).await.unwrap().0.status().as_u16(), 204);
        let secret = HeaderValue::from_static("Bearer secret");
        let error = trusted.exchange("/x", &secret, Full::<Bytes>::default()).await.err().unwrap();
        assert!(matches!(error, UpstreamError::NoHttp2 { .. }), "{error}");
        let strange = upstream(url);
        let error = strange.send(ask(&strange)).await.err().unwrap().to_string();
        assert!(error.contains("invalid peer certificate"), "{error}");
    }

    #[test]
    fn a_file_without_a_usable_authority_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authorities");
        fs::write(&file, "no certificate").unwrap();
        let error = Upstream::new("https://o".parse().unwrap(), Some(&file), Duration::ZERO).err().unwrap();
        assert!(error.to_string().contains("it holds no certificate"), "{error}");
    }
}

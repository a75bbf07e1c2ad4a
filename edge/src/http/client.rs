//! A client of the same protocols, for operators' tools and tests: one connection, many requests.

use std::{io, net::SocketAddr, sync::Arc};

use ::http::{HeaderMap, Method, Uri, response, uri};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, sync::Mutex, task::JoinHandle};
use tokio_rustls::TlsConnector;

use super::{Protocol, h3};

/// Bytes that a server may send on one stream of HTTP/2 or HTTP/3 before they are read.
const WINDOW_BYTES: u32 = 4 << 20;

/// A connection that is open. Dropping it closes it.
pub struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
    /// QUIC's socket, which must outlive its connection.
    _endpoint: Option<quinn::Endpoint>,
}

enum Sender {
    /// One request at a time, each waiting for the one before.
    Http1(Arc<Mutex<http1::SendRequest<Empty<Bytes>>>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
    /// Locked for as long as it is cloned: the futures in it are not to be shared between threads.
    Http3(parking_lot::Mutex<::h3::client::SendRequest<h3::Opener<h3::Quinn>, Bytes>>),
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be reached.
    #[error("cannot connect to {addr}: {error}")]
    Connect {
        /// Where.
        addr: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// TLS or QUIC did not come to an agreement.
    #[error("no secure connection to {addr}: {reason}")]
    Handshake {
        /// With whom.
        addr: SocketAddr,
        /// Whose fault it was, in its words.
        reason: String,
    },
    /// The server does not speak the wanted protocol.
    #[error("{addr} does not speak {}", .wanted.alpn())]
    Protocol {
        /// Who.
        addr: SocketAddr,
        /// What was wanted.
        wanted: Protocol,
    },
    /// The server's name is no name and no address.
    #[error("{0:?} is neither a host name nor an address")]
    Name(String),
    /// The request cannot be written.
    #[error("no request can be made of it: {0}")]
    Request(#[from] ::http::Error),
    /// HTTP/1.1 or HTTP/2 broke.
    #[error("the connection broke: {}", deepest(.0))]
    Tcp(#[from] hyper::Error),
    /// HTTP/3 broke.
    #[error("the connection broke: {0}")]
    Quic(#[from] ::h3::error::StreamError),
}

fn deepest(error: &hyper::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    format!("{error} ({deepest})")
}

impl Connection {
    /// Connects to `addr` and agrees on `protocol`. `server_name` is what the certificate must be for; `tls` says whom to trust (its ALPN
    /// is set here).
    pub async fn connect(
        protocol: Protocol,
        addr: SocketAddr,
        server_name: &str,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, ClientError> {
        let mut tls = rustls::ClientConfig::clone(&tls);
        tls.alpn_protocols = vec![protocol.alpn().into()];
        if protocol == Protocol::Http3 {
            return Self::quic(addr, server_name, tls).await;
        }
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| ClientError::Name(server_name.to_owned()))?;
        let tcp = TcpStream::connect(addr).await.map_err(|error| ClientError::Connect { addr, error })?;
        let _ = tcp.set_nodelay(true);
        let handshake = |error: io::Error| ClientError::Handshake { addr, reason: error.to_string() };
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.map_err(handshake)?;
        // A server without ALPN speaks HTTP/1.1.
        if stream.get_ref().1.alpn_protocol().unwrap_or(b"http/1.1") != protocol.alpn().as_bytes() {
            return Err(ClientError::Protocol { addr, wanted: protocol });
        }
        let io = TokioIo::new(stream);
        let (sender, driver) = if protocol == Protocol::Http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES * 4)
                .handshake(io)
                .await?;
            (Sender::Http2(sender), tokio::spawn(async { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            (Sender::Http1(Arc::new(Mutex::new(sender))), tokio::spawn(async { drop(connection.await) }))
        };
        Ok(Self { sender, driver, _endpoint: None })
    }

    async fn quic(addr: SocketAddr, server_name: &str, tls: rustls::ClientConfig) -> Result<Self, ClientError> {
        let failed = |reason: String| ClientError::Handshake { addr, reason };
        let local: SocketAddr = if addr.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().expect("an address");
        let endpoint = quinn::Endpoint::client(local).map_err(|error| ClientError::Connect { addr, error })?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| failed(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(WINDOW_BYTES.into()).receive_window((WINDOW_BYTES * 4).into());
        config.transport_config(Arc::new(transport));
        let connecting = endpoint.connect_with(config, addr, server_name).map_err(|error| failed(error.to_string()))?;
        let quinn = connecting.await.map_err(|error| failed(error.to_string()))?;
        let transport = h3::Connection::new(h3::Quinn::new(quinn), h3::ReadLimits::NONE);
        let (mut connection, sender) =
            ::h3::client::builder().send_grease(false).build(transport).await.map_err(|error| failed(error.to_string()))?;
        let driver = tokio::spawn(async move {
            connection.wait_idle().await;
        });
        Ok(Self { sender: Sender::Http3(sender.into()), driver, _endpoint: Some(endpoint) })
    }

    /// Sends a request without a body. Requests on one connection of HTTP/2 or HTTP/3 go side by side.
    pub async fn send(
        &self,
        method: Method,
        authority: &str,
        path_and_query: &str,
        headers: HeaderMap,
    ) -> Result<(response::Parts, ClientBody), ClientError> {
        let absolute = Uri::builder().scheme(uri::Scheme::HTTPS).authority(authority).path_and_query(path_and_query).build()?;
        let mut request = ::http::Request::new(Empty::new());
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        match &self.sender {
            Sender::Http1(sender) => {
                let host = ::http::HeaderValue::from_str(authority).map_err(::http::Error::from)?;
                request.headers_mut().insert(::http::header::HOST, host);
                *request.uri_mut() = Uri::builder().path_and_query(path_and_query).build()?;
                let mut sender = sender.clone().lock_owned().await;
                sender.ready().await?;
                let (head, body) = sender.send_request(request).await?.into_parts();
                Ok((head, ClientBody(Receiver::Tcp(body))))
            }
            Sender::Http2(sender) => {
                *request.uri_mut() = absolute;
                let mut sender = sender.clone();
                sender.ready().await?;
                let (head, body) = sender.send_request(request).await?.into_parts();
                Ok((head, ClientBody(Receiver::Tcp(body))))
            }
            Sender::Http3(sender) => {
                *request.uri_mut() = absolute;
                let mut sender = sender.lock().clone();
                let mut stream = sender.send_request(request.map(|_| ())).await?;
                stream.finish().await?;
                let (head, ()) = stream.recv_response().await?.into_parts();
                Ok((head, ClientBody(Receiver::Quic(Box::new(stream)))))
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The body of an answer. Dropping it before its end tells the server to stop.
pub struct ClientBody(Receiver);

enum Receiver {
    Tcp(hyper::body::Incoming),
    Quic(Box<::h3::client::RequestStream<h3::BidiStream<h3::Quinn>, Bytes>>),
}

impl ClientBody {
    /// The next bytes; `None` at the end, which is the end that the server announced.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        match &mut self.0 {
            Receiver::Tcp(body) => loop {
                match body.frame().await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(bytes) => return Some(Ok(bytes)),
                        Err(_trailers) => continue,
                    },
                    Err(error) => return Some(Err(error.into())),
                }
            },
            Receiver::Quic(stream) => match stream.recv_data().await {
                Ok(Some(mut bytes)) => Some(Ok(bytes.copy_to_bytes(bytes.remaining()))),
                Ok(None) => None,
                Err(error) => Some(Err(error.into())),
            },
        }
    }
}

//! The protocols: bytes ↔ [`Request`] and [`Response`], nothing else. Knows no cache, no token, no object.
//!
//! A connection lives and dies on the worker that accepted it. All three protocols hand the same request to one [`Handler`] and send the
//! same [`Body`]; a body that ends before its announced length ends in a protocol error, never in a short success.

mod activity;
mod body;
pub mod client;
mod clock;
mod counters;
mod floods;
pub mod h3;
mod leave;
pub mod limits;
mod link;
mod pace;
pub mod quic;
mod records;
mod server;
mod tcp;
mod watch;

use std::net::SocketAddr;

use ::http::{HeaderMap, Method};

pub use body::{Body, BodyError};
pub use counters::{Cap, Count, Counters, ProtocolCounters};
pub use floods::{Allowance, Flood};
pub use leave::{Orderer, Orders};
pub use limits::{Congestion, HEAD_BUFFER_FACTOR, Limits};
pub use link::{Estimate, Link, Tcp};
pub use pace::Gate;
pub use server::{Secrets, Server};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113).
    Http2,
    /// HTTP/3 (RFC 9114).
    Http3,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Http3];

    /// The name by which TLS negotiates it (RFC 7301), and browsers call it.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::Http3 => "h3",
        }
    }
}

/// A request, whichever protocol it came by. Its body, if it has one, is not read.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Host and port as the client names them: `:authority`, or the `Host` header; empty if there is neither.
    pub authority: String,
    /// The path with its query, as sent.
    pub path_and_query: String,
    /// All header fields.
    pub headers: HeaderMap,
    /// By which protocol it came.
    pub protocol: Protocol,
    /// Who asks. An IPv4 client has an IPv4 address here, also when it came to `[::]`.
    pub peer: SocketAddr,
    /// What the answer goes by.
    pub link: Link,
}

impl Request {
    /// The size of its head as RFC 9114 §4.2.2 counts it, whichever protocol it came by.
    fn head_bytes(&self) -> usize {
        const FIELD_BYTES: usize = 32;
        let line = self.method.as_str().len() + self.authority.len() + self.path_and_query.len();
        self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum::<usize>() + line
    }
}

/// An answer. `Content-Length` is set here from the body's length; an answer to HEAD may state another.
pub type Response = ::http::Response<Body>;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the client leaves. The body of an answer to HEAD, of a 204 and of a 304 is not sent.
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send;
}

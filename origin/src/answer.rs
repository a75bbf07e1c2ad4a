//! A request's way: authorise → find → decide → answer. Every error becomes HTTP here, with one sentence for the client and
//! one for the log.

use std::{
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream as _;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{self, HeaderName},
};
use http_body::{Frame, SizeHint};
use wire::{
    object::ObjectPath,
    range::{Decision, Version, Wish},
    secret::Expected,
};

use crate::store::{Described, FileStore, Freshness, Pieces, StoreError};

/// Answers requests from a store.
pub(crate) struct Answerer {
    store: FileStore,
    secret: Expected,
    counters: Arc<Counters>,
}

/// Since the start.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    unauthorized: AtomicU64,
    body_bytes: AtomicU64,
}

impl Counters {
    /// Requests for objects, whatever came of them.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests with a wrong secret or none.
    pub fn unauthorized(&self) -> u64 {
        self.unauthorized.load(Ordering::Relaxed)
    }

    /// Bytes of objects promised in answers.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::Relaxed)
    }
}

impl Answerer {
    pub(crate) fn new(store: FileStore, secret: Expected) -> Self {
        Self { store, secret, counters: Arc::default() }
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    pub(crate) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if request.uri().path() == "/healthz" {
            return short(StatusCode::OK, "ok");
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        if !self.secret.is_presented(request.headers()) {
            self.counters.unauthorized.fetch_add(1, Ordering::Relaxed);
            return with(short(StatusCode::UNAUTHORIZED, "no valid fill token"), header::WWW_AUTHENTICATE, "Bearer");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return with(short(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"), header::ALLOW, "GET, HEAD");
        }
        let found = match ObjectPath::new(request.uri().path()) {
            Ok(path) => self.store.find(&path).await,
            Err(error) => Err(StoreError::NotFound(error.to_string())),
        };
        match found {
            Ok(object) => {
                let described = object.described().clone();
                // Objects have strong tags and no modification date.
                let version = Version { etag: &described.etag, length: described.bytes, modified: None };
                let decision = Wish::of(request.method(), request.headers()).decide(version);
                let with_body = *request.method() == Method::GET;
                respond(decision, &described, |range| {
                    let length = range.end - range.start;
                    if !with_body {
                        return Body::Empty;
                    }
                    self.counters.body_bytes.fetch_add(length, Ordering::Relaxed);
                    Body::Pieces { pieces: object.read(range), left: length }
                })
            }
            Err(StoreError::NotFound(_)) => short(StatusCode::NOT_FOUND, "no such object"),
            Err(StoreError::Stopped) => short(StatusCode::SERVICE_UNAVAILABLE, "the origin is stopping"),
            Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => {
                tracing::error!(path = request.uri().path(), %error, "an object cannot be served");
                short(StatusCode::INTERNAL_SERVER_ERROR, "the store is damaged; see the origin's log")
            }
        }
    }
}

fn respond(decision: Decision, described: &Described, body: impl FnOnce(std::ops::Range<u64>) -> Body) -> Response<Body> {
    let whole = described.bytes;
    let (status, length, range, body) = match decision {
        Decision::PreconditionFailed => return short(StatusCode::PRECONDITION_FAILED, "it is another version"),
        Decision::Unsatisfiable => {
            let response = short(StatusCode::RANGE_NOT_SATISFIABLE, "the range is beyond the end");
            return with(response, header::CONTENT_RANGE, &format!("bytes */{whole}"));
        }
        Decision::NotModified => (StatusCode::NOT_MODIFIED, None, None, Body::Empty),
        // §14.2: "A server MAY ignore the Range header field." Edges ask for one range and never for several.
        Decision::Whole | Decision::Parts(_) => (StatusCode::OK, Some(whole), None, body(0..whole)),
        Decision::Part(part) => {
            let (length, shown) = (part.end - part.start, format!("bytes {}-{}/{whole}", part.start, part.end - 1));
            (StatusCode::PARTIAL_CONTENT, Some(length), Some(shown), body(part))
        }
    };
    let cache_control = match described.freshness {
        Freshness::Immutable => "public, max-age=31536000, immutable".to_owned(),
        Freshness::Seconds(seconds) => format!("public, max-age={seconds}"),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response = with(response, header::ETAG, &described.etag);
    response = with(response, header::CACHE_CONTROL, &cache_control);
    response = with(response, header::ACCEPT_RANGES, "bytes");
    if status != StatusCode::NOT_MODIFIED {
        response = with(response, header::CONTENT_TYPE, &described.content_type);
    }
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    match range {
        Some(range) => with(response, header::CONTENT_RANGE, &range),
        None => response,
    }
}

fn short(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Text(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    with(with(response, header::CONTENT_TYPE, "text/plain; charset=utf-8"), header::CACHE_CONTROL, "no-store")
}

/// Adds a header; a value that no header may have (from a damaged title file) is left out.
fn with(mut response: Response<Body>, name: HeaderName, value: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// What is sent after the head.
pub(crate) enum Body {
    Empty,
    Text(Bytes),
    Pieces { pieces: Pieces, left: u64 },
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let piece = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Text(text) => {
                let text = std::mem::take(text);
                *self = Self::Empty;
                Some(Ok(text))
            }
            Self::Pieces { pieces, left } => {
                let piece = ready!(Pin::new(pieces).poll_next(context));
                match &piece {
                    Some(Ok(piece)) => *left = left.saturating_sub(piece.len() as u64),
                    Some(Err(error)) => tracing::error!(%error, "an answer is cut off"),
                    None => {}
                }
                piece
            }
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Text(text) => text.len() as u64,
            Self::Pieces { left, .. } => *left,
        })
    }
}

//! The one place where outcomes become HTTP: answers, refusals and errors alike, and what all of them have in common.
//!
//! A client is told what it can act on and no more. Why a token was refused, and what the origin said, is for the operator: it goes to the log.

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use cache::{FillError, Generation, Verdict};
use futures_util::{Stream, stream};

use crate::{
    config::{Name, WebOrigin},
    http::{Body, Request, Response},
    parts::content_range,
    refused::Refused,
    serve::{Found, Served},
    visit::Visit,
};

/// When a client may ask again for what cannot be served now, in seconds.
const RETRY_AFTER_S: u16 = 2;
/// How long a browser may remember what scripts may ask for, in seconds; Chromium takes no more.
const PREFLIGHT_AGE_S: u16 = 7200;
/// The reason code of a 403, for whoever signs URLs.
const REASON: HeaderName = HeaderName::from_static("larder-reason");
/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Server Timing (W3C).
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Resource Timing (W3C) §4.5.
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// The largest number of seconds (RFC 9111 §1.2.2).
const DELTA_S_MAX: u64 = 1 << 31;
/// Headers of an answer with bytes, and some to spare: the map need not grow.
const HEADERS_USUAL: usize = 24;
const METHODS: &str = "GET, HEAD, OPTIONS";
/// What scripts may send: ranges, conditions, and Common Media Client Data (CTA-5004).
const ALLOWED_HEADERS: &str = "Range, If-Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, Cache-Control, \
                               CMCD-Request, CMCD-Object, CMCD-Status, CMCD-Session";
/// What scripts may see.
const EXPOSED_HEADERS: &str = "Accept-Ranges, Age, Cache-Status, CMSD-Dynamic, Content-Length, Content-Range, Date, ETag, Larder-Reason, Retry-After, Server-Timing";

/// Makes answers.
pub(crate) struct Responder {
    /// The edge's name as RFC 9211 §2 wants it: a token where it can be one, or else a string.
    cache_name: String,
    /// `Cache-Status`, for each of [`Verdict::ALL`].
    cache_status: [HeaderValue; Verdict::ALL.len()],
    allowed_origins: Option<Vec<WebOrigin>>,
}

impl Responder {
    pub(crate) fn new(name: &Name, allowed_origins: Option<Vec<WebOrigin>>) -> Self {
        let name = name.as_str();
        let is_token = name.starts_with(|c: char| c.is_ascii_alphabetic());
        let cache_name = if is_token { name.to_owned() } else { format!("\"{name}\"") };
        let cache_status = Verdict::ALL.map(|verdict| {
            let value = format!("{cache_name}; {}", cache_status(verdict));
            HeaderValue::try_from(value).expect("names have letters, digits and few signs")
        });
        Self { cache_name, cache_status, allowed_origins }
    }

    /// The answer to `request`.
    pub(crate) fn respond(&self, request: &Request, outcome: Result<Served, Refused>, visit: Visit) -> Response {
        let mut response = match outcome {
            Ok(Served::Options) => options(visit),
            Ok(Served::NotModified(found)) => self.not_modified(&found, visit),
            Ok(Served::Whole { found, reader }) => {
                let length = found.generation.length;
                let headers = self.head(&found, length, &visit);
                match reader {
                    Some(reader) => send(StatusCode::OK, headers, length, reader, visit),
                    None => send(StatusCode::OK, headers, 0, stream::empty(), visit),
                }
            }
            Ok(Served::Part { found, range, reader }) => {
                let length = range.end - range.start;
                let mut headers = self.head(&found, length, &visit);
                insert(&mut headers, header::CONTENT_RANGE, &content_range(&range, found.generation.length));
                send(StatusCode::PARTIAL_CONTENT, headers, length, reader, visit)
            }
            Ok(Served::Parts { found, content_type, bytes, body }) => {
                // RFC 9110 §15.3.7.2: no Content-Range of its own; each part has one.
                let mut headers = self.head(&found, bytes, &visit);
                insert(&mut headers, header::CONTENT_TYPE, &content_type);
                send(StatusCode::PARTIAL_CONTENT, headers, bytes, body, visit)
            }
            Err(refused) => self.refusal(request, &refused, visit),
        };
        let headers = response.headers_mut();
        headers.insert(header::SERVER, HeaderValue::from_static("larder"));
        headers.insert(header::DATE, date(SystemTime::now()));
        self.share(request.headers.get(header::ORIGIN), headers);
        response
    }

    /// The head that all answers with bytes of an object have, for `length` bytes of body.
    fn head(&self, found: &Found, length: u64, visit: &Visit) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(HEADERS_USUAL);
        describe(&found.generation, &mut headers);
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        if let Some(cookie) = &visit.cookie {
            insert(&mut headers, header::SET_COOKIE, cookie);
        }
        self.tell_origin(found, &mut headers);
        insert(&mut headers, SERVER_TIMING, &timing(visit));
        headers
    }

    /// Whether it came from here, and how old it is.
    fn tell_origin(&self, found: &Found, headers: &mut HeaderMap) {
        self.tell_verdict(found.verdict, headers);
        let age_s = found.age.as_secs();
        // RFC 9111 §5.1: "The presence of an Age header field implies that the response was not generated or validated by the origin server
        // for this request."
        if age_s > 0 || matches!(found.verdict, Verdict::Ram | Verdict::Ssd) {
            headers.insert(header::AGE, age_s.min(DELTA_S_MAX).into());
        }
    }

    fn tell_verdict(&self, verdict: Verdict, headers: &mut HeaderMap) {
        headers.insert(CACHE_STATUS, self.cache_status[verdict as usize].clone());
    }

    fn not_modified(&self, found: &Found, mut visit: Visit) -> Response {
        // RFC 9110 §15.4.5: what a 200 would have had of Cache-Control, Content-Location, Date, ETag, Expires and Vary.
        let mut headers = HeaderMap::new();
        let generation = &found.generation;
        insert(&mut headers, header::ETAG, &generation.validator);
        let cache_control = generation.headers.iter().find(|(name, _)| name == header::CACHE_CONTROL.as_str());
        if let Some((_, value)) = cache_control {
            insert(&mut headers, header::CACHE_CONTROL, value);
        }
        self.tell_origin(found, &mut headers);
        visit.answered(StatusCode::NOT_MODIFIED, 0, None);
        assemble(StatusCode::NOT_MODIFIED, headers, Body::empty())
    }

    fn refusal(&self, request: &Request, refused: &Refused, mut visit: Visit) -> Response {
        let (status, text) = sentence(refused);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_LENGTH, text.len().into());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
        }
        match refused {
            Refused::Method(_) => drop(headers.insert(header::ALLOW, HeaderValue::from_static(METHODS))),
            Refused::Token(refusal) => {
                visit.refuses(refusal.code());
                headers.insert(REASON, HeaderValue::from_static(refusal.code()));
            }
            Refused::PreconditionFailed { verdict } => self.tell_verdict(*verdict, &mut headers),
            Refused::Unsatisfiable { length, verdict } => {
                insert(&mut headers, header::CONTENT_RANGE, &format!("bytes */{length}"));
                self.tell_verdict(*verdict, &mut headers);
            }
            Refused::Fill(error) => {
                let status = if *error == FillError::NotFound { "; fwd-status=404" } else { "" };
                insert(&mut headers, CACHE_STATUS, &format!("{}; fwd=miss{status}; detail=origin", self.cache_name));
            }
            Refused::Path(_) => {}
        }
        let body = if request.method == Method::HEAD { Body::empty() } else { Body::full(text) };
        visit.answered(status, body.bytes_left(), Some(refused.to_string()));
        visit.sends(body.bytes_left());
        assemble(status, headers, body)
    }

    /// Cross-origin sharing (the Fetch standard §3.3), for answers and errors alike, so that a player can tell them apart.
    fn share(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let allowed = match &self.allowed_origins {
            None => HeaderValue::from_static("*"),
            Some(allowed) => {
                headers.append(header::VARY, HeaderValue::from_static("Origin"));
                let Some(origin) = origin.filter(|origin| allowed.iter().any(|one| one.as_str().as_bytes() == origin.as_bytes()))
                else {
                    return;
                };
                // Tokens may come in cookies, which scripts may send only where the origin is named.
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                origin.clone()
            }
        };
        headers.insert(TIMING_ALLOW_ORIGIN, allowed.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
}

/// An answer whose body is counted as it leaves.
fn send<S>(status: StatusCode, headers: HeaderMap, length: u64, bytes: S, mut visit: Visit) -> Response
where
    S: Stream<Item = Result<Bytes, FillError>> + Send + Unpin + 'static,
{
    visit.answered(status, length, None);
    let body = if length == 0 { Body::empty() } else { Body::stream(length, Sending { bytes, visit }) };
    assemble(status, headers, body)
}

fn options(mut visit: Visit) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE_S.into());
    visit.answered(StatusCode::NO_CONTENT, 0, None);
    assemble(StatusCode::NO_CONTENT, headers, Body::empty())
}

/// One sentence for the client.
fn sentence(refused: &Refused) -> (StatusCode, &'static str) {
    match refused {
        Refused::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "objects are read by GET and HEAD\n"),
        Refused::Path(_) => (StatusCode::NOT_FOUND, "no such object\n"),
        Refused::Token(_) => (StatusCode::FORBIDDEN, "not with this token\n"),
        Refused::PreconditionFailed { .. } => (StatusCode::PRECONDITION_FAILED, "the object is another version\n"),
        Refused::Unsatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "the range is beyond the object's end\n"),
        Refused::Fill(error) => match error {
            FillError::NotFound => (StatusCode::NOT_FOUND, "no such object\n"),
            FillError::Unavailable(_) | FillError::Busy | FillError::Changed => {
                (StatusCode::SERVICE_UNAVAILABLE, "the object cannot be had right now\n")
            }
            FillError::OutOfRange | FillError::Short { .. } | FillError::TooLong { .. } | FillError::Refused(_) => {
                (StatusCode::BAD_GATEWAY, "the object's source is at fault\n")
            }
        },
    }
}

fn assemble(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn describe(generation: &Generation, headers: &mut HeaderMap) {
    insert(headers, header::ETAG, &generation.validator);
    for (name, value) in &generation.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            insert(headers, name, value);
        }
    }
}

/// Inserts what can stand in a header; nothing else gets here, since it came out of one.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What this cache did, by the parameters of RFC 9211 §2.
fn cache_status(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ram => "hit; detail=ram",
        Verdict::Filled => "fwd=miss; stored; detail=origin",
        Verdict::Ssd => "hit; detail=ssd",
        Verdict::Collapsed => "fwd=miss; collapsed; detail=origin",
        Verdict::Revalidated => "fwd=stale; fwd-status=304; detail=origin",
    }
}

/// How long the token took, and how long the wait for the first word about the bytes.
fn timing(visit: &Visit) -> String {
    let token = Millis(visit.token.unwrap_or_default());
    let look_up = Millis(visit.look_up.unwrap_or_default());
    match visit.verdict {
        None => format!("token;dur={token}"),
        Some(Verdict::Ram) => format!("token;dur={token}, cache;desc=hit;dur={look_up}"),
        Some(Verdict::Filled) => format!("token;dur={token}, cache;desc=miss, fill;dur={look_up}"),
        Some(Verdict::Ssd) => format!("token;dur={token}, cache;desc=hit-ssd;dur={look_up}"),
        Some(Verdict::Collapsed) => format!("token;dur={token}, cache;desc=collapsed, fill;dur={look_up}"),
        Some(Verdict::Revalidated) => format!("token;dur={token}, cache;desc=stale, fill;dur={look_up}"),
    }
}

/// Written in milliseconds, to the microsecond. Numbers with a point cost more to write, and this is written for each answer.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// `Date` (RFC 9110 §6.6.1), written once a second on each worker.
fn date(now: SystemTime) -> HeaderValue {
    thread_local! {
        static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let second = now.duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs);
    WRITTEN.with_borrow_mut(|(written, value)| {
        if *written != second || value.is_empty() {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            (*written, *value) = (second, HeaderValue::from_str(&text).expect("a date is ASCII"));
        }
        value.clone()
    })
}

/// A body whose bytes are counted as they leave.
struct Sending<S> {
    bytes: S,
    visit: Visit,
}

impl<S: Stream<Item = Result<Bytes, FillError>> + Unpin> Stream for Sending<S> {
    type Item = Result<Bytes, FillError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(Pin::new(&mut self.bytes).poll_next(cx));
        match &chunk {
            Some(Ok(bytes)) => self.visit.sends(bytes.len() as u64),
            Some(Err(error)) => self.visit.breaks(error.to_string()),
            None => {}
        }
        Poll::Ready(chunk)
    }
}

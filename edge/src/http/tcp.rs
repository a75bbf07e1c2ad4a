//! HTTP/1.1 and HTTP/2 over TLS over TCP, and HTTP/1.1 over TCP alone: hyper's, with our limits around it.

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{HeaderValue, StatusCode, Version, header, request::Parts, uri::Authority};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_rustls::LazyConfigAcceptor;

use super::{
    Body, Flood, Handler, Protocol, Request, Response,
    activity::{Activity, Watched},
    link::{Link, Tcp, tune},
    records::{Holds, Records},
    server::{CLOSE_TIMEOUT, Place, Shared, framed},
    watch::{FrameWatch, LineWatch},
};

/// What HTTP/2 keeps ready per stream beyond the socket's buffer.
const H2_SEND_BUFFER_BYTES: usize = 1 << 20;
/// What a client may send of a request's body before somebody reads it, which nobody does.
const H2_STREAM_WINDOW_BYTES: u32 = 16 << 10;
/// The same of all its requests together: what every connection begins with (RFC 9113 §6.9.2), and no more.
const H2_CONNECTION_WINDOW_BYTES: u32 = 65_535;
/// Resets that a client may have waiting before its connection is closed (rapid reset, CVE-2023-44487).
const H2_PENDING_RESETS_MAX: usize = 20;
/// Streams that we may reset for a client's errors before its connection is closed.
const H2_LOCAL_RESETS_MAX: usize = 100;

/// How long a connection of HTTP/1.1 may be without a request once its server takes nobody new. There is no GOAWAY in HTTP/1.1: who is told by an answer that it
/// was the last does not come too late with the next request, and most clients ask within this time.
const LEAVING_IDLE_MAX: Duration = Duration::from_secs(10);

/// Serves one accepted connection to its end.
pub(super) async fn serve<H: Handler>(stream: TcpStream, peer: SocketAddr, mut place: Place<H>) {
    let shared = place.shared().clone();
    tune(&stream, &shared.limits);
    let handshake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = shared.tls.tcp(&hello.client_hello());
        hello.into_stream(config).await
    };
    let stream = tokio::select! {
        shaken = timeout(shared.limits.header_timeout, handshake) => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                shared.counters.handshakes_failed.up();
                tracing::debug!(%peer, %error, "TLS handshake failed");
                return;
            }
            Err(_) => return shared.counters.timed_out.up(),
        },
        () = shared.drain.cancelled() => return,
    };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    place.speaks(protocol);
    let link = Tcp::new(stream.get_ref().0);
    let stream = Records::new(stream);
    match protocol {
        Protocol::Http2 => serve_http2(stream, link, peer, &shared).await,
        _ => serve_http1(stream, link, peer, &shared, Some(&shared.alt_svc)).await,
    }
}

/// Serves one accepted connection without TLS to its end. Nobody is told of HTTP/3 there.
pub(super) async fn serve_plain<H: Handler>(stream: TcpStream, peer: SocketAddr, mut place: Place<H>) {
    let shared = place.shared().clone();
    tune(&stream, &shared.limits);
    place.speaks(Protocol::Http1);
    let link = Tcp::new(&stream);
    serve_http1(stream, link, peer, &shared, None).await;
}

async fn serve_http1<H: Handler, S: AsyncRead + AsyncWrite + Holds + Unpin>(
    stream: S,
    link: Arc<Tcp>,
    peer: SocketAddr,
    shared: &Arc<Shared<H>>,
    alt_svc: Option<&HeaderValue>,
) {
    let activity = Activity::new();
    let watch = Watch::Lines(LineWatch::default());
    let metered = Metered::new(stream, shared.limits.write_stall_max, activity.clone(), watch, link.clone());
    let stream = Joint::new(metered);
    let answer = |request| answer(shared, &activity, &link, Protocol::Http1, peer, alt_svc, request);
    let connection = http1::Builder::new()
        // Ours is measured from the head's first byte, not from the answer before.
        .header_read_timeout(None)
        .max_buf_size(shared.limits.head_buffer_bytes() as usize)
        .half_close(false)
        .serve_connection(TokioIo::new(stream.clone()), service_fn(answer));
    drive(connection, Protocol::Http1, |connection| connection.graceful_shutdown(), &stream, &activity, peer, shared).await;
}

async fn serve_http2<H: Handler, S: AsyncRead + AsyncWrite + Holds + Unpin>(
    stream: S,
    link: Arc<Tcp>,
    peer: SocketAddr,
    shared: &Arc<Shared<H>>,
) {
    let activity = Activity::new();
    let service = service_fn({
        let (shared, activity, link) = (shared.clone(), activity.clone(), link.clone());
        move |request| {
            let (shared, activity, link) = (shared.clone(), activity.clone(), link.clone());
            async move { answer(&shared, &activity, &link, Protocol::Http2, peer, Some(&shared.alt_svc), request).await }
        }
    });
    let watch = Watch::Frames(Box::new(FrameWatch::new()));
    let metered = Metered::new(stream, shared.limits.write_stall_max, activity.clone(), watch, link);
    let stream = Joint::new(metered);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(shared.limits.streams_max)
        .max_header_list_size(shared.limits.head_buffer_bytes())
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(H2_LOCAL_RESETS_MAX)
        .serve_connection(TokioIo::new(stream.clone()), service);
    drive(connection, Protocol::Http2, |connection| connection.graceful_shutdown(), &stream, &activity, peer, shared).await;
}

/// Runs a connection to its end, or to the first limit that it hits. `close` ends it once what is under way is done.
async fn drive<C: Future<Output = hyper::Result<()>>, S: AsyncWrite + Holds + Unpin, H>(
    connection: C,
    protocol: Protocol,
    close: fn(Pin<&mut C>),
    stream: &Joint<S>,
    activity: &Activity,
    peer: SocketAddr,
    shared: &Shared<H>,
) {
    let (limits, counters) = (&shared.limits, &shared.counters);
    let mut connection = pin!(connection);
    let (mut leaving, mut closing) = (false, false);
    let ended = loop {
        let idle_max = if leaving { limits.idle_timeout.min(LEAVING_IDLE_MAX) } else { limits.idle_timeout };
        tokio::select! {
            ended = poll_fn(|cx| stream.turn(connection.as_mut(), cx)) => break ended,
            () = shared.drain.cancelled(), if !closing => {
                closing = true;
                close(connection.as_mut());
            }
            () = shared.leave.begun(), if !leaving => {
                leaving = true;
                // GOAWAY (RFC 9113 §6.8). In HTTP/1.1 the next answer says it (RFC 9112 §9.6).
                if protocol == Protocol::Http2 {
                    close(connection.as_mut());
                }
            }
            () = activity.idle(idle_max) => {
                if !leaving {
                    counters.timed_out.up();
                }
                close(connection.as_mut());
                // HTTP/2 would wait for the client to agree.
                let _ = timeout(CLOSE_TIMEOUT, poll_fn(|cx| stream.turn(connection.as_mut(), cx))).await;
                return;
            }
            () = activity.head_late(limits.header_timeout) => return counters.timed_out.up(),
            // Flow control lets a client of HTTP/2 stop all bodies without stopping the socket.
            () = activity.stalled(limits.write_stall_max) => return counters.stalled.up(),
        }
    };
    match (ended, activity.flood()) {
        (_, Some(flood)) => {
            counters.flood(flood);
            tracing::debug!(%peer, flood = flood.name(), "connection closed for a flood");
        }
        (Err(error), None) => note(shared, peer, &*error, activity),
        (Ok(()), None) => {}
    }
}

async fn answer<H: Handler>(
    shared: &Shared<H>,
    activity: &Arc<Activity>,
    link: &Arc<Tcp>,
    protocol: Protocol,
    peer: SocketAddr,
    alt_svc: Option<&HeaderValue>,
    request: ::http::Request<Incoming>,
) -> Result<::http::Response<Watched>, Infallible> {
    let underway = activity.request();
    let (head, content) = request.into_parts();
    if let Some(unfit) = (protocol == Protocol::Http1).then(|| Unfit::of(&head, &content, activity)).flatten() {
        match unfit {
            Unfit::Content => shared.counters.contents.up(),
            _ => shared.counters.malformed.up(),
        }
        return Ok(framed(&head.method, unfit.response()).map(|body| Watched { body, underway }));
    }
    let named = head.uri.authority().map(|authority| authority.as_str());
    let authority = named.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or_default().to_owned();
    let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let link = Link::Tcp(link.clone());
    let request = Request { method: head.method, authority, path_and_query, headers: head.headers, protocol, peer, link };
    let mut response = shared.answer(request).await;
    if let Some(alt_svc) = alt_svc {
        response.headers_mut().insert(header::ALT_SVC, alt_svc.clone());
    }
    if protocol == Protocol::Http1 && shared.leave.is_leaving() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Watched { body, underway }))
}

/// Why a request of HTTP/1.1 that can be read is refused, and its connection closed: another reader of the same bytes might have read
/// something else (RFC 9112 §11.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    /// An edge has no use for content, and does not wait for its end to find the next request.
    Content,
    /// RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host header
    /// field and to any request message that contains more than one Host header field line or a Host header field with an invalid field
    /// value."
    Host,
    /// RFC 9112 §2.2 lets a reader take LF for a line's end. Whoever stands before us might not.
    Line,
}

impl Unfit {
    fn of(head: &Parts, content: &Incoming, activity: &Activity) -> Option<Self> {
        if !hyper::body::Body::is_end_stream(content) {
            return Some(Self::Content);
        }
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let is_host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => is_host(host),
            (None, _) => head.version < Version::HTTP_11,
            (Some(_), Some(_)) => false,
        };
        if !is_host {
            return Some(Self::Host);
        }
        activity.bare_lf().then_some(Self::Line)
    }

    fn response(self) -> Response {
        let (status, text) = match self {
            Self::Content => (StatusCode::PAYLOAD_TOO_LARGE, "a request here has no content\n"),
            Self::Host => (StatusCode::BAD_REQUEST, "a request has one Host header field\n"),
            Self::Line => (StatusCode::BAD_REQUEST, "a line ends with CR LF\n"),
        };
        let mut response = Response::new(Body::full(text));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// RFC 9110 §7.2: a host with or without a port; empty if the target has no authority.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

/// Counts what went wrong. A client that leaves, or talks nonsense, is not worth a warning.
fn note<H>(shared: &Shared<H>, peer: SocketAddr, error: &(dyn Error + 'static), activity: &Activity) {
    let counters = &shared.counters;
    if cause::<hyper::Error>(error).is_some_and(hyper::Error::is_parse_too_large) {
        counters.heads_too_large.up();
    } else if cause::<io::Error>(error).is_some_and(|error| error.get_ref().is_some_and(|inner| inner.is::<Stalled>())) {
        counters.stalled.up();
    } else if cause::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        counters.malformed.up();
    } else if let Some(error) = cause::<h2::Error>(error).filter(|error| error.is_go_away() && error.is_library()) {
        let is_flood = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        match is_flood.then(|| Flood::of_h2(&activity.last_words())) {
            Some(Some(flood)) => counters.flood(flood),
            Some(None) => counters.heads_too_large.up(),
            None => counters.http2_violations.up(),
        }
    }
    tracing::debug!(%peer, %error, "connection ended with an error");
}

/// What `error` came from, as far as it is a `T`.
fn cause<'a, T: Error + 'static>(mut error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    loop {
        match error.downcast_ref() {
            Some(cause) => return Some(cause),
            None => error = error.source()?,
        }
    }
}

/// The client took nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing for too long")]
struct Stalled;

/// A stream that hyper reads and writes, and that we release each time hyper has done what it can for now.
struct Joint<S>(Arc<Mutex<Metered<S>>>);

impl<S: Holds> Joint<S> {
    fn new(stream: Metered<S>) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// Polls the connection over it, and then releases what that wrote.
    fn turn<C: Future<Output = hyper::Result<()>>>(
        &self,
        connection: Pin<&mut C>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        if let Poll::Ready(ended) = connection.poll(cx) {
            return Poll::Ready(ended.map_err(Into::into));
        }
        match self.0.lock().poll_release(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            // Whatever wakes the stream wakes us.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A stream that tells what comes and goes, and whose writes fail when the other side takes nothing for too long.
struct Metered<S> {
    stream: S,
    stall_max: Duration,
    activity: Arc<Activity>,
    watch: Watch,
    /// Runs while a write is pending.
    patience: Option<Pin<Box<Sleep>>>,
    /// Told before the stream is closed.
    link: Arc<Tcp>,
}

/// What is looked for in what comes.
enum Watch {
    /// Of HTTP/1.1: bytes that come between requests begin a head.
    Lines(LineWatch),
    /// Of HTTP/2, which says other things too.
    Frames(Box<FrameWatch>),
}

/// The client sends too much to no purpose.
#[derive(Debug, thiserror::Error)]
#[error("the client floods: {}", .0.name())]
struct Floods(Flood);

fn floods(activity: &Activity, flood: Flood) -> io::Error {
    activity.floods(flood);
    io::Error::other(Floods(flood))
}

impl<S> Metered<S> {
    fn new(stream: S, stall_max: Duration, activity: Arc<Activity>, watch: Watch, link: Arc<Tcp>) -> Self {
        Self { stream, stall_max, activity, watch, patience: None, link }
    }

    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.watch {
            Watch::Lines(lines) => {
                self.activity.read();
                if lines.read(bytes) {
                    self.activity.saw_bare_lf();
                }
                Ok(())
            }
            Watch::Frames(frames) => frames.read(bytes, Instant::now).map_err(|flood| floods(&self.activity, flood)),
        }
    }

    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.activity.wrote(bytes);
            self.went(bufs, bytes)?;
        }
        self.wait(cx, written)
    }

    fn went(&mut self, bufs: &[io::IoSlice<'_>], mut bytes: usize) -> io::Result<()> {
        let Watch::Frames(frames) = &mut self.watch else { return Ok(()) };
        for buf in bufs {
            let written = &buf[..bytes.min(buf.len())];
            frames.wrote(written, Instant::now).map_err(|flood| floods(&self.activity, flood))?;
            bytes -= written.len();
        }
        if !frames.last_words().is_empty() {
            self.activity.says(frames.last_words());
        }
        Ok(())
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let deadline = Instant::now() + self.stall_max;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        patience.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, Stalled)))
    }
}

impl<S: Holds> Metered<S> {
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let released = self.stream.poll_release(cx);
        self.wait(cx, released)
    }
}

impl<S> Drop for Metered<S> {
    fn drop(&mut self) {
        self.link.closes();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = &buf.filled()[before..];
        if !came.is_empty() {
            self.came(came)?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, &[io::IoSlice::new(buf)], written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, bufs, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.wait(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wait(cx, shut)
    }
}

impl<S> Clone for Joint<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Joint<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Joint<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}

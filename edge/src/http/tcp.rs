//! HTTP/1.1 and HTTP/2 over TLS over TCP: hyper's, with our limits around it.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ::http::{Method, header};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Body, BodyError, Handler, Protocol, Request, Response,
    server::{Place, Shared},
};

/// What HTTP/2 keeps ready per stream beyond the socket's buffer.
const H2_SEND_BUFFER_BYTES: usize = 1 << 20;
/// Resets that a client may have waiting before its connection is closed (rapid reset, CVE-2023-44487).
const H2_PENDING_RESETS_MAX: usize = 20;
/// Streams that we may reset for a client's errors before its connection is closed.
const H2_LOCAL_RESETS_MAX: usize = 100;

/// Serves one accepted connection to its end.
pub(super) async fn serve<H: Handler>(stream: TcpStream, peer: SocketAddr, mut place: Place<H>) {
    let shared = place.shared().clone();
    // Segments are written whole; waiting to fill a packet would only delay their ends.
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(shared.tls.tcp()).accept(stream);
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
    match protocol {
        Protocol::Http2 => serve_http2(stream, peer, &shared).await,
        _ => serve_http1(stream, peer, &shared).await,
    }
}

async fn serve_http1<H: Handler>(stream: TlsStream<TcpStream>, peer: SocketAddr, shared: &Arc<Shared<H>>) {
    let limits = &shared.limits;
    let service = service_fn(|request| answer(shared, Protocol::Http1, peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper's timer runs from the last answer to the end of the next head: it bounds idleness and slow heads alike.
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size((limits.header_bytes_max as usize).max(8 << 10))
        .half_close(false)
        .serve_connection(TokioIo::new(Stalling::new(stream, limits.write_stall_max)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        note(shared, peer, &error);
    }
}

async fn serve_http2<H: Handler>(stream: TlsStream<TcpStream>, peer: SocketAddr, shared: &Arc<Shared<H>>) {
    let limits = &shared.limits;
    let activity = Arc::new(Activity::default());
    let service = service_fn({
        let (shared, activity) = (shared.clone(), activity.clone());
        move |request| {
            let (shared, activity) = (shared.clone(), activity.clone());
            async move {
                activity.seen.fetch_add(1, Ordering::Relaxed);
                let response = answer(&shared, Protocol::Http2, peer, request).await?;
                activity.bodies.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(response.map(|body| Watched { body, activity }))
            }
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_bytes_max)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(H2_LOCAL_RESETS_MAX)
        .serve_connection(TokioIo::new(Stalling::new(stream, limits.write_stall_max)), service);
    let mut connection = pin!(connection);
    let mut closing = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = shared.drain.cancelled(), if !closing => (),
            () = activity.idle(limits.idle_timeout), if !closing => shared.counters.timed_out.up(),
            // Flow control lets a client stop a body without stopping the socket.
            () = activity.stalled(limits.write_stall_max) => return shared.counters.stalled.up(),
        }
        closing = true;
        connection.as_mut().graceful_shutdown();
    };
    if let Err(error) = ended {
        note(shared, peer, &error);
    }
}

async fn answer<H: Handler>(
    shared: &Arc<Shared<H>>,
    protocol: Protocol,
    peer: SocketAddr,
    request: ::http::Request<Incoming>,
) -> Result<Response, Infallible> {
    shared.counters.of(protocol).requests.up();
    let (head, _) = request.into_parts();
    let bodiless = head.method == Method::HEAD;
    let named = head.uri.authority().map(|authority| authority.as_str());
    let authority = named.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or_default().to_owned();
    let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let request = Request { method: head.method, authority, path_and_query, headers: head.headers, protocol, peer };
    let mut response = shared.handler.handle(request).await;
    response.headers_mut().insert(header::ALT_SVC, shared.alt_svc.clone());
    Ok(if bodiless { response.map(|_| Body::empty()) } else { response })
}

/// Counts what went wrong. A client that leaves, or talks nonsense, is not worth a warning.
fn note<H>(shared: &Shared<H>, peer: SocketAddr, error: &hyper::Error) {
    let counters = &shared.counters;
    if error.is_parse_too_large() {
        counters.heads_too_large.up();
    } else if stalled(error) {
        counters.stalled.up();
    } else if error.is_timeout() {
        counters.timed_out.up();
    }
    tracing::debug!(%peer, %error, "connection ended with an error");
}

fn stalled(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.get_ref().is_some_and(|inner| inner.is::<Stalled>())) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a connection of HTTP/2 has done of late.
#[derive(Default)]
struct Activity {
    /// Goes up with each request and each chunk of a body.
    seen: AtomicU64,
    /// Bodies under way.
    bodies: AtomicU64,
}

impl Activity {
    /// Ends when nothing was asked and no body was under way for `time`.
    async fn idle(&self, time: Duration) {
        while !self.quiet(time).await || self.bodies.load(Ordering::Relaxed) > 0 {}
    }

    /// Ends when there were bodies under way and no chunk was taken of any for `time`.
    async fn stalled(&self, time: Duration) {
        while !self.quiet(time).await || self.bodies.load(Ordering::Relaxed) == 0 {}
    }

    /// Waits for `time`; whether nothing happened in it.
    async fn quiet(&self, time: Duration) -> bool {
        let before = self.seen.load(Ordering::Relaxed);
        tokio::time::sleep(time).await;
        self.seen.load(Ordering::Relaxed) == before
    }
}

/// A body that says when a chunk of it is taken.
struct Watched {
    body: Body,
    activity: Arc<Activity>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.activity.seen.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.activity.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The client took nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing for too long")]
struct Stalled;

/// A stream whose writes fail when the other side takes nothing for too long.
struct Stalling<S> {
    stream: S,
    stall_max: Duration,
    /// Runs while a write is pending.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    fn new(stream: S, stall_max: Duration) -> Self {
        Self { stream, stall_max, patience: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let deadline = Instant::now() + self.stall_max;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        patience.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, Stalled)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

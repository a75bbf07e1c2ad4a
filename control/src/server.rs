//! Connections: HTTP/1.1 and HTTP/2 in the clear, as many as fit, none kept that does nothing, all finished on stop.

use std::{
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// Connections at the same time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// HTTP/2 requests at the same time on one connection.
const STREAMS_MAX: u32 = 64;
/// A request's head, in bytes.
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// A connection without a request in progress is closed after this; so is one that is slow to begin its first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests in progress may still take after stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no file descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end of a request's connection: a client, or a proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Serves `router` until `stop`, then until what was begun is answered.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    connection(stream, peer, router, stop).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "stopped with connections still busy after {DRAIN_TIMEOUT:?}");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    let activity = Arc::new(Activity::begun(Instant::now()));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let busy = Activity::busy(&activity);
        let router = router.clone();
        async move {
            let answer = router.oneshot(request.map(Body::new)).await;
            // Until the answer's last byte: a stream's end comes long after its head.
            answer.map(|answer| answer.map(|body| Body::new(BusyBody { body, _busy: busy })))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(HEADER_BYTES_MAX as usize);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEADER_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = activity.idle() => {
                tracing::debug!(%peer, "idle connection closed");
                return;
            }
        }
    }
}

/// What a connection is doing: requests in progress, and since when there are that many.
struct Activity(Mutex<(usize, Instant)>);

impl Activity {
    fn begun(now: Instant) -> Self {
        Self(Mutex::new((0, now)))
    }

    /// A request is in progress until the answer is dropped.
    fn busy(activity: &Arc<Self>) -> Busy {
        activity.0.lock().0 += 1;
        Busy(Arc::clone(activity))
    }

    /// Returns once nothing has been in progress for [`IDLE_TIMEOUT`].
    async fn idle(&self) {
        loop {
            let (requests, since) = *self.0.lock();
            let until = if requests == 0 { since + IDLE_TIMEOUT } else { Instant::now() + IDLE_TIMEOUT };
            if requests == 0 && until <= Instant::now() {
                return;
            }
            sleep_until(until.into()).await;
        }
    }
}

struct Busy(Arc<Activity>);

/// The body of an answer that is in progress.
struct BusyBody {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for BusyBody {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        *state = (state.0 - 1, Instant::now());
    }
}

//! What operators and their tools ask an edge: `/metrics`, `/healthz`, `/readyz` and all below `/cache/`, on an address of its own. No player
//! gets here.

mod cache;
mod guard;

use std::{
    convert::Infallible,
    net::TcpListener,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use self::cache::Operator;
use crate::{
    metrics::Gauges,
    standing::{Outlook, Standing},
};

pub(crate) use self::cache::verified;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Connections at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what was asked may still take once another process answers operators.
const RELIEVED_MAX: Duration = Duration::from_secs(30);
/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers operators until it is dropped, or until another process does (`relieved`); then it finishes what it has been asked.
pub(crate) async fn serve(
    listener: TcpListener,
    gauges: Arc<Gauges>,
    outlook: Outlook,
    relieved: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let operator = Arc::new(Operator::new(gauges.cache.clone()));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = relieved.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an operator's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (operator, gauges, outlook, relieved) = (operator.clone(), gauges.clone(), outlook.clone(), relieved.clone());
        tokio::spawn(async move {
            let was_asked = AtomicBool::new(false);
            let service = service_fn(|request: Request<Incoming>| async {
                was_asked.store(true, Ordering::Relaxed);
                let is_cache = request.uri().path().starts_with("/cache/");
                let standing = outlook.clone().now();
                let mut answer = if is_cache { operator.answer(request).await } else { answer(&request, &gauges, standing) };
                if relieved.is_cancelled() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = relieved.cancelled() => {
                    // Who has just connected is about to ask, and gets an answer.
                    if was_asked.load(Ordering::Relaxed) {
                        connection.as_mut().graceful_shutdown();
                    }
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an operator's connection ended with an error");
            }
            drop(place);
        });
    }
    drop(listener);
    // All places are free once all connections have ended.
    let _ = timeout(RELIEVED_MAX, places.acquire_many(CONNECTIONS_MAX as u32)).await;
    Ok(())
}

fn answer<B>(request: &Request<B>, gauges: &Gauges, standing: Standing) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match standing {
            Standing::Ready => text(StatusCode::OK, "ready\n"),
            Standing::Drained => text(StatusCode::SERVICE_UNAVAILABLE, "drained: an operator has control send nobody here\n"),
            Standing::Draining => {
                text(StatusCode::SERVICE_UNAVAILABLE, "draining: what is being sent is finished, nobody new is taken\n")
            }
            Standing::Ended => text(StatusCode::SERVICE_UNAVAILABLE, "ended\n"),
        },
        "/metrics" => match gauges.text() {
            Ok(page) => text(StatusCode::OK, page),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written; see the log\n")
            }
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and what is below /cache/\n"),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

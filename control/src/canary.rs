//! A second control that is tried out beside this one: it is given a copy of some reads (a mirror), or answers some of them (a split).
//! Writes stay here: each instance has its own database unless they share one, and a write is sent once.
//!
//! Who asks decides whether the second one answers, so that a viewer sees one of the two. If it does not answer well, this one does.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{
        CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE,
    },
    uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::identity::{Caller, address::Client as ClientAddress};

/// Says that another instance asks; who is asked so asks no further.
pub(crate) const ARM: HeaderName = HeaderName::from_static("larder-arm");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Of one connection only, or about a body that is not sent on (RFC 9110 §7.6.1), and what is said anew.
const NOT_SENT_ON: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    FORWARDED,
    FORWARDED_FOR,
    HOST,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// The largest answer that is taken. Larger ones are given by this instance.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Copies on their way at the same time; others are not made.
const MIRRORED_MAX: usize = 256;
/// Requests on their way to the second one at the same time; others are answered here.
const SPLIT_MAX: usize = 1024;
/// Idle connections that are kept for the next request.
const IDLE_MAX: usize = 64;

/// The second instance, and how much of the reads it gets.
#[derive(Debug, Clone)]
pub struct Config {
    /// Scheme (http), host and port.
    pub url: Uri,
    /// Of all callers, how many in a hundred it answers.
    pub split_percent: u8,
    /// Of all reads, how many in a hundred it is given a copy of.
    pub mirror_percent: u8,
    /// How long it has for an answer.
    pub deadline: Duration,
}

/// Sends reads to the second instance.
pub(crate) struct Canary {
    config: Config,
    client: Client<HttpConnector, Empty<Bytes>>,
    splits: Semaphore,
    mirrors: Arc<Semaphore>,
    turn: AtomicU64,
}

/// A copy that may be sent.
pub(crate) struct Mirror {
    request: Request<Empty<Bytes>>,
    _room: OwnedSemaphorePermit,
}

/// Why the second instance's answer is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("too many requests are on their way to it")]
    Full,
    #[error("it takes longer than {0:?}")]
    Late(Duration),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper_util::client::legacy::Error),
    #[error("its answer cannot be read: {0}")]
    Body(String),
    #[error("it says {0}")]
    Status(StatusCode),
}

impl NoAnswer {
    /// For the metric.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Late(_) => "late",
            Self::Exchange(_) | Self::Body(_) => "failed",
            Self::Status(_) => "5xx",
        }
    }
}

impl Canary {
    pub(crate) fn new(config: Config) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.deadline));
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).build(connector),
            config,
            splits: Semaphore::new(SPLIT_MAX),
            mirrors: Arc::new(Semaphore::new(MIRRORED_MAX)),
            turn: AtomicU64::new(0),
        }
    }

    /// Whether a request may leave this instance: a read that no other instance sent.
    pub(crate) fn may_leave<B>(request: &Request<B>) -> bool {
        request.method().is_safe() && !request.headers().contains_key(ARM)
    }

    /// Whether the second instance answers this caller.
    pub(crate) fn answers(&self, caller: &Caller, client: ClientAddress) -> bool {
        let mut hasher = DefaultHasher::new();
        match caller {
            Caller::Viewer(user) => user.hash(&mut hasher),
            Caller::Operator(_) | Caller::Edge => return false,
            Caller::Nobody | Caller::Stranger(_) => client.address.hash(&mut hasher),
        }
        hasher.finish() % 100 < u64::from(self.config.split_percent)
    }

    /// Asks it.
    pub(crate) fn ask<'a, B>(
        &'a self,
        request: &Request<B>,
        client: ClientAddress,
    ) -> impl Future<Output = Result<Response<Bytes>, NoAnswer>> + use<'a, B> {
        let copy = self.copy(request, client);
        async {
            let _room = self.splits.try_acquire().map_err(|_| NoAnswer::Full)?;
            let answer = self.exchange(copy).await?;
            if answer.status().is_server_error() { Err(NoAnswer::Status(answer.status())) } else { Ok(answer) }
        }
    }

    /// A copy of `request`, if this one is to be copied and there is room for it.
    pub(crate) fn mirror<B>(&self, request: &Request<B>, client: ClientAddress) -> Option<Mirror> {
        let percent = u64::from(self.config.mirror_percent);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // As evenly spread as can be, so that none follow each other at a small share.
        if turn * percent / 100 == (turn + 1) * percent / 100 {
            return None;
        }
        let room = Arc::clone(&self.mirrors).try_acquire_owned().ok()?;
        Some(Mirror { request: self.copy(request, client), _room: room })
    }

    /// Sends a copy. Its answer's status, all of which was read.
    pub(crate) async fn send(&self, mirror: Mirror) -> Result<StatusCode, NoAnswer> {
        Ok(self.exchange(mirror.request).await?.status())
    }

    async fn exchange(&self, request: Request<Empty<Bytes>>) -> Result<Response<Bytes>, NoAnswer> {
        let exchange = async {
            let (mut head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| NoAnswer::Body(error.to_string()))?.to_bytes();
            remove_what_is_of_one_connection(&mut head.headers);
            Ok(Response::from_parts(head, body))
        };
        timeout(self.config.deadline, exchange).await.map_err(|_| NoAnswer::Late(self.config.deadline))?
    }

    fn copy<B>(&self, request: &Request<B>, client: ClientAddress) -> Request<Empty<Bytes>> {
        let mut copy = Request::new(Empty::new());
        *copy.method_mut() = request.method().clone();
        let mut uri = self.config.url.clone().into_parts();
        uri.path_and_query = Some(request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        *copy.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path are there");
        let mut headers = request.headers().clone();
        remove_what_is_of_one_connection(&mut headers);
        headers.insert(ARM, HeaderValue::from_static("canary"));
        headers.insert(FORWARDED_FOR, HeaderValue::try_from(client.address.to_string()).expect("an address is ASCII"));
        *copy.headers_mut() = headers;
        copy
    }
}

/// Also what `Connection` names (RFC 9110 §7.6.1).
fn remove_what_is_of_one_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in NOT_SENT_ON.into_iter().chain(named) {
        headers.remove(name);
    }
}

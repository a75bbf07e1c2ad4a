//! The life of a request at an edge. Read this first.
//!
//! parse → verify token → grant → object → range and conditions → cache (RAM) → fill (origin) → respond. Each arrow is one call that returns
//! a value or a named refusal, and [`Responder::respond`] is reached on every path. Knows no bytes of any protocol.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::http::{Method, header};
use bytes::Bytes;
use cache::{Cache, FillError, Generation, Opened, Reader, Verdict};
use futures_util::stream::BoxStream;
use wire::{
    object::ObjectPath,
    range::{Decision, Version},
    token::{Grant, Refusal, SigningKey, Transport, Verifier},
};

use crate::{
    caps::Caps,
    config::OpenPath,
    fill::Origin,
    hint::{self, Hints},
    http::{Handler, Request, Response},
    metrics::Metrics,
    parts::Multipart,
    refused::Refused,
    request::{Asked, parse},
    respond::Responder,
    visit::Visit,
};

/// How often an object that changes under a request is opened anew.
const CHANGES_MAX: usize = 2;

/// Serves requests, on all workers.
pub(crate) struct Serving {
    pub(crate) verifier: Verifier,
    pub(crate) renewer: Option<Renewer>,
    pub(crate) open_paths: Vec<OpenPath>,
    pub(crate) cache: Cache,
    pub(crate) origin: Arc<Origin>,
    pub(crate) responder: Responder,
    pub(crate) caps: Caps,
    pub(crate) hints: Hints,
    pub(crate) metrics: Arc<Metrics>,
}

/// Renews tokens that ask for it (RFC 9246 §3), where the operator gave the edge a key of its own.
pub(crate) struct Renewer {
    pub(crate) key: SigningKey,
    pub(crate) issuer: String,
}

impl Renewer {
    /// The cookie that brings the next token, for the transport that fits an answer with content (§3.3).
    fn cookie(&self, grant: &Grant) -> Option<String> {
        let renewal = grant.renewal().filter(|renewal| renewal.transport() == Transport::Cookie)?;
        match renewal.sign(&self.key, Some(&self.issuer)) {
            Ok(renewed) => Some(renewed.set_cookie()),
            Err(error) => {
                tracing::warn!(%error, "a token cannot be renewed");
                None
            }
        }
    }
}

/// What a client gets.
pub(crate) enum Served {
    /// The methods, and what scripts may send.
    Options,
    /// What the client has is still good.
    NotModified(Found),
    /// All of an object; without a reader if only the head was asked for.
    Whole { found: Found, reader: Option<Reader> },
    /// A part of it.
    Part { found: Found, range: Range<u64>, reader: Reader },
    /// Several parts of it, with what stands around them.
    Parts { found: Found, content_type: String, bytes: u64, body: BoxStream<'static, Result<Bytes, FillError>> },
}

/// The version of an object that a client gets to see.
pub(crate) struct Found {
    pub(crate) generation: Arc<Generation>,
    /// Where the first bytes come from, or would.
    pub(crate) verdict: Verdict,
    /// How long ago the origin made or vouched for it.
    pub(crate) age: Duration,
}

impl Found {
    fn new(opened: &Opened) -> Self {
        Self { generation: opened.generation().clone(), verdict: opened.verdict(), age: opened.age(Instant::now()) }
    }
}

impl Handler for Serving {
    async fn handle(&self, request: Request) -> Response {
        let mut visit = Visit::begin(&request, self.metrics.clone());
        let outcome = self.serve(&request, &mut visit).await;
        let (gates, hint) = (visit.gates.take(), visit.hint.take());
        let mut response = self.responder.respond(&request, outcome, visit);
        hint::tell(hint, response.headers_mut());
        match gates {
            None => response,
            Some(gates) => response.map(|body| body.paced(gates)),
        }
    }
}

impl Serving {
    async fn serve(&self, request: &Request, visit: &mut Visit) -> Result<Served, Refused> {
        if request.method == Method::OPTIONS {
            return Ok(Served::Options);
        }
        let asked = parse(request)?;
        visit.asks_for(&asked.path);
        let grant = self.verify(&asked, SystemTime::now())?;
        visit.verified(self.renewer.as_ref().and_then(|renewer| renewer.cookie(&grant)));
        let token = asked.presented.as_ref().map(|presented| presented.token.as_str());
        visit.gates = self.caps.gates(&grant, token);
        visit.hint = self.hints.of(request, self.caps.of_token(&grant));
        let granted = Granted::new(grant, &asked.path);
        for _ in 0..CHANGES_MAX {
            match self.read(&granted, &asked, visit).await {
                Err(Refused::Fill(FillError::Changed)) => {}
                outcome => return outcome,
            }
        }
        self.read(&granted, &asked, visit).await
    }

    /// Only here is a grant made.
    fn verify(&self, asked: &Asked, now: SystemTime) -> Result<Grant, Refusal> {
        if self.open_paths.iter().any(|open| open.opens(asked.path.as_str())) {
            return Ok(Grant::open_path());
        }
        let presented = asked.presented.as_ref().ok_or(Refusal::Missing)?;
        let now_unix_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.verifier.check(presented, asked.client, now_unix_s)
    }

    /// Opens the object, decides what of it is wanted, and finds its first bytes.
    async fn read(&self, granted: &Granted, asked: &Asked, visit: &mut Visit) -> Result<Served, Refused> {
        let opened = self.cache.open(&granted.key, asked.wish.first_byte(), &self.origin).await?;
        let found = Found::new(&opened);
        let length = found.generation.length;
        match asked.wish.decide(version(&found.generation)) {
            Decision::Whole if asked.is_head => Ok(Served::Whole { found, reader: None }),
            Decision::Whole => {
                let (found, reader) = self.reader(granted, opened, found, 0..length, visit).await?;
                Ok(Served::Whole { found, reader: Some(reader) })
            }
            Decision::Part(range) => {
                let (found, reader) = self.reader(granted, opened, found, range.clone(), visit).await?;
                Ok(Served::Part { found, range, reader })
            }
            Decision::Parts(parts) => {
                let multipart = Multipart::new(&found.generation, parts);
                let again = opened.again();
                let (found, first) = self.reader(granted, opened, found, multipart.first(), visit).await?;
                let (content_type, bytes) = (multipart.content_type(), multipart.bytes());
                let rest = (self.cache.clone(), granted.key.clone(), again, self.origin.clone());
                Ok(Served::Parts { found, content_type, bytes, body: multipart.stream(first, rest) })
            }
            Decision::NotModified => Ok(Served::NotModified(found)),
            Decision::PreconditionFailed => Err(Refused::PreconditionFailed { verdict: found.verdict }),
            Decision::Unsatisfiable => Err(Refused::Unsatisfiable { length, verdict: found.verdict }),
        }
    }

    /// Finds the first bytes of `range`, and says where.
    async fn reader(
        &self,
        granted: &Granted,
        opened: Opened,
        found: Found,
        range: Range<u64>,
        visit: &mut Visit,
    ) -> Result<(Found, Reader), Refused> {
        let reader = self.cache.read(&granted.key, opened, range, &self.origin).await?;
        visit.looked_up(reader.verdict());
        Ok((Found { verdict: reader.verdict(), ..found }, reader))
    }
}

/// An object that the client may have: nothing is looked up without one.
struct Granted {
    key: Arc<str>,
}

impl Granted {
    fn new(_: Grant, path: &ObjectPath) -> Self {
        Self { key: path.as_str().into() }
    }
}

fn version(generation: &Generation) -> Version<'_> {
    let modified = generation.headers.iter().find(|(name, _)| name == header::LAST_MODIFIED.as_str());
    Version { etag: &generation.validator, length: generation.length, modified: modified.map(|(_, date)| date.as_str()) }
}

//! The life of a request at an edge. Read this first.
//!
//! parse → verify token → grant → object → range and conditions → cache (RAM) → fill (origin) → respond. Each arrow is one call that returns
//! a value or a named refusal, and [`Responder::respond`] is reached on every path. Knows no bytes of any protocol.

use std::{
    ops::Range,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ::http::{Method, header};
use bytes::Bytes;
use cache::{Cache, FillError, Generation, Opened, Reader};
use futures_util::stream::BoxStream;
use wire::{
    object::ObjectPath,
    range::{Decision, Version},
    token::{Grant, Refusal, SigningKey, Transport, Verifier},
};

use crate::{
    config::OpenPath,
    fill::Origin,
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
    NotModified(Arc<Generation>),
    /// All of an object; without a reader if only the head was asked for.
    Whole { generation: Arc<Generation>, reader: Option<Reader> },
    /// A part of it.
    Part { generation: Arc<Generation>, range: Range<u64>, reader: Reader },
    /// Several parts of it, with what stands around them.
    Parts { generation: Arc<Generation>, content_type: String, bytes: u64, body: BoxStream<'static, Result<Bytes, FillError>> },
}

impl Handler for Serving {
    async fn handle(&self, request: Request) -> Response {
        let mut visit = Visit::begin(&request, self.metrics.clone());
        let outcome = self.serve(&request, &mut visit).await;
        self.responder.respond(&request, outcome, visit)
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
        let generation = opened.generation().clone();
        let length = generation.length;
        match asked.wish.decide(version(&generation)) {
            Decision::Whole if asked.is_head => Ok(Served::Whole { generation, reader: None }),
            Decision::Whole => {
                let reader = self.reader(granted, opened, 0..length, visit).await?;
                Ok(Served::Whole { generation, reader: Some(reader) })
            }
            Decision::Part(range) => {
                let reader = self.reader(granted, opened, range.clone(), visit).await?;
                Ok(Served::Part { generation, range, reader })
            }
            Decision::Parts(parts) => {
                let multipart = Multipart::new(&generation, parts);
                let again = opened.again();
                let first = self.reader(granted, opened, multipart.first(), visit).await?;
                let (content_type, bytes) = (multipart.content_type(), multipart.bytes());
                let rest = (self.cache.clone(), granted.key.clone(), again, self.origin.clone());
                Ok(Served::Parts { generation, content_type, bytes, body: multipart.stream(first, rest) })
            }
            Decision::NotModified => Ok(Served::NotModified(generation)),
            Decision::PreconditionFailed => Err(Refused::PreconditionFailed),
            Decision::Unsatisfiable => Err(Refused::Unsatisfiable { length }),
        }
    }

    async fn reader(&self, granted: &Granted, opened: Opened, range: Range<u64>, visit: &mut Visit) -> Result<Reader, Refused> {
        let reader = self.cache.read(&granted.key, opened, range, &self.origin).await?;
        visit.looked_up(reader.verdict());
        Ok(reader)
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

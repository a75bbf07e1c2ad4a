//! One request from its head to the end of its answer: what is counted, and the one line in the log.
//!
//! A visit notes what happens as it happens and speaks once, when it is dropped: after the last byte, or when the client left. It never
//! sees a token.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{HeaderValue, Method, StatusCode};
use cache::Verdict;
use wire::object::ObjectPath;

use crate::{
    http::{Gate, Protocol, Request},
    metrics::{Metrics, verdict_name},
};

/// A request under way.
pub(crate) struct Visit {
    metrics: Arc<Metrics>,
    pub(crate) protocol: Protocol,
    method: Method,
    client: SocketAddr,
    started: Instant,
    path: Option<ObjectPath>,
    /// How long the token took.
    pub(crate) token: Option<Duration>,
    /// What brings the client its next token.
    pub(crate) cookie: Option<String>,
    /// What the answer's body has to pass.
    pub(crate) gates: Option<Vec<Arc<Gate>>>,
    /// What the client is told of the way to it.
    pub(crate) hint: Option<HeaderValue>,
    /// How long it took to know that the bytes are in RAM, or to get the first word about them.
    pub(crate) look_up: Option<Duration>,
    pub(crate) verdict: Option<Verdict>,
    status: Option<StatusCode>,
    first_byte: Option<Duration>,
    bytes: u64,
    bytes_expected: u64,
    reason: Option<String>,
}

impl Visit {
    pub(crate) fn begin(request: &Request, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            protocol: request.protocol,
            method: request.method.clone(),
            client: request.peer,
            started: Instant::now(),
            path: None,
            token: None,
            cookie: None,
            gates: None,
            hint: None,
            look_up: None,
            verdict: None,
            status: None,
            first_byte: None,
            bytes: 0,
            bytes_expected: 0,
            reason: None,
        }
    }

    pub(crate) fn asks_for(&mut self, path: &ObjectPath) {
        self.path = Some(path.clone());
    }

    /// The token is good; `cookie` brings the next one.
    pub(crate) fn verified(&mut self, cookie: Option<String>) {
        self.token = Some(self.started.elapsed());
        self.cookie = cookie;
    }

    pub(crate) fn looked_up(&mut self, verdict: Verdict) {
        self.look_up = Some(self.started.elapsed().saturating_sub(self.token.unwrap_or_default()));
        self.verdict = Some(verdict);
    }

    /// The token is not good, or missing.
    pub(crate) fn refuses(&mut self, code: &'static str) {
        self.metrics.refused_token(code);
    }

    /// The answer's head is made. `reason` is for the log alone.
    pub(crate) fn answered(&mut self, status: StatusCode, bytes_expected: u64, reason: Option<String>) {
        self.status = Some(status);
        self.bytes_expected = bytes_expected;
        self.reason = reason;
        self.metrics.answered(self.protocol, status, self.verdict);
    }

    /// Bytes of the body were handed to the protocol.
    pub(crate) fn sends(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if self.first_byte.is_none() {
            let first_byte = self.started.elapsed();
            self.first_byte = Some(first_byte);
            self.metrics.first_byte(self.verdict, first_byte);
        }
        self.bytes += bytes;
        self.metrics.sent(self.protocol, bytes);
    }

    /// The body broke off.
    pub(crate) fn breaks(&mut self, reason: String) {
        self.metrics.broken();
        self.reason = Some(reason);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let left = if self.status.is_none() || self.bytes < self.bytes_expected && self.reason.is_none() {
            Some("the client left")
        } else {
            None
        };
        tracing::info!(
            target: "larder::access",
            status = self.status.map_or(0, |status| status.as_u16()),
            protocol = self.protocol.alpn(),
            method = %self.method,
            path = self.path.as_ref().map_or("", ObjectPath::as_str),
            bytes = self.bytes,
            verdict = verdict_name(self.verdict),
            ttfb_ms = self.first_byte.map(millis),
            duration_ms = millis(self.started.elapsed()),
            client = %self.client.ip().to_canonical(),
            reason = self.reason.as_deref().or(left),
        );
    }
}

/// To the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

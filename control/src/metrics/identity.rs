//! Who asks, who is turned away, and what is remembered. Labels are kinds of callers, never names.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::identity::Caller;

pub(crate) struct IdentityMetrics {
    callers: IntCounterVec,
    refused: IntCounterVec,
    limited: IntCounterVec,
    keyed: IntCounterVec,
    tokens: IntCounterVec,
}

impl IdentityMetrics {
    pub(super) fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self {
            callers: vec("larder_control_callers_total", "Requests, by who sent them.", "caller")?,
            refused: vec("larder_control_tokens_refused_total", "Tokens of viewers that were refused, by reason.", "reason")?,
            limited: vec("larder_control_limited_total", "Requests that were over a rate limit, by who sent them.", "caller")?,
            keyed: vec(
                "larder_control_idempotency_keys_total",
                "Writes with an idempotency key, by what came of it.",
                "outcome",
            )?,
            tokens: vec(
                "larder_control_tokens_found_total",
                "Tokens of viewers, by whether they were verified before.",
                "remembered",
            )?,
        })
    }

    /// Counts a request.
    pub(crate) fn asked(&self, caller: &Caller) {
        self.callers.with_label_values(&[kind(caller)]).inc();
        if let Caller::Stranger(bad) = caller {
            self.refused.with_label_values(&[bad.name()]).inc();
        }
    }

    /// Counts a request that was one too many.
    pub(crate) fn turned_away(&self, caller: &Caller) {
        self.limited.with_label_values(&[kind(caller)]).inc();
    }

    /// Counts a write with a key.
    pub(crate) fn keyed(&self, outcome: &str) {
        self.keyed.with_label_values(&[outcome]).inc();
    }

    /// Tokens so far: found remembered, and not.
    pub(super) fn tokens(&self, (remembered, not): (u64, u64)) {
        raise(&self.tokens.with_label_values(&["yes"]), remembered);
        raise(&self.tokens.with_label_values(&["no"]), not);
    }
}

/// Sets a counter to what was counted elsewhere.
pub(super) fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

const fn kind(caller: &Caller) -> &'static str {
    match caller {
        Caller::Viewer(_) => "viewer",
        Caller::Operator(_) => "operator",
        Caller::Edge => "edge",
        Caller::Nobody => "nobody",
        Caller::Stranger(_) => "stranger",
    }
}

//! Telling control that this edge is alive and what it does. Control being away changes nothing for players.
//!
//! Runs on a runtime of its own. Registers first; then reports every few seconds; registers again when control does not know the edge (404);
//! waits longer from failure to failure, and never all edges at once.

use std::time::Duration;

use ::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Serialize;
use tokio::{sync::watch, time::timeout};
use wire::report::{Health, Registration, Report};

use crate::{
    admin::Standing,
    config,
    metrics::Gauges,
    upstream::{Upstream, UpstreamConfigError, UpstreamError, bearer},
};

/// How long control may take for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// What is read of control's answers, in bytes: problem details, for the log.
const ANSWER_BYTES_MAX: usize = 4096;

/// Tells control.
pub(crate) struct Reporter {
    upstream: Upstream,
    secret: HeaderValue,
    name: config::Name,
    registration: Registration,
    every: Duration,
}

/// Why control does not know how this edge does. Its fault, the network's or the operator's.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("it answered {status}: {text}")]
    Refused { status: StatusCode, text: String },
}

impl Reporter {
    /// Reads the secret. Does not connect: an edge starts without control.
    pub(crate) fn new(
        config: &config::Control,
        name: config::Name,
        registration: Registration,
    ) -> Result<Self, UpstreamConfigError> {
        Ok(Self {
            upstream: Upstream::new(config.url.clone(), config.ca_file.as_deref(), PATIENCE)?,
            secret: bearer(&config.token_file, "control.token_file")?,
            name,
            registration,
            every: config.report_every,
        })
    }

    /// Reports until the edge has ended, which it tells too. A change of standing is told at once.
    pub(crate) async fn run(self, gauges: &Gauges, mut standing: watch::Receiver<Standing>) {
        let mut is_registered = false;
        let mut failures = 0;
        loop {
            let now = *standing.borrow_and_update();
            match self.tell(&mut is_registered, &report(gauges, now)).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(failures, "control is told again");
                    }
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "control is not told; serving goes on");
                }
            }
            if now == Standing::Ended {
                return;
            }
            if let Ok(Err(_)) = timeout(pause(self.every, failures, random()), standing.changed()).await {
                return;
            }
        }
    }

    async fn tell(&self, is_registered: &mut bool, report: &Report) -> Result<(), NotTold> {
        if !*is_registered {
            self.register().await?;
            *is_registered = true;
        }
        let path = format!("/fleet/edges/{}/reports", self.name);
        match self.send(Method::POST, &path, report).await {
            Err(NotTold::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                *is_registered = false;
                self.register().await?;
                *is_registered = true;
                self.send(Method::POST, &path, report).await
            }
            told => told,
        }
    }

    async fn register(&self) -> Result<(), NotTold> {
        self.send(Method::PUT, &format!("/fleet/edges/{}", self.name), &self.registration).await
    }

    async fn send(&self, method: Method, path: &str, message: &impl Serialize) -> Result<(), NotTold> {
        let json = serde_json::to_vec(message).expect("strings and numbers can be written");
        let request = self.upstream.request(method, path, &self.secret).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Full::from(Bytes::from(json))).expect("a name is a path segment");
        let (answer, lease) = self.upstream.send(request).await?;
        let status = answer.status();
        let body = timeout(PATIENCE, Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
        if body.is_some() {
            self.upstream.keep(lease);
        }
        if status.is_success() {
            return Ok(());
        }
        Err(NotTold::Refused { status, text: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned() })
    }
}

fn report(gauges: &Gauges, standing: Standing) -> Report {
    let stats = gauges.cache.stats();
    Report {
        health: match standing {
            Standing::Ready => Health::Ready,
            Standing::Draining | Standing::Ended => Health::Draining,
        },
        connections: gauges.protocols.open(),
        requests: gauges.metrics.requests(),
        bytes_sent: gauges.metrics.sent_bytes(),
        bytes_ram: stats.bytes_ram,
        bytes_filled: stats.bytes_filled,
        ram_bytes_max: stats.ram_bytes_max,
        ram_bytes: stats.ram_bytes,
    }
}

/// The pause before the next report: doubled from failure to failure, up to [`PAUSE_MAX`] (or `every`, if that is longer), and then
/// shortened by up to half, so that edges which lost control together do not come back together. `random` is from 0 to 1.
fn pause(every: Duration, failures: u32, random: f64) -> Duration {
    if failures == 0 {
        return every;
    }
    let longest = every.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX.max(every));
    longest.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without random numbers the pause is merely longer.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_failure_to_failure_and_never_beyond_a_minute() {
        let every = Duration::from_secs(3);
        assert_eq!(pause(every, 0, 0.7), every);
        assert_eq!(pause(every, 1, 0.0), Duration::from_secs(6));
        assert_eq!(pause(every, 1, 1.0), Duration::from_secs(3));
        assert_eq!(pause(every, 3, 0.5), Duration::from_secs(18));
        assert_eq!(pause(every, u32::MAX, 0.0), PAUSE_MAX);
        assert_eq!(pause(Duration::from_secs(90), 5, 0.0), Duration::from_secs(90));
        assert!((0.0..=1.0).contains(&random()));
    }
}

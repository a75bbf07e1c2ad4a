//! The cache as operators see it and what they may tell it: `/cache/stat`, `/cache/devices`, `/cache/purge`, `/cache/verify`.
//!
//! Answers are JSON; a failure is `{"error": "…"}` with a sentence. Whoever may ask is decided in [`super::guard`].

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use cache::{Cache, DeviceState, DeviceStats, DiskStats};
use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval},
};
use wire::operate::{Failed, Purge, Restore, Step, Verified};

use super::{
    Answer,
    guard::{NotTaken, is_direct, json as body},
};
use crate::purge::{self, NotPurged};

/// How often a verification says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// The cache, for operators.
pub(super) struct Operator {
    cache: Cache,
    /// One verification at a time: it reads all that there is.
    verifying: Arc<Semaphore>,
}

impl Operator {
    pub(super) fn new(cache: Cache) -> Self {
        Self { cache, verifying: Arc::new(Semaphore::new(1)) }
    }

    /// Answers a request for something below `/cache/`.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let answered = match is_direct(request.headers()) {
            Ok(()) => self.dispatch(request).await,
            Err(not_taken) => Err(not_taken),
        };
        answered.unwrap_or_else(|NotTaken(status, error)| {
            tracing::debug!(%status, error, "an operator is told no");
            json(status, &Failed { error })
        })
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Result<Answer, NotTaken> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_write = request.method() == Method::POST;
        let allowed = match request.uri().path() {
            "/cache/stat" if is_read => return Ok(json(StatusCode::OK, &self.stat())),
            "/cache/devices" if is_read => return Ok(json(StatusCode::OK, &devices(self.cache.disk_stats()))),
            "/cache/devices/restore" if is_write => return self.restore(body(request).await?).await,
            "/cache/purge" if is_write => return self.purge(body(request).await?).await,
            "/cache/verify" if is_write => {
                let _: Value = body(request).await?;
                return self.verify();
            }
            "/cache/stat" | "/cache/devices" => "GET, HEAD",
            "/cache/devices/restore" | "/cache/purge" | "/cache/verify" => "POST",
            _ => {
                let paths = "/cache/stat, /cache/devices, /cache/devices/restore, /cache/purge and /cache/verify";
                return Err(NotTaken(StatusCode::NOT_FOUND, format!("there are {paths}")));
            }
        };
        let mut answer = json(StatusCode::METHOD_NOT_ALLOWED, &Failed { error: format!("only {allowed}") });
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        Ok(answer)
    }

    fn stat(&self) -> Value {
        let disk = self.cache.disk_stats();
        let write_amplification = disk.as_ref().and_then(DiskStats::write_amplification);
        json!({ "ram": self.cache.stats(), "ssd": disk, "write_amplification": write_amplification })
    }

    async fn restore(&self, Restore { device }: Restore) -> Result<Answer, NotTaken> {
        match self.cache.restore_device(&device).await {
            Ok(()) => {
                tracing::info!(device = %device.display(), "an operator has a device taken back");
                Ok(json(StatusCode::OK, &Restore { device }))
            }
            Err(error) => Err(NotTaken(StatusCode::CONFLICT, error)),
        }
    }

    async fn purge(&self, Purge { purge: wanted }: Purge) -> Result<Answer, NotTaken> {
        match purge::purge(&self.cache, &wanted).await {
            Ok(()) => Ok(json(StatusCode::OK, &Purge { purge: wanted })),
            Err(error @ NotPurged::Flawed(_)) => Err(NotTaken(StatusCode::BAD_REQUEST, error.to_string())),
            Err(error @ NotPurged::NotLasting { .. }) => Err(NotTaken(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        }
    }

    fn verify(&self) -> Result<Answer, NotTaken> {
        let Ok(place) = self.verifying.clone().try_acquire_owned() else {
            return Err(NotTaken(StatusCode::CONFLICT, "a verification is under way; there is one at a time".into()));
        };
        let lines = verification(self.cache.clone(), place).map(|step| Ok::<_, Infallible>(Frame::data(line(&step))));
        let mut answer = Response::new(StreamBody::new(lines).boxed_unsync());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        Ok(answer)
    }
}

/// The devices, with what can be told of their latencies in two numbers.
fn devices(stats: Option<DiskStats>) -> Value {
    #[derive(Serialize)]
    struct Device {
        #[serde(flatten)]
        stats: DeviceStats,
        read_us_p50: Option<u64>,
        read_us_p99: Option<u64>,
        write_us_p50: Option<u64>,
        write_us_p99: Option<u64>,
        /// As HTTP writes dates.
        given_up_since: Option<String>,
    }
    let device = |stats: DeviceStats| Device {
        read_us_p50: stats.reads.quantile_us(0.5),
        read_us_p99: stats.reads.quantile_us(0.99),
        write_us_p50: stats.writes.quantile_us(0.5),
        write_us_p99: stats.writes.quantile_us(0.99),
        given_up_since: match stats.state {
            DeviceState::Serving => None,
            DeviceState::GivenUp { since, .. } => date(since),
        },
        stats,
    };
    let io = stats.as_ref().map(|stats| stats.io);
    let devices: Vec<_> = stats.into_iter().flat_map(|stats| stats.devices).map(device).collect();
    json!({ "io": io, "devices": devices })
}

/// As HTTP writes dates, which end with the year 9999.
fn date(at: SystemTime) -> Option<String> {
    const END_UNIX_S: u64 = 253_402_300_800;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    (since.as_secs() < END_UNIX_S).then(|| httpdate::fmt_http_date(at))
}

/// A verification under way.
struct Verifying {
    found: BoxFuture<'static, Verified>,
    bytes: Arc<AtomicU64>,
    bytes_max: Arc<AtomicU64>,
    ticks: Interval,
}

impl Verifying {
    fn begin(cache: Cache, place: OwnedSemaphorePermit) -> Self {
        let (bytes, bytes_max) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (read, read_max) = (bytes.clone(), bytes_max.clone());
        let mut ticks = interval(PROGRESS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let found = async move {
            let _place = place;
            let progress = |bytes, bytes_max| {
                read.store(bytes, Ordering::Relaxed);
                read_max.store(bytes_max, Ordering::Relaxed);
            };
            verified(cache.verify(progress).await)
        };
        Self { found: found.boxed(), bytes, bytes_max, ticks }
    }

    /// The next line, and what is left to do.
    async fn step(mut self) -> (Step, Option<Self>) {
        tokio::select! {
            biased;
            found = &mut self.found => (Step::Verified(found), None),
            _ = self.ticks.tick() => {
                let (bytes, bytes_max) = (self.bytes.load(Ordering::Relaxed), self.bytes_max.load(Ordering::Relaxed));
                (Step::Progress { bytes, bytes_max }, Some(self))
            }
        }
    }
}

/// Verifies as fast as the lines are taken, and ends when nobody takes them any more.
fn verification(cache: Cache, place: OwnedSemaphorePermit) -> impl Stream<Item = Step> + Send {
    stream::unfold(Some(Verifying::begin(cache, place)), async |verifying| Some(verifying?.step().await))
}

pub(crate) fn verified(found: cache::Verified) -> Verified {
    let cache::Verified { segments, slices, bytes, faults, fault_count } = found;
    Verified { segments, slices, bytes, fault_count, faults }
}

fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("strings and numbers can be written");
    line.push(b'\n');
    line.into()
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut answer = Response::new(Full::new(line(value)).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_with_latencies_in_two_numbers_and_why_one_was_given_up() {
        let told = devices(Some(crate::metrics::two_devices()));
        let (first, other) = (&told["devices"][0], &told["devices"][1]);
        assert_eq!(
            (&told["io"], &first["path"], &first["state"]),
            (&json!("threads"), &json!("/dev/a"), &json!({ "state": "serving" }))
        );
        for (name, value) in [
            ("bytes", json!(100)),
            ("bytes_used", json!(90)),
            ("bytes_planned", json!(80)),
            ("segments", json!(7)),
            ("depth", json!(6)),
            ("bytes_read", json!(5)),
            ("bytes_written", json!(30)),
            ("errors", json!(3)),
            ("read_us_p50", json!(32)),
            ("read_us_p99", Value::Null),
            ("write_us_p50", Value::Null),
            ("given_up_since", Value::Null),
        ] {
            assert_eq!(first[name], value, "{name}");
        }
        assert_eq!((&other["state"]["state"], &other["state"]["reason"]), (&json!("given_up"), &json!("EIO")));
        assert_eq!(other["given_up_since"], "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn dates_are_told_as_far_as_http_can_tell_them() {
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(784_111_777)).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(1 << 40)), None);
    }

    #[tokio::test]
    async fn there_is_one_verification_at_a_time_and_one_that_is_left_makes_room() {
        let operator =
            Operator::new(Cache::new(cache::Config { ram_bytes: 16 << 20, slice_bytes: 1 << 20, ..cache::Config::default() }));
        let first = operator.verify().unwrap();
        let NotTaken(status, why) = operator.verify().unwrap_err();
        assert_eq!((status, why.as_str()), (StatusCode::CONFLICT, "a verification is under way; there is one at a time"));
        drop(first);
        let second = operator.verify().unwrap();
        let lines = second.into_body().collect().await.unwrap().to_bytes();
        let last = lines.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
        assert_eq!(serde_json::from_slice::<Step>(last).unwrap(), Step::Verified(Verified::default()));
        assert!(operator.verify().is_ok(), "and so does one that has ended");
    }
}

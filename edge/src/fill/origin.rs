//! The origin as a source of slices: a request with a range and a condition, an answer that is checked, bytes that are counted.
//!
//! What always holds: no byte is written before the answer's head was judged ([`super::head`]); a fill ends by itself, because every wait of it
//! has an end; so many run at once and no more. Which other source to try is not decided here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::http::{HeaderValue, Method, header};
use bytes::Bytes;
use cache::{FillError, Filler, Source, Want};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::{sync::Semaphore, time::timeout};

use super::head::{Answered, judge};
use crate::{
    config,
    upstream::{Lease, Upstream, UpstreamConfigError, bearer},
};

/// How often the origin is asked for a slice, or for what is missing of it.
const ATTEMPTS_MAX: u32 = 2;

/// The origin.
pub(crate) struct Origin {
    upstream: Upstream,
    secret: HeaderValue,
    places: Semaphore,
    patience: Duration,
    counters: FillCounters,
}

impl Origin {
    /// Reads the secret and the authorities. Does not connect: an edge starts without its origin.
    pub(crate) fn new(config: &config::Origin) -> Result<Self, UpstreamConfigError> {
        Ok(Self {
            upstream: Upstream::new(config.url.clone(), config.ca_file.as_deref(), config.timeout)?,
            secret: bearer(&config.token_file, "origin.token_file")?,
            places: Semaphore::new(config.fills_max),
            patience: config.timeout,
            counters: FillCounters::default(),
        })
    }

    pub(crate) fn counters(&self) -> &FillCounters {
        &self.counters
    }

    async fn bring(&self, want: &Want, filler: &mut Filler) -> Result<(), FillError> {
        let waited = timeout(self.patience, self.places.acquire()).await;
        let _place = waited.map_err(|_| unavailable("as many fills as there may be are under way"))?;
        let range = format!("bytes={}-{}", want.range.start, want.range.end - 1);
        let (mut answered, mut body, mut lease) = self.ask(want, Some(&range)).await?;
        if answered == Answered::Empty {
            (answered, body, lease) = self.ask(want, None).await?;
        }
        match answered {
            Answered::Bytes(generation, bytes) => {
                filler.head(generation)?;
                self.pour(&mut body, bytes, filler).await?;
            }
            Answered::Unchanged => filler.unchanged()?,
            Answered::Empty => return Err(FillError::Refused("it says that even all of the object is beyond its end".into())),
        }
        if body.is_end_stream() {
            self.upstream.keep(lease);
        }
        Ok(())
    }

    async fn ask(&self, want: &Want, range: Option<&str>) -> Result<(Answered, Incoming, Lease), FillError> {
        let mut request = self.upstream.request(Method::GET, &want.key, &self.secret);
        request = request.header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if let Some(generation) = &want.generation {
            let condition = if want.revalidate { header::IF_NONE_MATCH } else { header::IF_MATCH };
            request = request.header(condition, &generation.validator);
        }
        let request = request.body(Full::<Bytes>::default()).map_err(|error| FillError::Refused(error.to_string().into()))?;
        let sent = match want.attempt {
            0 => self.upstream.send(request).await,
            _ => self.upstream.send_fresh(request).await,
        };
        let (answer, lease) = sent.map_err(|error| unavailable(&error))?;
        let (head, body) = answer.into_parts();
        Ok((judge(want, head.status, &head.headers)?, body, lease))
    }

    /// Writes the body as it comes. The origin may take as long as it likes, as long as something comes.
    async fn pour(&self, body: &mut Incoming, bytes: u64, filler: &mut Filler) -> Result<(), FillError> {
        let mut received = 0;
        loop {
            let waited = timeout(self.patience, body.frame()).await;
            let frame = waited.map_err(|_| unavailable(&format!("the origin stalled after {received} of {bytes} bytes")))?;
            match frame {
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { continue };
                    filler.write(data)?;
                    received += data.len() as u64;
                }
                Some(Err(error)) => {
                    return Err(unavailable(&format!("the origin broke off after {received} of {bytes} bytes: {error}")));
                }
                None => return Ok(()),
            }
        }
    }
}

fn unavailable(reason: &(impl ToString + ?Sized)) -> FillError {
    FillError::Unavailable(reason.to_string().into())
}

/// There is one origin, so the second attempt goes to the same place, on a fresh connection.
impl Source for Origin {
    fn attempts_max(&self) -> u32 {
        ATTEMPTS_MAX
    }

    async fn fill(self: Arc<Self>, want: Want, mut filler: Filler) -> Result<(), FillError> {
        let result = self.bring(&want, &mut filler).await;
        self.counters.note(&result);
        match &result {
            Ok(()) => {}
            Err(error @ (FillError::NotFound | FillError::OutOfRange | FillError::Changed)) => {
                tracing::debug!(key = %want.key, range = ?want.range, %error, "the origin has no such bytes");
            }
            Err(error) => tracing::warn!(key = %want.key, range = ?want.range, %error, "a fill failed"),
        }
        result
    }
}

/// What fills came to, since start.
#[derive(Debug, Default)]
pub(crate) struct FillCounters {
    ends: [AtomicU64; OUTCOMES.len()],
}

/// The ends of fills, as metrics name them.
const OUTCOMES: [&str; 8] = ["done", "not_found", "out_of_range", "changed", "short", "too_long", "unavailable", "refused"];

impl FillCounters {
    fn note(&self, result: &Result<(), FillError>) {
        let place = match result {
            Ok(()) => 0,
            Err(FillError::NotFound) => 1,
            Err(FillError::OutOfRange) => 2,
            Err(FillError::Changed) => 3,
            Err(FillError::Short { .. }) => 4,
            Err(FillError::TooLong { .. }) => 5,
            Err(FillError::Unavailable(_) | FillError::Busy) => 6,
            Err(FillError::Refused(_)) => 7,
        };
        self.ends[place].fetch_add(1, Ordering::Relaxed);
    }

    /// How many fills ended in which way.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.ends.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

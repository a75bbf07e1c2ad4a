//! Telling control that this edge is alive and what it does, and doing what control says. Control being away changes nothing for players.
//!
//! Runs on a runtime of its own. Registers, opens one stream, and speaks on it until it breaks; then waits, longer from failure to failure and
//! never all edges at once, and begins anew. Commands that were not answered come again, so nothing is kept here from one stream to the next.

mod load;
mod prefixes;
mod stream;

use std::time::{Duration, Instant};

use ::http::{HeaderValue, Method, header};
use bytes::Bytes;
use cache::{Cache, DeviceState, DeviceStats};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, sleep_until, timeout},
};
use wire::{
    content::{Digest, Sample},
    report::{Command, Down, Health, PROTOCOL, Registration, Report, Up},
};

use self::{
    load::{Counted, Meter},
    stream::{Heard, NotTold, Stream},
};
use crate::{
    config,
    metrics::Gauges,
    purge::purge,
    standing::{Outlook, Standing},
    upstream::{Upstream, UpstreamConfigError, bearer},
};

pub(crate) use prefixes::Prefixes;
pub use prefixes::PrefixesError;

/// How long control may take for each step of an answer, and to say hello.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// What is read of control's answers, in bytes: problem details, for the log.
const ANSWER_BYTES_MAX: usize = 4096;
/// Commands that are carried out at once. Control has more of them wait.
const COMMANDS_MAX: usize = 64;
/// How often the file of prefixes is looked at.
const PREFIXES_EVERY: Duration = Duration::from_secs(10);

/// Tells control.
pub(crate) struct Reporter {
    upstream: Upstream,
    secret: HeaderValue,
    name: config::Name,
    registration: Registration,
    prefixes: Prefixes,
    report_every: Duration,
    content_every: Duration,
    meter: Meter,
    /// What control last said about taking viewers.
    drained: watch::Sender<bool>,
}

/// A fingerprint of what is held, and a digest of it unless that was told before.
type Taken = ((u64, u64), Option<Digest>);

impl Reporter {
    /// Reads the secret. Does not connect: an edge starts without control. `drained` is told what control says about taking viewers.
    pub(crate) fn new(
        config: &config::Control,
        name: config::Name,
        registration: Registration,
        prefixes: Prefixes,
        capacity: Option<u64>,
        drained: watch::Sender<bool>,
    ) -> Result<Self, UpstreamConfigError> {
        Ok(Self {
            upstream: Upstream::new(config.url.clone(), config.ca_file.as_deref(), PATIENCE)?,
            secret: bearer(&config.token_file, "control.token_file")?,
            name,
            registration,
            prefixes,
            report_every: config.report_every,
            content_every: config.content_every,
            meter: Meter::new(capacity),
            drained,
        })
    }

    /// Speaks with control until the edge has ended, which it tells too. A change of standing is told at once.
    pub(crate) async fn run(mut self, gauges: &Gauges, mut outlook: Outlook) {
        let mut failures = 0;
        loop {
            let error = match self.speak(gauges, &mut outlook, &mut failures).await {
                Ok(()) => return,
                Err(error) => error,
            };
            failures += 1;
            tracing::warn!(%error, failures, "control is not told; serving goes on");
            if outlook.now() == Standing::Ended || outlook.is_abandoned() {
                return;
            }
            // Whoever has the same name would be replaced in turn, for ever.
            let failed = if matches!(error, NotTold::Replaced) { u32::MAX } else { failures };
            tokio::select! {
                () = sleep(pause(self.report_every, failed, random())) => {}
                () = outlook.changed() => {}
            }
        }
    }

    /// Registers and speaks on one stream. Returns only once the edge has ended and control was told.
    async fn speak(&mut self, gauges: &Gauges, outlook: &mut Outlook, failures: &mut u32) -> Result<(), NotTold> {
        self.prefixes.refresh();
        self.register().await?;
        let hello = Up::Hello { protocol: PROTOCOL, version: self.registration.version.clone() };
        let path = format!("/fleet/edges/{}/stream", self.name);
        let mut stream = Stream::open(&self.upstream, &path, &self.secret, &hello).await?;
        let told = timeout(PATIENCE, stream.hear(PATIENCE)).await.map_err(|_| NotTold::Silent(PATIENCE))??;
        let Heard::Message(Down::Hello { version, report_every_ms, is_drained, .. }) = told else {
            return Err(NotTold::Ended);
        };
        if *failures > 0 {
            tracing::info!(failures, version, "control is told again");
        }
        *failures = 0;
        self.drained.send_if_modified(|drained| std::mem::replace(drained, is_drained) != is_drained);
        self.converse(stream, Duration::from_millis(report_every_ms.max(1)), gauges, outlook).await
    }

    /// Reports and obeys, to a control that says something in every interval of `expected`, and wants to hear something as often.
    async fn converse(
        &mut self,
        mut stream: Stream,
        expected: Duration,
        gauges: &Gauges,
        outlook: &mut Outlook,
    ) -> Result<(), NotTold> {
        let every = self.report_every.min(expected);
        let mut orders = FuturesUnordered::new();
        let mut report_at = Instant::now();
        let mut prefixes_at = Instant::now() + PREFIXES_EVERY;
        let mut taking = take(gauges.cache.clone(), None).boxed();
        loop {
            tokio::select! {
                heard = stream.hear(expected) => match heard? {
                    Heard::Message(Down::Command { id, command }) => {
                        if orders.len() >= COMMANDS_MAX {
                            return Err(NotTold::TooManyCommands(COMMANDS_MAX));
                        }
                        orders.push(self.obey(&gauges.cache, id, command));
                    }
                    Heard::Message(Down::Replaced) => return Err(NotTold::Replaced),
                    Heard::Message(Down::Hello { .. } | Down::Beat | Down::Unknown) => {}
                    Heard::Strange { id, why } => stream.say(&Up::Done { id, error: Some(why) })?,
                },
                () = async { tokio::select! { () = sleep_until(report_at.into()) => {}, () = outlook.changed() => {} } } => {
                    let now = outlook.now();
                    stream.say(&Up::Report(self.report(gauges, now)))?;
                    report_at = Instant::now() + every;
                    if now == Standing::Ended || outlook.is_abandoned() {
                        stream.end().await;
                        return Ok(());
                    }
                }
                Some(done) = orders.next(), if !orders.is_empty() => stream.say(&done)?,
                taken = &mut taking => {
                    if let Some(digest) = taken.1 {
                        stream.say(&Up::Content(digest))?;
                    }
                    let (cache, pause) = (gauges.cache.clone(), self.content_every);
                    taking = async move {
                        sleep(pause).await;
                        take(cache, Some(taken.0)).await
                    }
                    .boxed();
                }
                () = sleep_until(prefixes_at.into()) => {
                    prefixes_at = Instant::now() + PREFIXES_EVERY;
                    if self.prefixes.refresh() {
                        self.register().await?;
                    }
                }
            }
        }
    }

    /// What is to be done for a command, and the answer to it.
    fn obey(&self, cache: &Cache, id: u64, command: Command) -> BoxFuture<'static, Up> {
        let drained = match command {
            Command::Purge { purge: wanted } => {
                let cache = cache.clone();
                let purged = async move { purge(&cache, &wanted).await };
                return purged.map(move |purged| Up::Done { id, error: purged.err().map(|error| error.to_string()) }).boxed();
            }
            Command::Drain => true,
            Command::Undrain => false,
        };
        tracing::info!(drained, "control says whether this edge takes viewers");
        self.drained.send_replace(drained);
        std::future::ready(Up::Done { id, error: None }).boxed()
    }

    async fn register(&mut self) -> Result<(), NotTold> {
        self.registration.prefixes = self.prefixes.all().to_vec();
        let json = serde_json::to_vec(&self.registration).expect("strings and numbers can be written");
        let path = format!("/fleet/edges/{}", self.name);
        let request = self.upstream.request(Method::PUT, &path, &self.secret).header(header::CONTENT_TYPE, "application/json");
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

    fn report(&mut self, gauges: &Gauges, standing: Standing) -> Report {
        let stats = gauges.cache.stats();
        self.meter.add(
            Instant::now(),
            Counted {
                bytes_sent: gauges.metrics.sent_bytes(),
                processor: gauges.protocols.processor_time(),
                from_ram: stats.hits,
                from_ssd: stats.ssd_hits,
                from_elsewhere: stats.misses,
            },
        );
        let devices = gauges.cache.disk_stats().map(|disk| disk.devices).unwrap_or_default();
        Report {
            health: match standing {
                Standing::Ready => Health::Ready,
                Standing::Drained | Standing::Draining | Standing::Ended => Health::Draining,
            },
            connections: gauges.protocols.open(),
            connections_max: Some(gauges.connections_max),
            load: self.meter.load(),
            requests: gauges.metrics.requests(),
            bytes_sent: gauges.metrics.sent_bytes(),
            bytes_ram: stats.bytes_ram,
            bytes_ssd: stats.bytes_ssd,
            bytes_filled: stats.bytes_filled,
            ram_bytes_max: stats.ram_bytes_max,
            ram_bytes: stats.ram_bytes,
            ssd_bytes_max: devices.iter().filter(|device| serves(device)).map(|device| device.bytes).sum(),
            hit_ratios: self.meter.hit_ratios(),
            devices: devices.len() as u64,
            devices_off: devices.iter().filter(|device| !serves(device)).count() as u64,
        }
    }
}

fn serves(device: &DeviceStats) -> bool {
    device.state == DeviceState::Serving
}

/// Goes through all that the cache holds, which takes a while. Makes a digest of it unless that was `told` before.
async fn take(cache: Cache, told: Option<(u64, u64)>) -> Taken {
    let taken = spawn_blocking(move || {
        let mut sample = Sample::default();
        cache.hashes(|hash| sample.add(hash));
        let fingerprint = sample.fingerprint();
        let is_news = told != Some(fingerprint);
        (fingerprint, is_news.then(|| sample.digest(cache.seed(), cache.slice_bytes() as u64)))
    });
    match taken.await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::error!(%error, "what is held is not told");
            (told.unwrap_or_default(), None)
        }
    }
}

/// The pause before the next attempt: doubled from failure to failure, up to [`PAUSE_MAX`] (or `every`, if that is longer), and then
/// shortened by up to half, so that edges which lost control together do not come back together. `random` is from 0 to 1.
fn pause(every: Duration, failures: u32, random: f64) -> Duration {
    let longest = every.saturating_mul(1 << failures.clamp(1, 16) >> 1).min(PAUSE_MAX.max(every));
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
        assert_eq!(pause(every, 1, 0.0), every);
        assert_eq!(pause(every, 1, 1.0), every / 2);
        assert_eq!(pause(every, 2, 0.0), Duration::from_secs(6));
        assert_eq!(pause(every, 3, 0.5), Duration::from_secs(9));
        assert_eq!(pause(every, u32::MAX, 0.0), PAUSE_MAX);
        assert_eq!(pause(Duration::from_secs(90), 5, 0.0), Duration::from_secs(90));
        assert!((0.0..=1.0).contains(&random()));
    }

    #[test]
    fn the_hash_of_a_slice_is_the_one_that_is_agreed_upon() {
        let cache = Cache::new(cache::Config { ram_bytes: 16 << 20, slice_bytes: 1 << 20, ..cache::Config::default() });
        for number in [0, 1, 1 << 40] {
            let agreed = wire::content::slice_hash(cache.seed(), "/titles/a/v720/00001.m4s", number);
            assert_eq!(cache.slice_hash("/titles/a/v720/00001.m4s", number), agreed);
        }
    }
}

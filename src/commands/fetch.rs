//! `larder fetch`: gets a URL once or often, one after the other or at the same time, and says how it came.

use std::{
    fs::File,
    io::{BufWriter, IsTerminal as _, Write as _, stderr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use edge::http::Protocol;
use http::{HeaderMap, HeaderValue, header};
use indicatif::{ProgressBar, ProgressStyle};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::print_json;
use crate::{
    cli::{FetchArgs, Misuse},
    client::{Answer, Client, Target, Trust},
};

/// Bodies from this size on get a progress bar.
const LARGE_BYTES: u64 = 16 << 20;
/// Answers that may wait to be printed.
const ANSWERS_WAITING_MAX: usize = 256;

pub(super) async fn run(args: FetchArgs) -> anyhow::Result<()> {
    if args.output.is_some() && args.repeat > 1 {
        return Err(Misuse("--output keeps one body, so it does not go with --repeat".into()).into());
    }
    if args.parallel > args.repeat {
        return Err(Misuse(format!("--parallel {} is more than --repeat {}", args.parallel, args.repeat)).into());
    }
    let fetch = Arc::new(Fetch::new(&args)?);
    let start = Instant::now();
    let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
    for _ in 0..args.parallel {
        tokio::spawn(worker(fetch.clone(), sender.clone()));
    }
    drop(sender);
    let mut seen = Seen::default();
    while let Some(answer) = answers.recv().await {
        if !args.json {
            print(args.http, &answer)?;
        }
        seen.add(answer, args.json);
    }
    seen.summarise(&args, start.elapsed())
}

/// What every worker does.
struct Fetch {
    target: Target,
    tls: Arc<ClientConfig>,
    headers: HeaderMap,
    args: FetchArgs,
    /// How many are left to do.
    left: AtomicU32,
}

impl Fetch {
    fn new(args: &FetchArgs) -> anyhow::Result<Self> {
        let target = Target::parse(&args.url).map_err(|error| Misuse(format!("{error:#}")))?;
        let trust = match &args.ca {
            Some(file) => Trust::File(file),
            None if args.insecure => Trust::Anybody,
            None => Trust::Web,
        };
        let mut headers = HeaderMap::new();
        if let Some(range) = &args.range {
            headers.insert(header::RANGE, HeaderValue::from_str(&format!("bytes={range}"))?);
        }
        if let Some(cookie) = &args.cookie {
            headers.insert(header::COOKIE, HeaderValue::from_str(cookie).context("--cookie is not usable in a header")?);
        }
        Ok(Self { target, tls: trust.tls()?, headers, args: args.clone(), left: AtomicU32::new(args.repeat) })
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let FetchArgs { http, address, timeout, .. } = &self.args;
        Client::connect(*http, &self.target, *address, &self.tls, timeout.0).await
    }

    async fn get(&self, client: &Client) -> anyhow::Result<Answer> {
        let mut sink = Sink::open(&self.args)?;
        let answer = client.get(&self.target, self.headers.clone(), |piece, length| sink.take(piece, length)).await?;
        sink.close()?;
        Ok(answer)
    }
}

/// Fetches one after the other over one connection, and anew over another where that broke, until none is left.
async fn worker(fetch: Arc<Fetch>, answers: mpsc::Sender<anyhow::Result<Answer>>) {
    let mut client = None;
    while fetch.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let answer = async {
            let connected = match client.take() {
                Some(client) => client,
                None => fetch.connect().await?,
            };
            let answer = fetch.get(&connected).await?;
            client = Some(connected);
            anyhow::Ok(answer)
        };
        if answers.send(answer.await).await.is_err() {
            return;
        }
    }
}

/// Where a body goes: to a file if one is named; the digest is made elsewhere.
struct Sink {
    file: Option<BufWriter<File>>,
    bar: Option<ProgressBar>,
    /// No bar, or none yet.
    may_show: bool,
}

impl Sink {
    fn open(args: &FetchArgs) -> anyhow::Result<Self> {
        let create = |path| File::create(path).map(BufWriter::new);
        let file = args.output.as_ref().map(create).transpose().context("cannot write --output")?;
        Ok(Self { file, bar: None, may_show: args.repeat == 1 && stderr().is_terminal() })
    }

    fn take(&mut self, piece: &Bytes, length: Option<u64>) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(piece).context("cannot write --output")?;
        }
        if self.may_show && self.bar.is_none() {
            let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left")?;
            self.bar = length.filter(|length| *length >= LARGE_BYTES).map(|length| ProgressBar::new(length).with_style(style));
            self.may_show = self.bar.is_some();
        }
        if let Some(bar) = &self.bar {
            bar.inc(piece.len() as u64);
        }
        Ok(())
    }

    fn close(self) -> anyhow::Result<()> {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.file.map_or(Ok(()), |mut file| file.flush()).context("cannot write --output")
    }
}

fn print(protocol: Protocol, answer: &anyhow::Result<Answer>) -> anyhow::Result<()> {
    match answer {
        Ok(Answer { status, ttfb, bytes, digest, cache_status, .. }) => {
            let (protocol, status, ms) = (protocol.alpn(), status.as_u16(), millis(*ttfb));
            let verdict = cache_status.as_deref().unwrap_or("(no Cache-Status)");
            say!("{protocol}  {status}  {ms:.1} ms  {bytes} bytes  sha256 {digest}  {verdict}");
        }
        Err(error) => say!("{}  failed: {error:#}", protocol.alpn()),
    }
    Ok(())
}

/// All answers so far.
#[derive(Default)]
struct Seen {
    good: u32,
    bad: u32,
    bytes: u64,
    ttfbs: Vec<Duration>,
    shown: Vec<Value>,
    last_failure: Option<String>,
}

impl Seen {
    fn add(&mut self, answer: anyhow::Result<Answer>, show: bool) {
        match &answer {
            Ok(answer) if answer.status.is_success() => {
                self.good += 1;
                self.bytes += answer.bytes;
                self.ttfbs.push(answer.ttfb);
            }
            Ok(answer) => self.fail(format!("the answer is {}", answer.status)),
            Err(error) => self.fail(format!("{error:#}")),
        }
        if show {
            self.shown.push(match answer {
                Ok(answer) => json!({
                    "status": answer.status.as_u16(),
                    "ttfbMs": millis(answer.ttfb),
                    "totalMs": millis(answer.total),
                    "bytes": answer.bytes,
                    "digest": answer.digest,
                    "cacheStatus": answer.cache_status,
                }),
                Err(error) => json!({ "error": format!("{error:#}") }),
            });
        }
    }

    fn fail(&mut self, failure: String) {
        self.bad += 1;
        self.last_failure = Some(failure);
    }

    fn summarise(mut self, args: &FetchArgs, took: Duration) -> anyhow::Result<()> {
        self.ttfbs.sort_unstable();
        let (p50, p99) = (percentile(&self.ttfbs, 50), percentile(&self.ttfbs, 99));
        let Self { good, bad, bytes, shown, .. } = self;
        if args.json {
            print_json(&json!({
                "ok": bad == 0, "url": args.url, "protocol": args.http.alpn(), "good": good, "bad": bad, "bytes": bytes,
                "totalMs": millis(took), "ttfbMsP50": p50.map(millis), "ttfbMsP99": p99.map(millis), "answers": shown,
            }))?;
        } else if let (Some(p50), Some(p99), true) = (p50, p99, args.repeat > 1) {
            let (ms, rate) = (millis(took), bytes as f64 / 1e6 / took.as_secs_f64());
            say!("{good} good, {bad} bad, {bytes} bytes in {ms:.0} ms ({rate:.1} MB/s)");
            say!("time to first byte: median {:.1} ms, 99 of 100 within {:.1} ms", millis(p50), millis(p99));
        }
        match self.last_failure {
            None => Ok(()),
            Some(failure) if args.repeat == 1 => bail!(failure),
            Some(failure) => bail!("{bad} of {} failed; the last: {failure}", args.repeat),
        }
    }
}

/// Of sorted values, the least that is not below `percent` % of them.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let ms = |values: &[u64]| values.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&ms(&[7]), 99), Some(Duration::from_millis(7)));
        assert_eq!(percentile(&ms(&[1, 2, 3, 4]), 50), Some(Duration::from_millis(2)));
        assert_eq!(percentile(&ms(&[1, 2, 3, 4]), 99), Some(Duration::from_millis(4)));
    }
}

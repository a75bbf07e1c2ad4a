//! How many events of viewers a second does control take, keep and fold, and what does one cost?
//!
//! One control on SQLite in this process, with two threads, over loopback; clients that send batches of 250 events one after another, each on a thread
//! and a connection of its own, and change nothing in a body but the events' ids. An answer is 202 and says that all were kept: durable.
//! The server's CPU is the process's without the clients' threads. Then, from the log that came of it: what one thread folds, and what
//! one writes as Parquet, with nothing else to do.
//!
//! Of a hundred events seventy are reports of quality, ten impressions, five plays, five stops, and ten others; ids and sessions are UUIDs; two
//! thousand titles, a hundred thousand users, twenty regions.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use ::activity::{Activity, Config as ActivityConfig};
use control::{Config, Control, config::Overload};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    Report, Size, cpu_time,
    instance::{self, OPERATOR},
    process_cpu_time,
};

/// Events in a batch.
const BATCH: u64 = 250;
/// Batches that a client has made before it begins: their users, titles and sessions differ.
const BODIES: u64 = 40;
/// What a client sends at least, however slow the machine: more than a segment of the small size.
const BATCHES_MIN: u64 = 10;
/// What ids begin as, to be found in a body and changed.
const ID: &str = "00000000-0000-4000-8000-";

/// Runs the benchmark in `LARDER_BENCH_DIR`, or in the system's directory for temporary files.
///
/// # Panics
/// If anything is not as it should be.
pub fn run(size: Size) -> Report {
    let mut report = Report::new("activity", size);
    let folder = std::env::var_os("LARDER_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).expect("a directory to work in");
    let config = activity_config(folder.path(), size);
    let kept = take(&mut report, folder.path(), config.clone());
    // One after the other: while the log is folded, nothing is left for the lake.
    convert(&mut report, &config, kept);
    fold(&mut report, &config, kept);
    report
}

fn activity_config(folder: &Path, size: Size) -> ActivityConfig {
    let activity = ActivityConfig::new(folder.join("activity"), folder.join("lake"));
    // Small segments in the small size, so that there is one to convert.
    ActivityConfig { segment_bytes: size.of(64 << 10, 64 << 20), ack_timeout: Duration::from_secs(60), ..activity }
}

/// What a client did.
struct Sent {
    batches: u64,
    cpu: Duration,
    /// From the first byte of a request to the last of its answer, in microseconds.
    took_us: Vec<u32>,
}

/// Sends for a while over HTTP. Says how many events were kept.
fn take(report: &mut Report, folder: &Path, activity: ActivityConfig) -> u64 {
    let size = report.size();
    let (clients, time) = (size.of(2, 32), Duration::from_millis(size.of(200, 15_000)));
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    // What is shed by priority is not what this measures.
    let overload = Overload { lag: Duration::from_secs(10), requests_max: 4096 };
    let config = Config { overload, activity, ..instance::config(folder) };
    let control = runtime.block_on(Control::open(config)).expect("control opens");
    let (addr, stop) = (control.addr(), CancellationToken::new());
    let running = runtime.spawn(control.run(stop.clone()));

    let over = AtomicBool::new(false);
    let (cpu_before, begun) = (process_cpu_time(), Instant::now());
    let (sent, took) = thread::scope(|scope| {
        let over = &over;
        let clients: Vec<_> = (0..clients).map(|client| scope.spawn(move || send(addr, client, over))).collect();
        scope.spawn(move || {
            thread::park_timeout(time);
            over.store(true, Ordering::Relaxed);
        });
        let sent: Vec<Sent> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        (sent, begun.elapsed())
    });
    let clients_cpu: Duration = sent.iter().map(|sent| sent.cpu).sum();
    let server_cpu = (process_cpu_time() - cpu_before).saturating_sub(clients_cpu);
    let events = sent.iter().map(|sent| sent.batches).sum::<u64>() * BATCH;
    let metrics = get(addr, "/metrics");
    let lag = metric(&metrics, "larder_control_activity_fold_lag_events");
    let accepted: f64 = ["play", "pause", "seek", "stop", "click", "like", "dislike", "impression", "quality"]
        .map(|kind| metric(&metrics, &format!(r#"larder_control_activity_events_total{{kind="{kind}",outcome="accepted"}}"#)))
        .iter()
        .sum();
    report.expect("events that were kept, of those that were sent", accepted as u64 == events, true);
    stop.cancel();
    runtime.block_on(running).expect("it does not panic").expect("it does not fail");
    if size == Size::Full {
        let mut took_us: Vec<u32> = sent.into_iter().flat_map(|sent| sent.took_us).collect();
        took_us.sort_unstable();
        let quantile = |share: f64| f64::from(took_us[((took_us.len() - 1) as f64 * share) as usize]) / 1000.0;
        let million = events as f64 / 1e6;
        report.figure("events a second, over HTTP, durable", events as f64 / took.as_secs_f64(), "1/s");
        report.figure(
            "server's CPU per million events (all threads: take, keep, fold)",
            server_cpu.as_secs_f64() * 1e3 / million,
            "ms",
        );
        report.figure("clients' CPU per million events", clients_cpu.as_secs_f64() * 1e3 / million, "ms");
        report.figure("a batch until it is durable, p50", quantile(0.5), "ms");
        report.figure("a batch until it is durable, p99", quantile(0.99), "ms");
        report.figure("events not folded yet when the last was kept", lag, "");
        report.figure(
            "bytes of the log per event, times ten",
            metric(&metrics, "larder_control_activity_log_bytes") * 10.0 / events as f64,
            "B",
        );
    }
    events
}

/// Sends batches until it is over.
fn send(addr: SocketAddr, client: u64, over: &AtomicBool) -> Sent {
    let mut stream = TcpStream::connect(addr).expect("control listens");
    stream.set_nodelay(true).expect("an option");
    let mut bodies: Vec<Body> = (0..BODIES).map(|n| Body::new(addr, client * BODIES + n)).collect();
    let (before, mut sent) = (cpu_time(), Sent { batches: 0, cpu: Duration::ZERO, took_us: Vec::new() });
    let mut answer = Vec::new();
    while !over.load(Ordering::Relaxed) || sent.batches < BATCHES_MIN {
        let body = &mut bodies[(sent.batches % BODIES) as usize];
        body.renumber((client << 36) | (sent.batches * BATCH));
        let begun = Instant::now();
        stream.write_all(&body.bytes).expect("control reads");
        read_answer(&mut stream, &mut answer);
        sent.took_us.push(begun.elapsed().as_micros() as u32);
        let all = format!("\"accepted\":{BATCH},");
        let text = str::from_utf8(&answer).expect("text");
        assert!(text.starts_with("HTTP/1.1 202") && text.contains(&all), "{text}");
        sent.batches += 1;
    }
    sent.cpu = cpu_time() - before;
    sent
}

/// Reads one answer: its head, and as many bytes as it says.
fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    answer.clear();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).expect("an answer");
        assert!(n > 0, "control closed the connection: {}", String::from_utf8_lossy(answer));
        answer.extend(&buffer[..n]);
        let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = str::from_utf8(&answer[..head]).expect("ASCII").to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if answer.len() >= head + 4 + length.trim().parse::<usize>().expect("a number") {
            return;
        }
    }
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("control listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").expect("control reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn metric(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().expect("a number")
}

/// A request with a batch, and where the numbers of its events stand.
struct Body {
    bytes: Vec<u8>,
    ids: Vec<usize>,
}

impl Body {
    fn new(addr: SocketAddr, n: u64) -> Self {
        let events: Vec<_> = (0..BATCH).map(|at| event(n * BATCH + at, at)).collect();
        let body = format!(r#"{{"sentAt":"2026-11-21T12:00:10.000Z","events":[{}]}}"#, events.join(","));
        let head = format!(
            "POST /activity HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {OPERATOR}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let bytes = [head, body].concat().into_bytes();
        let ids = bytes.windows(ID.len()).enumerate().filter(|(_, window)| *window == ID.as_bytes()).map(|(at, _)| at + ID.len());
        Self { ids: ids.collect(), bytes }
    }

    /// Gives the events ids that no others had.
    fn renumber(&mut self, first: u64) {
        for (number, at) in (first..).zip(&self.ids) {
            for digit in 0..12 {
                self.bytes[at + 11 - digit] = b"0123456789abcdef"[(number >> (4 * digit)) as usize & 15];
            }
        }
    }
}

/// The `n`th event, the `at`th of its batch.
fn event(n: u64, at: u64) -> String {
    // Titles are asked for unequally; users come back.
    let mix = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let (user, title) = (mix % 100_000, (mix % 2000) * (mix / 7 % 2000) / 2000);
    let mut event = format!(
        r#"{{"id":"{ID}000000000000","at":"2026-11-21T12:00:{:02}.{:03}Z","session":"1a2b3c4d-5e6f-4071-8293-{user:012x}","title":"title-{title}","user":"account-{user}","region":"region-{}""#,
        mix % 10,
        mix % 1000,
        user % 20
    );
    let more = match at % 20 {
        0 => r#","type":"play","rendition":"v1080","positionMs":0}"#.to_owned(),
        1 => format!(
            r#","type":"stop","rendition":"v1080","positionMs":{},"playedMs":130000,"cmcd":{{"dfa":{},"bsda":0}}}}"#,
            mix % 7_200_000,
            mix % 20
        ),
        2 | 3 => format!(r#","type":"impression","row":"trending","rank":{at}}}"#),
        4 => format!(r#","type":"seek","positionMs":{},"fromMs":{}}}"#, mix % 7_200_000, mix % 3_600_000),
        5 => format!(r#","type":"click","row":"trending","rank":{at}}}"#),
        _ => {
            let (br, bl) = (1500 + mix % 9 * 500, mix % 30_000 / 100 * 100);
            let keys = format!(
                r#""br":{br},"bl":{bl},"mtp":{},"sn":{},"sta":"p","bs":false,"cdn":"edge-{}""#,
                br * 3,
                mix % 300,
                user % 7
            );
            format!(
                r#","type":"quality","rendition":"v1080","positionMs":{},"playedMs":10000,"cmcd":{{{keys}}}}}"#,
                mix % 7_200_000
            )
        }
    };
    write!(event, "{more}").expect("a String takes all");
    event
}

/// An activity that does only what is left to do, until `is_done`.
fn until(config: &ActivityConfig, is_done: impl Fn(&::activity::Stats) -> bool) -> (Activity, Duration, Duration) {
    let (activity, workers) = Activity::open(config).expect("opens");
    let (cpu_before, begun) = (process_cpu_time(), Instant::now());
    let running = workers.start().expect("starts");
    while !is_done(&activity.stats()) {
        thread::park_timeout(Duration::from_millis(1));
    }
    let (took, cpu) = (begun.elapsed(), process_cpu_time() - cpu_before);
    running.stop();
    (activity, took, cpu)
}

/// Folds the log once more, from its beginning.
fn fold(report: &mut Report, config: &ActivityConfig, events: u64) {
    // The lake is done with all that is closed; nothing is sent.
    fs::remove_dir_all(config.folder.join("folds")).expect("what was folded");
    let (activity, took, cpu) = until(config, |stats| stats.fold_place == stats.log_newest && stats.folded > 0);
    report.expect("events that were folded again, of all", activity.stats().folded == events, true);
    report.expect("titles have a popularity", activity.popularity().is_empty(), false);
    if report.size() == Size::Full {
        report.figure("events folded a second, by one thread", events as f64 / took.as_secs_f64(), "1/s");
        report.figure("CPU to fold a million events", cpu.as_secs_f64() * 1e3 / (events as f64 / 1e6), "ms");
        report.figure("bytes of a checkpoint of all folds", activity.stats().checkpoint_bytes as f64, "B");
    }
}

/// Converts the closed segments once more.
fn convert(report: &mut Report, config: &ActivityConfig, events: u64) {
    fs::remove_file(config.folder.join("lake.place")).ok();
    fs::remove_dir_all(&config.lake).ok();
    let firsts = fs::read_dir(config.folder.join("log")).expect("the log").flatten();
    let closed =
        firsts.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse::<u64>().ok()).max().unwrap_or(0);
    report.expect("segments were closed", closed > 0 && closed <= events, true);
    let (activity, took, cpu) = until(config, |stats| stats.lake_place == closed);
    let stats = activity.stats();
    report.expect("rows in the lake, of the events in closed segments", stats.lake_rows == closed, true);
    if report.size() == Size::Full {
        report.figure("events written as Parquet a second, by one thread", closed as f64 / took.as_secs_f64(), "1/s");
        report.figure("CPU to write a million events as Parquet", cpu.as_secs_f64() * 1e3 / (closed as f64 / 1e6), "ms");
        report.figure("bytes of the lake per event, times ten", stats.lake_bytes as f64 * 10.0 / closed as f64, "B");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_size_holds() {
        run(Size::Small);
    }
}

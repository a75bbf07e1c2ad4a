//! Resume writes: how many a second are acknowledged, which is on disk, and how soon are they read back?
//!
//! Writes come from viewers in turns, each in the title that she watched last, as they come from players every few seconds. The bound
//! stands beside them: what HTTP alone takes, by requests to `/healthz` with the same client and connections.

use std::cell::RefCell;

use super::{
    client::{Load, Outcome, drive},
    rounds::{Rounds, median},
    stage::{DURATION_MS, Stage, now_ms},
};
use crate::{Report, Size, process_cpu_time};

/// Players that write at the same time.
const CONNECTIONS: usize = 256;
/// What is asked for in the open loop: writes, and reads beside them.
const WRITES_PER_SECOND: u64 = 20_000;
const READS_PER_SECOND: u64 = 500;
/// Rounds; medians are told.
const ROUNDS: usize = 5;

pub(super) async fn measure(report: &mut Report, stage: &Stage) {
    let writer = Writer { stage, written: RefCell::new(vec![None; stage.viewers.len()]) };
    let viewers = stage.viewers.len() as u64;
    // Each token is verified once, and each viewer's pages are read once.
    let all = Load { connections: CONNECTIONS.min(stage.viewers.len()), requests: viewers, per_second: None };
    let outcome = writer.write(all, 0).await;
    report.expect("every viewer's first write is kept", outcome.statuses, vec![204]);

    if report.size() == Size::Full {
        for (name, rounds) in [("", None), (" at 20,000/s", Some(WRITES_PER_SECOND))] {
            closed_or_open(report, &writer, name, rounds).await;
        }
        http_alone(report, stage).await;
    }
    read_back(report, &writer).await;
    lists(report, stage).await;
}

struct Writer<'a> {
    stage: &'a Stage,
    /// The latest position of each viewer that was sent.
    written: RefCell<Vec<Option<u64>>>,
}

impl Writer<'_> {
    /// Writes of viewers in turns, from the `first` one on.
    async fn write(&self, load: Load, first: u64) -> Outcome {
        let viewers = self.stage.viewers.len() as u64;
        let request = |n: u64, bytes: &mut Vec<u8>| {
            let who = ((first + n) % viewers) as usize;
            let position_ms = (first + n) % DURATION_MS;
            self.written.borrow_mut()[who] = Some(position_ms);
            self.request(who, position_ms, bytes);
        };
        drive(self.stage.addr, load, request, |_, _| ()).await
    }

    fn request(&self, who: usize, position_ms: u64, bytes: &mut Vec<u8>) {
        use std::io::Write as _;
        let viewer = &self.stage.viewers[who];
        let body = format!("{{\"positionMs\":{position_ms},\"at\":\"{}\",\"device\":\"living room\"}}", rfc3339(now_ms()));
        write!(
            bytes,
            "PATCH /videos/{}/last-watched-timestamp HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            viewer.title,
            viewer.token,
            body.len()
        )
        .expect("a Vec takes all");
    }
}

async fn closed_or_open(report: &mut Report, writer: &Writer<'_>, name: &str, per_second: Option<u64>) {
    let requests = per_second.unwrap_or(WRITES_PER_SECOND) * 5;
    let load = Load { connections: CONNECTIONS, requests, per_second };
    let mut rounds = Rounds::default();
    for round in 0..ROUNDS as u64 {
        let cpu = process_cpu_time();
        let outcome = writer.write(load, round * requests).await;
        assert_eq!(outcome.statuses, [204], "every write is kept");
        rounds.add(&outcome, process_cpu_time() - cpu);
    }
    let names = [
        format!("resume writes acknowledged{name}, {CONNECTIONS} connections"),
        format!("resume write{name}, from due to acknowledged, median"),
        format!("resume write{name}, 99 %"),
        format!("resume write{name}, CPU of control and client"),
    ];
    rounds.tell(report, names);
}

/// What the sockets, HTTP and the client take.
async fn http_alone(report: &mut Report, stage: &Stage) {
    let load = Load { connections: CONNECTIONS, requests: WRITES_PER_SECOND * 5, per_second: None };
    let (mut rates, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cpu = process_cpu_time();
        let request = |_, bytes: &mut Vec<u8>| bytes.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: control.example\r\n\r\n");
        let outcome = drive(stage.addr, load, request, |_, _| ()).await;
        cpus.push((process_cpu_time() - cpu).as_secs_f64() * 1e6 / load.requests as f64);
        rates.push(outcome.per_second());
    }
    report.figure("the bound: GET /healthz, the same client and connections", median(rates), "/s");
    report.figure("GET /healthz, CPU of control and client", median(cpus), "µs");
}

/// Reads what was just written, beside more writes.
async fn read_back(report: &mut Report, writer: &Writer<'_>) {
    let stage = writer.stage;
    let viewers = stage.viewers.len() as u64;
    let (reads, writes) = (report.size().of(100, READS_PER_SECOND * 5), report.size().of(0, WRITES_PER_SECOND / 2 * 5));
    let full = report.size() == Size::Full;
    let (mut medians, mut slowest) = (Vec::new(), Vec::new());
    for round in 0..report.size().of(1, ROUNDS as u64) {
        // Writers go through the one half of the viewers meanwhile, readers through the other, in which each has a position.
        let quiet = |n: u64| ((n * 7919) % (viewers / 2) * 2 + 1) as usize;
        let request = |n: u64, bytes: &mut Vec<u8>| {
            use std::io::Write as _;
            let viewer = &stage.viewers[quiet(n)];
            let (title, token) = (&viewer.title, &viewer.token);
            write!(
                bytes,
                "GET /videos/{title}/last-watched-timestamp HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {token}\r\n\r\n"
            )
            .expect("a Vec takes all");
        };
        let mismatches = RefCell::new(0_u64);
        let look = |n: u64, body: &[u8]| {
            let json: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            if json["positionMs"].as_u64() != writer.written.borrow()[quiet(n)] {
                *mismatches.borrow_mut() += 1;
            }
        };
        let load = Load { connections: 16, requests: reads, per_second: full.then_some(READS_PER_SECOND) };
        let background = async {
            if writes > 0 {
                let load = Load { connections: CONNECTIONS, requests: writes, per_second: Some(WRITES_PER_SECOND / 2) };
                let request = |n: u64, bytes: &mut Vec<u8>| {
                    let who = ((round * writes + n) * 2 % viewers) as usize & !1;
                    writer.written.borrow_mut()[who] = Some(n % DURATION_MS);
                    writer.request(who, n % DURATION_MS, bytes);
                };
                let outcome = drive(stage.addr, load, request, |_, _| ()).await;
                assert_eq!(outcome.statuses, [204], "every write is kept");
            }
        };
        let (outcome, ()) = futures_util::future::join(drive(stage.addr, load, request, look), background).await;
        assert_eq!(outcome.statuses, [200], "every read is answered");
        assert_eq!(mismatches.into_inner(), 0, "what was acknowledged is read");
        medians.push(outcome.percentile_ms(50.0) * 1e3);
        slowest.push(outcome.percentile_ms(99.0) * 1e3);
    }
    report.expect("positions that were read are those that were acknowledged", reads, report.size().of(100, reads));
    if full {
        report.figure("read back at 500/s beside 10,000 writes/s, median", median(medians), "µs");
        report.figure("read back, 99 %", median(slowest), "µs");
    }
}

/// History and what can be gone on with: a page each.
async fn lists(report: &mut Report, stage: &Stage) {
    let full = report.size() == Size::Full;
    let requests = report.size().of(20, 2500);
    for (path, name) in [("/me/history", "views"), ("/me/continue-watching", "videos")] {
        let (mut medians, mut slowest) = (Vec::new(), Vec::new());
        for _ in 0..report.size().of(1, ROUNDS as u64) {
            let request = |n: u64, bytes: &mut Vec<u8>| {
                use std::io::Write as _;
                let token = &stage.viewers[(n * 7919 % stage.viewers.len() as u64) as usize].token;
                write!(bytes, "GET {path} HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {token}\r\n\r\n")
                    .expect("a Vec takes all");
            };
            let least = RefCell::new(usize::MAX);
            let look = |_, body: &[u8]| {
                let json: serde_json::Value = serde_json::from_slice(body).expect("JSON");
                let count = json[name].as_array().map_or(0, Vec::len);
                let shortest = count.min(*least.borrow());
                least.replace(shortest);
            };
            let load = Load { connections: 16, requests, per_second: full.then_some(500) };
            let outcome = drive(stage.addr, load, request, look).await;
            assert_eq!(outcome.statuses, [200], "{path}");
            assert!(least.into_inner() >= if name == "views" { 20 } else { 5 }, "{path}: everyone has watched something");
            medians.push(outcome.percentile_ms(50.0) * 1e3);
            slowest.push(outcome.percentile_ms(99.0) * 1e3);
        }
        report.expect(&format!("{path} has a page for everyone"), requests, requests);
        if full {
            report.figure(format!("{path}, a page of 20 at 500/s, median"), median(medians), "µs");
            report.figure(format!("{path}, 99 %"), median(slowest), "µs");
        }
    }
    report.expect("titles", stage.titles.len() as u64, report.size().of(50, 10_000));
}

/// A time of these years, as RFC 3339 has it.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let (mut days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let mut year = 1970;
    let length = |year: u64| 365 + u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)));
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let mut month = 0;
    for length in [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", month + 1, days + 1)
}

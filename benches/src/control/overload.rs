//! Overload: what is answered of each priority while more and more is asked for, up to five times what control can do?
//!
//! The mix, of a hundred requests: ten starts of playback, ten positions, ten titles looked up, forty searches with a typing error,
//! twenty recommendations, ten batches of twenty events. Its capacity is what is answered with 2xx by a few connections that ask as fast as they
//! are answered. Then each priority is asked for at its own pace, whether or not what was asked before is answered.
//! Clients share the cores with control, as in the other parts: what they take is missing to control at each step more.
//!
//! `cargo run --release -p benches --bin control -- --json | python3 benches/overload.py` draws it.

use std::cell::Cell;

use futures_util::future::join_all;

use super::{
    client::{Load, Outcome, drive},
    resume::rfc3339,
    rounds::median,
    search,
    stage::{DURATION_MS, Stage, now_ms},
};
use crate::{Report, Size};

/// Asked for, times the capacity.
const STEPS: [f64; 6] = [0.5, 1.0, 1.5, 2.0, 3.0, 5.0];
/// How long each step lasts.
const STEP_S: u64 = 10;
/// Connections that find the capacity: enough to keep the cores busy, few enough not to make a queue that is shed.
const PROBES: usize = 32;
const PROBE_REQUESTS: u64 = 10_000;
const PROBE_ROUNDS: usize = 3;
/// Events in a batch.
const EVENTS: u64 = 20;

/// What is asked for.
struct Kind {
    name: &'static str,
    /// Of a hundred requests.
    share: u64,
    /// Enough for answers that take long at the pace that is asked for.
    connections: usize,
    write: fn(&Stage, u64, &mut Vec<u8>),
}

const KINDS: [Kind; 6] = [
    Kind { name: "playback", share: 10, connections: 256, write: playback },
    Kind { name: "resume", share: 10, connections: 256, write: resume },
    Kind { name: "catalogue", share: 10, connections: 256, write: catalogue },
    Kind { name: "search", share: 40, connections: 512, write: search::write },
    Kind { name: "recommendations", share: 20, connections: 256, write: recommendations },
    Kind { name: "activity", share: 10, connections: 256, write: activity },
];

pub(super) async fn measure(report: &mut Report, stage: &Stage) {
    let probe = |n: u64, bytes: &mut Vec<u8>| {
        // Spread, so that no two kinds come in blocks.
        let mut place = n * 37 % 100;
        let kind = KINDS.iter().find(|kind| {
            let is_its = place < kind.share;
            place = place.wrapping_sub(kind.share);
            is_its
        });
        (kind.expect("shares make a hundred").write)(stage, n, bytes);
    };
    let load = Load { connections: PROBES, requests: report.size().of(100, PROBE_REQUESTS), per_second: None };
    let warm = drive(stage.addr, load, probe, |_, _| ()).await;
    if report.size() == Size::Small {
        report.expect("requests of all kinds that were answered well", warm.successes, load.requests);
        return;
    }
    let mut capacities = Vec::new();
    for _ in 0..PROBE_ROUNDS {
        let outcome = drive(stage.addr, load, probe, |_, _| ()).await;
        capacities.push(outcome.successes as f64 / outcome.took.as_secs_f64());
    }
    let capacity = median(capacities);
    report.figure("capacity for the mix", capacity, "/s");
    for step in STEPS {
        let kinds = KINDS.iter().map(async |kind| {
            let per_second = ((capacity * step * kind.share as f64 / 100.0) as u64).max(1);
            let load = Load { connections: kind.connections, requests: per_second * STEP_S, per_second: Some(per_second) };
            let request = |n: u64, bytes: &mut Vec<u8>| (kind.write)(stage, n, bytes);
            let cut = Cell::new(0_u64);
            let outcome = drive(stage.addr, load, request, |_, body| cut.set(cut.get() + u64::from(search::is_cut(body)))).await;
            (kind, outcome, cut.get())
        });
        for (kind, outcome, cut) in join_all(kinds).await {
            tell(report, step, kind, &outcome, cut);
        }
    }
}

fn tell(report: &mut Report, step: f64, kind: &Kind, outcome: &Outcome, cut: u64) {
    let Kind { name, .. } = kind;
    // Of ten thousand, since a share in percent would be rounded to what is wanted of it.
    let of_ten_thousand = |count: u64| count as f64 * 10_000.0 / outcome.requests() as f64;
    let lost = of_ten_thousand(outcome.requests() - outcome.successes);
    report.figure(format!("{step} × capacity: {name}, answered 503, of 10,000"), lost, "");
    if cut > 0 {
        report.figure(format!("{step} × capacity: {name}, cut short, of 10,000"), of_ten_thousand(cut), "");
    }
    report.figure(format!("{step} × capacity: {name}, 99 % of all answers, from due"), outcome.percentile_ms(99.0), "ms");
    let other: Vec<u16> = outcome.statuses.iter().copied().filter(|status| !matches!(status, 200..300 | 503)).collect();
    assert!(other.is_empty(), "{name}: {other:?}");
}

fn get(bytes: &mut Vec<u8>, token: &str, path: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    write!(bytes, "GET {path} HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {token}\r\n\r\n")
        .expect("a Vec takes all");
}

fn send(bytes: &mut Vec<u8>, token: &str, method: &str, path: std::fmt::Arguments<'_>, body: &str) {
    use std::io::Write as _;
    write!(
        bytes,
        "{method} {path} HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a Vec takes all");
}

fn playback(stage: &Stage, n: u64, bytes: &mut Vec<u8>) {
    let viewer = stage.viewer(n);
    get(bytes, &viewer.token, format_args!("/videos/{}/playback", viewer.title));
}

fn resume(stage: &Stage, n: u64, bytes: &mut Vec<u8>) {
    let viewer = stage.viewer(n);
    let body = format!("{{\"positionMs\":{},\"at\":\"{}\",\"device\":\"living room\"}}", n % DURATION_MS, rfc3339(now_ms()));
    send(bytes, &viewer.token, "PATCH", format_args!("/videos/{}/last-watched-timestamp", viewer.title), &body);
}

fn catalogue(stage: &Stage, n: u64, bytes: &mut Vec<u8>) {
    let viewer = stage.viewer(n);
    get(bytes, &viewer.token, format_args!("/videos/{}", viewer.title));
}

fn recommendations(stage: &Stage, n: u64, bytes: &mut Vec<u8>) {
    get(bytes, &stage.viewer(n).token, format_args!("/recommendations"));
}

fn activity(stage: &Stage, n: u64, bytes: &mut Vec<u8>) {
    let viewer = stage.viewer(n);
    let (now, title) = (rfc3339(now_ms()), &viewer.title);
    let events = (0..EVENTS).map(|event| {
        let id = n * EVENTS + event;
        let session = n % 100_000;
        format!(
            "{{\"type\":\"impression\",\"id\":\"{now}.{id}\",\"at\":\"{now}\",\"session\":\"{session:012}\",\"title\":\"{title}\",\"row\":\"new\",\"rank\":{event}}}"
        )
    });
    let body = format!("{{\"events\":[{}]}}", events.collect::<Vec<_>>().join(","));
    send(bytes, &viewer.token, "POST", format_args!("/activity"), &body);
}

//! Playback: how many starts a second are answered, each with ranked edges, signed URLs and where its viewer stopped?

use std::cell::Cell;

use serde_json::{Value, json};

use super::{
    client::{Connection, Load, drive},
    rounds::Rounds,
    stage::{Active, Stage},
};
use crate::{Report, Size, instance::EDGE, process_cpu_time};

/// What is asked for in the open loop.
const PER_SECOND: u64 = 2000;
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const EDGES: usize = 4;

/// Comes after resume writes, so that everyone has stopped somewhere.
pub(super) async fn measure(report: &mut Report, stage: &Stage) {
    edges_up(stage).await;
    let full = report.size() == Size::Full;
    let request = |n: u64, bytes: &mut Vec<u8>| {
        use std::io::Write as _;
        let Active { title, token } = stage.viewer(n);
        write!(bytes, "GET /videos/{title}/playback HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {token}\r\n\r\n")
            .expect("a Vec takes all");
    };
    let whole = Cell::new(0_u64);
    let look = |_, body: &[u8]| {
        let playback: Value = serde_json::from_slice(body).expect("JSON");
        let is_whole = playback["edges"].as_array().map(Vec::len) == Some(EDGES) && playback["resume"].is_object();
        whole.set(whole.get() + u64::from(is_whole));
    };
    let (requests, mut asked) = (report.size().of(100, PER_SECOND * 5), 0);
    for (name, per_second) in [("", None), (" at 2,000/s", Some(PER_SECOND))] {
        let mut rounds = Rounds::default();
        for _ in 0..report.size().of(1, ROUNDS as u64) {
            let cpu = process_cpu_time();
            let load = Load { connections: CONNECTIONS, requests, per_second: per_second.filter(|_| full) };
            let outcome = drive(stage.addr, load, request, look).await;
            assert_eq!(outcome.statuses, [200], "every start is answered");
            asked += requests;
            rounds.add(&outcome, process_cpu_time() - cpu);
        }
        if full {
            let names = [
                format!("playback{name}, {CONNECTIONS} connections"),
                format!("playback{name}, from due to answered, median"),
                format!("playback{name}, 99 %"),
                format!("playback{name}, CPU of control and client, which reads the JSON"),
            ];
            rounds.tell(report, names);
        }
    }
    report.expect("answers with all edges and where the viewer stopped", whole.get(), asked);
}

/// Edges that say that they are ready.
async fn edges_up(stage: &Stage) {
    let mut connection = Connection::open(stage.addr).await;
    let counters = ["connections", "requests", "bytesSent", "bytesRam", "bytesFilled", "ramBytesMax", "ramBytes"];
    let mut ready: Value = counters.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
    ready["health"] = "ready".into();
    for n in 0..EDGES {
        let registration =
            json!({ "site": format!("site-{}", n % 2), "url": format!("https://e{n}.example:8443"), "version": "0.1.0" });
        for (method, path, body) in
            [("PUT", format!("/fleet/edges/e{n}"), &registration), ("POST", format!("/fleet/edges/e{n}/reports"), &ready)]
        {
            let body = body.to_string();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {EDGE}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let status = connection.send(request.as_bytes()).await;
            assert!((200..300).contains(&status), "{method} {path}: {status}");
        }
    }
}

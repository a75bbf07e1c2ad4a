//! The lake, read by an engine that is not ours (DuckDB): what was sent is there, column by column, once.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use activity::{Activity, Config, Sender};
use serde_json::{Value, json};

const EVENTS: u64 = 3000;

#[tokio::test]
async fn a_foreign_engine_reads_from_the_lake_what_was_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let lake = dir.path().join("lake");
    let config = Config {
        segment_bytes: 64 << 10,
        ack_timeout: Duration::from_secs(60),
        ..Config::new(dir.path().join("a"), lake.clone())
    };
    let (activity, workers) = Activity::open(&config).expect("opens");
    let running = workers.start().expect("starts");
    let relay = Sender { user: None, region: "", relay: Some(|_| true) };
    for first in (0..EVENTS).step_by(100) {
        let body = json!({ "sentAt": SENT_AT, "events": (first..first + 100).map(event).collect::<Vec<_>>() }).to_string();
        let receipt = activity.submit(body.as_bytes(), relay).await.expect("it is kept");
        assert_eq!((receipt.accepted, receipt.flaws), (100, vec![]));
    }
    // The open segment does not get there.
    while activity.stats().lake_place < EVENTS / 2 {
        tokio::task::yield_now().await;
    }
    running.stop();
    let rows = activity.stats().lake_rows;
    assert_eq!(rows, activity.stats().lake_place);

    let read = read(&lake);
    let sent: Vec<Value> = (0..rows).map(event).collect();
    let count = |is: &dyn Fn(&Value) -> bool| sent.iter().filter(|event| is(event)).count() as u64;
    let sum = |of: &dyn Fn(&Value) -> Option<u64>| sent.iter().filter_map(of).sum::<u64>();
    assert_eq!(read["rows"], rows);
    assert_eq!(read["numbers"], json!([0, rows - 1, rows]), "each number once");
    assert_eq!(read["ids"], rows);
    for kind in ["play", "stop", "quality", "impression"] {
        assert_eq!(read["types"][kind], count(&|event| event["type"] == kind), "{kind}");
    }
    assert_eq!(read["played_ms"], sum(&|event| event["playedMs"].as_u64()));
    assert_eq!(read["br"], json!([sum(&|event| event["cmcd"]["br"].as_u64()), count(&|event| event["cmcd"]["br"].is_u64())]));
    assert_eq!(read["bs"], count(&|event| event["cmcd"]["bs"] == true));
    assert_eq!(read["pr"], 1.25);
    assert_eq!(read["sta"], "p");
    assert_eq!(read["ec"], "E1,E2");
    assert_eq!(read["ranks"], count(&|event| event["rank"].is_u64()));
    assert_eq!(
        read["regions"],
        json!([["r0", count(&|event| event["region"] == "r0")], ["r1", count(&|event| event["region"] == "r1")]])
    );
    assert_eq!(read["users"], 10, "pseudonyms tell users apart");
    assert_eq!(read["session"], "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
    // The batches say that they were sent at a time of long ago, and their events were up to a second before.
    let (at, received) = (read["at_ms"].as_array().expect("two times"), read["received_at_ms"].as_u64().expect("milliseconds"));
    let before = at.iter().map(|at| received - at.as_u64().expect("milliseconds")).collect::<Vec<_>>();
    assert!(before[0] >= 999 && before[1] < before[0] && before[0] < 120_000, "{before:?}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    assert!(u128::from(received).abs_diff(now) < 120_000, "{received}");
    let partition = read["partition"].as_array().expect("a day and an hour");
    assert!(partition[0].as_str().is_some_and(|day| day.starts_with("20") && day.len() == 10), "{partition:?}");
}

const SENT_AT: &str = "2001-01-01T00:00:01Z";

fn event(n: u64) -> Value {
    let id = format!("0a1b2c3d-4e5f-6071-8293-{n:012x}");
    let at = format!("2001-01-01T00:00:00.{:03}Z", n % 1000);
    let mut event =
        json!({ "id": id, "at": at, "session": "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "title": format!("t{}", n % 7) });
    let more = match n % 4 {
        0 => json!({ "type": "play", "user": format!("u{}", n % 20), "region": "r0", "rendition": "v720" }),
        1 => json!({ "type": "stop", "region": "r1", "positionMs": n, "playedMs": n, "cmcd": { "dfa": 3, "ec": ["E1", "E2"] } }),
        2 => json!({ "type": "quality", "playedMs": 10_000, "user": format!("u{}", n % 20),
                     "cmcd": { "br": 1000 + n, "bs": n % 8 == 2, "pr": 1.25, "sta": "p", "cdn": "edge-7" } }),
        _ => json!({ "type": "impression", "row": "new", "rank": n % 10 }),
    };
    event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event
}

fn read(lake: &Path) -> Value {
    let python = std::env::var_os("LARDER_TEST_PYTHON").map(PathBuf::from);
    let python = python.expect("LARDER_TEST_PYTHON names a Python with duckdb; `make test` sets up both");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/foreign/lake.py");
    let output = Command::new(python).arg(script).arg(lake).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

//! The lake in a bucket: what viewers do is put there, signed so that AWS's own library agrees, and a foreign engine reads it.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use control::config::BucketConfig;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{OPERATOR, Service, config, directory, start_with, with};

const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const EVENTS: usize = 500;

/// A store in another process, which ends with this.
struct Store {
    child: Child,
    port: u16,
}

impl Store {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/foreign/bucket.py"))
            .args([folder.as_os_str(), KEY_ID.as_ref(), SECRET.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("a line");
        Self { child, port: port.trim().parse().expect("it says where it listens") }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> PathBuf {
    let python = std::env::var_os("LARDER_TEST_PYTHON").map(PathBuf::from);
    python.expect("LARDER_TEST_PYTHON names a Python with botocore and duckdb; `make test` sets up all three")
}

/// A control whose lake is in the store, and where segments are closed early.
async fn start(dir: &Path, store: &Store, secret: &str) -> Service {
    let secret_key_file = dir.join("s3.secret");
    std::fs::write(&secret_key_file, secret).unwrap();
    let bucket = BucketConfig {
        url: format!("http://127.0.0.1:{}/viewing/larder", store.port).parse().unwrap(),
        region: "eu-north-1".into(),
        access_key_id: KEY_ID.into(),
        secret_key_file,
        ca_file: None,
    };
    let defaults = config(dir);
    let activity = activity::Config { segment_bytes: 4096, ..defaults.activity };
    start_with(control::Config { activity, lake_bucket: Some(bucket), ..defaults }).await.unwrap()
}

async fn send(service: &Service) {
    let event = |n: usize| {
        json!({ "type": "play", "id": format!("e{n}"), "at": "2001-01-01T00:00:00Z", "session": "s", "title": "demo",
                "user": format!("u{}", n % 10), "region": "r" })
    };
    for first in (0..EVENTS).step_by(50) {
        let events: Vec<_> = (first..first + 50).map(event).collect();
        let batch = json!({ "sentAt": "2001-01-01T00:00:01Z", "events": events });
        assert_eq!(service.send(with(Method::POST, "/activity", OPERATOR, &batch)).await.status, StatusCode::ACCEPTED);
    }
}

async fn metric(service: &Service, name: &str) -> f64 {
    let metrics = service.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

/// Waits until `name` is at least `least`: the lake follows in its own time.
async fn until(service: &Service, name: &str, least: f64) -> f64 {
    loop {
        let now = metric(service, name).await;
        if now >= least {
            return now;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_viewers_do_is_in_the_bucket_and_a_foreign_engine_reads_it() {
    let (dir, bucket) = (directory(), directory());
    let store = Store::start(bucket.path());
    let service = start(dir.path(), &store, SECRET).await;
    send(&service).await;
    until(&service, "larder_control_lake_rows_total", EVENTS as f64 / 2.0).await;
    assert_eq!(metric(&service, "larder_control_lake_failures_total").await, 0.0);
    service.stop().await;
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/foreign/lake.py"))
        .arg(bucket.path().join("viewing/larder"))
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = read["rows"].as_u64().unwrap();
    assert!(rows >= EVENTS as u64 / 2, "{read}");
    assert_eq!((&read["numbers"], &read["types"]), (&json!([0, rows - 1, rows]), &json!({ "play": rows })));
    let staying: Vec<_> = std::fs::read_dir(dir.path().join("state/activity/lake")).unwrap().flatten().collect();
    assert!(staying.is_empty(), "what is in the bucket does not stay on the machine: {staying:?}");
}

#[tokio::test]
async fn a_bucket_that_refuses_costs_nobody_anything_and_is_told() {
    let (dir, bucket) = (directory(), directory());
    let store = Store::start(bucket.path());
    let service = start(dir.path(), &store, "another-secret-of-a-key").await;
    send(&service).await;
    until(&service, "larder_control_lake_failures_total", 1.0).await;
    assert_eq!(metric(&service, "larder_control_lake_rows_total").await, 0.0);
    service.stop().await;
    // With the right secret everything gets there.
    let service = start(dir.path(), &store, SECRET).await;
    until(&service, "larder_control_lake_rows_total", EVENTS as f64 / 2.0).await;
    service.stop().await;
}

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use edge::http::Protocol;
use http::StatusCode;

use crate::{
    origin::Object,
    support::{get, start},
};

const PATH: &str = "/titles/logged/v720/00001.m4s";

#[tokio::test]
async fn operators_see_how_an_edge_does() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(1000, 1));
    assert_eq!(edge.admin("/healthz").await, (200, "alive\n".into()));
    assert_eq!(edge.admin("/readyz").await, (200, "ready\n".into()));
    assert_eq!(edge.admin("/").await.0, 404);
    let connection = edge.connect(Protocol::Http3).await;
    for _ in 0..2 {
        assert_eq!(get(&connection, &edge.signed(PATH)).await.status, StatusCode::OK);
    }
    let (status, page) = edge.admin("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "larder_edge_requests_total{protocol=\"h3\",status=\"2xx\",verdict=\"hit\"} 1",
        "larder_edge_requests_total{protocol=\"h3\",status=\"2xx\",verdict=\"miss\"} 1",
        "larder_edge_first_byte_seconds_count{verdict=\"hit\"} 1",
        "larder_edge_connections_total{protocol=\"h3\"} 1",
        "larder_edge_bytes_total{tier=\"origin\"} 1000",
        "larder_edge_bytes_total{tier=\"ram\"} 1000",
        "larder_edge_fills_total{end=\"done\"} 1",
        "larder_edge_cache_hits_total 1",
        "larder_edge_ram_bytes_max 16777216",
        "larder_edge_known_objects 1",
        "# TYPE larder_edge_first_byte_seconds histogram",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn each_request_is_one_line_in_the_log_and_no_token_is_in_it() {
    let log = log();
    let edge = start().await;
    let path = "/titles/lines/v720/00002.m4s";
    edge.origin.put(path, Object::new(1000, 1));
    let connection = edge.connect(Protocol::Http2).await;
    assert_eq!(get(&connection, &edge.signed(path)).await.status, StatusCode::OK);
    assert_eq!(get(&connection, path).await.status, StatusCode::FORBIDDEN);
    let token = edge.token();
    let signature = token.rsplit('.').next().expect("three parts").to_owned();
    edge.stop().await;
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains(path)).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for part in
        ["larder::access", "status=200", "protocol=\"h2\"", "method=GET", "bytes=1000", "verdict=\"miss\"", "client=127.0.0.1"]
    {
        assert!(lines[0].contains(part), "no {part} in {}", lines[0]);
    }
    assert!(lines[1].contains("status=403") && lines[1].contains("the request has no token"), "{}", lines[1]);
    assert!(!log.lines().iter().any(|line| line.contains(&signature) || line.contains("URISigningPackage=")));
}

/// What is logged, by all tests of this binary.
struct Log(Mutex<Vec<u8>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

fn log() -> &'static Log {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG).with_writer(|| &LOG).init();
    });
    &LOG
}

impl Log {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.bytes()).lines().map(str::to_owned).collect()
    }
}

impl Write for &'static Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

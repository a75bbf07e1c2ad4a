use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use edge::http::Protocol;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    origin::Object,
    support::{Running, get, start},
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
        "larder_edge_cache_ssd_hits_total 0",
        "larder_edge_cache_misses_total 1",
        "larder_edge_cache_attempts_total 1",
        "larder_edge_cache_stalls_total 0",
        "larder_edge_cache_read_ahead_total 0",
        "larder_edge_ram_bytes_max 16777216",
        "larder_edge_known_objects 1",
        "# TYPE larder_edge_first_byte_seconds histogram",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
    }
    edge.stop().await;
}

/// Sends this request to the operators' address, with `Host` among `headers`, and gets status and body.
pub(crate) async fn tell(edge: &Running, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let mut stream = tokio::net::TcpStream::connect(edge.admin_addr).await.expect("the admin listener is up");
    // One that is refused for its head may be answered, and its connection closed, before all of it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
}

pub(crate) const HOST: (&str, &str) = ("host", "127.0.0.1:9440");
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn an_operator_sees_the_cache_and_purges_from_it() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(1000, 1));
    let connection = edge.connect(Protocol::Http3).await;
    for _ in 0..3 {
        assert_eq!(get(&connection, &edge.signed(PATH)).await.status, StatusCode::OK);
    }
    let (status, stat) = tell(&edge, "GET /cache/stat", &[HOST], "").await;
    let stat: Value = serde_json::from_str(&stat).expect("JSON");
    assert_eq!((status, &stat["ssd"]), (200, &Value::Null));
    let ram = &stat["ram"];
    assert_eq!(
        (&ram["hits"], &ram["misses"], &ram["bytes_ram"], &ram["bytes_filled"]),
        (&json!(2), &json!(1), &json!(2000), &json!(1000))
    );
    let (status, devices) = tell(&edge, "GET /cache/devices", &[HOST], "").await;
    assert_eq!((status, devices.as_str()), (200, "{\"devices\":[],\"io\":null}\n"));

    let purge = format!("{{\"purge\":[{{\"object\":\"{PATH}\"}}]}}");
    assert_eq!(tell(&edge, "POST /cache/purge", &[HOST, JSON], &purge).await, (200, format!("{purge}\n")));
    let answer = get(&connection, &edge.signed(PATH)).await;
    assert_eq!(answer.header("cache-status"), "edge-a; fwd=miss; stored; detail=origin", "it is filled anew");
    assert_eq!(edge.origin.asked().len(), 2);

    let (status, lines) = tell(&edge, "POST /cache/verify", &[HOST, JSON], "{}").await;
    assert_eq!(status, 200);
    assert!(
        lines.contains("{\"verified\":{\"segments\":0,\"slices\":0,\"bytes\":0,\"fault_count\":0,\"faults\":[]}}\n"),
        "{lines}"
    );
    let restore = "{\"device\":\"/dev/none\"}";
    let (status, told) = tell(&edge, "POST /cache/devices/restore", &[HOST, JSON], restore).await;
    assert_eq!((status, told.as_str()), (409, "{\"error\":\"this cache has no devices\"}\n"));
    edge.stop().await;
}

#[tokio::test]
async fn no_web_page_and_no_mistake_purges_anything() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(1000, 1));
    let connection = edge.connect(Protocol::Http2).await;
    assert_eq!(get(&connection, &edge.signed(PATH)).await.status, StatusCode::OK);
    let purge = format!("{{\"purge\":[{{\"object\":\"{PATH}\"}}]}}");
    let long = format!("{purge}{}", " ".repeat(64 << 10));
    let mixed = format!("{{\"purge\":[{{\"object\":\"{PATH}\"}},{{\"object\":\"no path\"}}]}}");
    for (line, headers, body, status, why) in [
        ("POST /cache/purge", &[HOST][..], purge.as_str(), 415, "application/json"),
        ("POST /cache/purge", &[HOST, ("content-type", "text/plain")], &purge, 415, "application/json"),
        ("POST /cache/purge", &[JSON, ("host", "rebound.example:9440")], &purge, 421, "by its address"),
        ("GET /cache/stat", &[("host", "rebound.example:9440")], "", 421, "by its address"),
        ("OPTIONS /cache/purge", &[HOST, ("origin", "https://app.example")], "", 405, "only POST"),
        ("GET /cache/purge", &[HOST, JSON], &purge, 405, "only POST"),
        ("POST /cache/stat", &[HOST, JSON], "{}", 405, "only GET, HEAD"),
        ("POST /cache/purge", &[HOST, JSON], &long, 413, "64 KiB"),
        ("POST /cache/purge", &[HOST, JSON], "{\"purge\":[]}", 400, "nothing to purge"),
        ("POST /cache/purge", &[HOST, JSON], "{\"purge\":[\"everything\"]}", 400, "not understood"),
        ("POST /cache/purge", &[HOST, JSON], &mixed, 400, "names no object"),
        ("POST /cache/verify", &[HOST], "{}", 415, "application/json"),
        ("GET /cache/", &[HOST], "", 404, "/cache/stat"),
    ] {
        let told = tell(&edge, line, headers, body).await;
        assert!(
            told.0 == status && told.1.starts_with("{\"error\":") && told.1.contains(why),
            "{line} {headers:?} {body:.80}: {told:?}"
        );
        assert!(!told.1.contains("access-control"), "no script may read it");
    }
    assert_eq!(get(&connection, &edge.signed(PATH)).await.header("cache-status"), "edge-a; hit; detail=ram");
    assert_eq!(edge.origin.asked().len(), 1);
    // Monitoring calls an edge by its name.
    assert_eq!(tell(&edge, "GET /readyz", &[("host", "edge1.example")], "").await, (200, "ready\n".into()));
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

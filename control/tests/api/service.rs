//! A control in a directory of its own, and a small client.

use std::{convert::Infallible, net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use control::{
    Config, Control, OpenError,
    config::{HistoryConfig, Overload, Proxies, ProxyHeader, Rate, Rates, SteeringConfig},
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use wire::{
    object::Digest,
    token::{Algorithm, SigningKey},
};

use crate::description::Description;

pub(crate) const OPERATOR: &str = "the-secret-of-operators";
pub(crate) const EDGE: &str = "the-secret-of-edges";
pub(crate) const ISSUER: &str = "larder.test";

pub(crate) const NO_LIMIT: Rate = Rate { per_second: 0, burst: 1 };

/// A running control. Dropping it stops it without ceremony.
pub(crate) struct Service {
    pub(crate) addr: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), Infallible>>,
    description: Description,
}

/// A directory with a signing key and secrets.
pub(crate) fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate(Algorithm::Es256, "test-key").unwrap();
    std::fs::write(dir.path().join("key.jwk"), key.to_jwk()).unwrap();
    std::fs::write(dir.path().join("operator.token"), format!("{OPERATOR}\n")).unwrap();
    std::fs::write(dir.path().join("edge.token"), EDGE).unwrap();
    dir
}

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        state_dir: dir.join("state"),
        signing_key_file: dir.join("key.jwk"),
        token_issuer: ISSUER.into(),
        token_lifetime: Duration::from_secs(3600),
        operator_token_file: dir.join("operator.token"),
        operators: Vec::new(),
        viewers: None,
        anonymous: true,
        proxies: Proxies { from: Vec::new(), header: ProxyHeader::XForwardedFor },
        limits: Rates { viewer: NO_LIMIT, operator: NO_LIMIT, address: NO_LIMIT },
        overload: Overload { lag: Duration::from_secs(10), requests_max: 4096 },
        canary: None,
        audit_keep: Duration::from_secs(86_400),
        edge_token_file: dir.join("edge.token"),
        // No test waits for an edge to fall silent, and none may fail because the machine is slow.
        edge_timeout: Duration::from_secs(3600),
        history: HistoryConfig::default(),
        // The same for a search.
        search_timeout: Duration::from_secs(600),
        steering: SteeringConfig::default(),
        allowed_origins: vec!["https://app.example".parse().unwrap()],
        // No test fails because the machine is slow.
        activity: activity::Config {
            ack_timeout: Duration::from_secs(60),
            ..activity::Config::new(dir.join("state/activity"), dir.join("state/activity/lake"))
        },
        lake_bucket: None,
    }
}

/// A control in a directory of its own.
pub(crate) async fn start() -> (TempDir, Service) {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    (dir, service)
}

pub(crate) async fn start_in(dir: &Path) -> Result<Service, OpenError> {
    start_with(config(dir)).await
}

pub(crate) async fn start_with(config: Config) -> Result<Service, OpenError> {
    let control = Control::open(config).await?;
    let (addr, stop) = (control.addr(), CancellationToken::new());
    let task = tokio::spawn(control.run(stop.clone()));
    let raw = send(addr, request(Method::GET, "/openapi.json")).await;
    Ok(Service { addr, stop, task, description: Description::parse(&raw.body) })
}

impl Service {
    /// Stops it and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Sends a request; the answer must be as `/openapi.json` describes it.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let reply = send(self.addr, request).await;
        self.description.check_reply(&method, &path, &reply);
        reply
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(request(Method::GET, path)).await
    }

    pub(crate) async fn publish(&self, title: &Value) -> Reply {
        let id = title["id"].as_str().unwrap();
        self.send(with(Method::PUT, &format!("/videos/{id}"), OPERATOR, title)).await
    }

    /// Registers the edge `id` and reports that it is ready.
    pub(crate) async fn edge_up(&self, id: &str) {
        let registered = self.send(with(Method::PUT, &format!("/fleet/edges/{id}"), EDGE, &registration(id))).await;
        assert!(registered.status.is_success(), "{registered:?}");
        assert_eq!(self.report(id, "ready").await.status, StatusCode::NO_CONTENT);
    }

    pub(crate) async fn report(&self, id: &str, health: &str) -> Reply {
        self.send(with(Method::POST, &format!("/fleet/edges/{id}/reports"), EDGE, &report(health))).await
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn request(method: Method, path: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).header("host", "control.test").body(Full::default()).unwrap()
}

/// A request with a secret and a JSON body.
pub(crate) fn with(method: Method, path: &str, secret: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "control.test")
        .header("authorization", format!("Bearer {secret}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// Sends a request on a connection of its own, HTTP/1.1.
pub(crate) async fn send(addr: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    collect(client.send_request(request).await.unwrap()).await
}

/// The same over HTTP/2 in the clear, with prior knowledge.
pub(crate) async fn send_h2(addr: SocketAddr, path: &str) -> Reply {
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://{addr}{path}")).body(Full::<Bytes>::default()).unwrap();
    collect(client.send_request(request).await.unwrap()).await
}

async fn collect(response: http::Response<hyper::body::Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    Reply { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

pub(crate) fn registration(edge: &str) -> Value {
    json!({ "site": "site-1", "url": format!("https://{edge}.example:8443"), "version": "0.1.0" })
}

pub(crate) fn report(health: &str) -> Value {
    json!({
        "health": health, "connections": 1, "connectionsMax": 1000, "requests": 2, "bytesSent": 3, "bytesRam": 4, "bytesSsd": 8, "bytesFilled": 5,
        "ramBytesMax": 6, "ramBytes": 7, "ssdBytesMax": 9, "devices": 2, "devicesOff": 1, "hitRatios": { "ram": 0.5, "ssd": null },
        "load": { "bitsPerSecond": 10, "bitsPerSecondMax": null, "cpuShare": 0.25 },
    })
}

/// A title with two video renditions and one of audio, each of `segments` segments of 4 seconds, the last one of 2.
pub(crate) fn title_of(id: &str, segments: usize) -> Value {
    let mut paths: Vec<String> =
        ["master.m3u8", "manifest.mpd", "poster.jpg", "storyboard.vtt", "storyboard.jpg"].map(String::from).into();
    let mut renditions = Vec::new();
    for (name, media, codecs, bits) in [
        ("v720", json!({ "kind": "video", "width": 1280, "height": 720, "frameRate": 25.0 }), "avc1.64001f", 3_000_000),
        ("v360", json!({ "kind": "video", "width": 640, "height": 360, "frameRate": 25.0 }), "avc1.64001e", 800_000),
        ("a1", json!({ "kind": "audio", "channels": 2, "sampleRate": 48_000, "language": "und" }), "mp4a.40.2", 128_000),
    ] {
        let path = |n: usize| format!("{name}/{:05}.m4s", n + 1);
        let duration_ms = |n: usize| if n + 1 == segments { 2000 } else { 4000 };
        let mut rendition = json!({
            "id": name, "codecs": codecs, "bitsPerSecondPeak": bits, "bitsPerSecondMean": bits / 2,
            "playlist": format!("{name}/playlist.m3u8"), "init": format!("{name}/init.mp4"),
            "segments": (0..segments).map(|n| json!({ "path": path(n), "startMs": n * 4000, "durationMs": duration_ms(n) })).collect::<Vec<_>>(),
        });
        rendition.as_object_mut().unwrap().extend(media.as_object().unwrap().clone());
        renditions.push(rendition);
        paths.extend([format!("{name}/playlist.m3u8"), format!("{name}/init.mp4")]);
        paths.extend((0..segments).map(path));
    }
    paths.sort();
    let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
    json!({
        "id": id, "title": format!("The Title {id}"), "description": "About nothing.", "cast": ["Änne Somebody"], "rating": "PG-13",
        "genres": ["Drama"], "year": 1999, "language": "en", "kind": "film",
        "durationMs": segments * 4000 - 2000, "root": format!("/titles/{}", digest(id)), "fingerprint": digest(&format!("source of {id}")),
        "hls": "master.m3u8", "dash": "manifest.mpd", "poster": "poster.jpg", "storyboard": "storyboard.vtt", "renditions": renditions,
        "objects": paths.iter().map(|path| json!({ "path": path, "bytes": 10, "digest": digest(path), "contentType": "video/mp4" })).collect::<Vec<_>>(),
    })
}

pub(crate) fn title(id: &str) -> Value {
    title_of(id, 3)
}

//! A control that listens to what an edge says, answers as the test says, and does not always answer.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use edge::http::Protocol;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use wire::content::Digest;

use crate::{
    origin::Object,
    support::{Running, get, start_with},
};

/// A request: what it was, with which secret, and its message if it was whole.
type Asked = (String, String, Value);

/// A control that answers registrations and opens streams.
struct Control {
    addr: SocketAddr,
    asked: UnboundedReceiver<Asked>,
    streams: UnboundedReceiver<Talk>,
}

/// What the next requests are answered with; after these all is well.
type Statuses = Arc<Mutex<VecDeque<u16>>>;

/// An open stream, as control has it.
struct Talk {
    say: UnboundedSender<String>,
    heard: UnboundedReceiver<Value>,
}

impl Control {
    async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let addr = listener.local_addr().expect("bound");
        let ((ask, asked), (open, streams)) = (unbounded_channel(), unbounded_channel());
        let statuses = Statuses::new(Mutex::new(statuses.iter().copied().collect()));
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.expect("accepts");
                let (ask, open, statuses) = (ask.clone(), open.clone(), statuses.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, ask.clone(), open.clone(), statuses.clone()));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(connection), service).await);
                });
            }
        });
        Self { addr, asked, streams }
    }

    async fn asked(&mut self) -> Asked {
        self.asked.recv().await.expect("an edge asks")
    }

    /// The next stream that an edge opens, with a hello said on it that expects reports so often.
    async fn stream(&mut self, report_every_ms: u64) -> Talk {
        let mut talk = self.streams.recv().await.expect("an edge opens a stream");
        let hello = talk.hears("hello").await;
        assert_eq!(hello, json!({ "type": "hello", "protocol": 1, "version": env!("CARGO_PKG_VERSION") }));
        talk.says(&json!({ "type": "hello", "protocol": 1, "version": "9", "reportEveryMs": report_every_ms }));
        talk
    }
}

async fn answer(
    request: Request<Incoming>,
    ask: UnboundedSender<Asked>,
    open: UnboundedSender<Talk>,
    statuses: Statuses,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri().path());
    let secret = request.headers()["authorization"].to_str().expect("text").to_owned();
    let status = statuses.lock().expect("no panic").pop_front();
    let is_stream = *request.method() == Method::POST && status.is_none();
    let mut body = request.into_body();
    if is_stream {
        let ((say, mut said), (hear, heard)) = (unbounded_channel::<String>(), unbounded_channel());
        let _ = ask.send((line, secret, Value::Null));
        let _ = open.send(Talk { say, heard });
        tokio::spawn(async move {
            let mut lines = wire::lines::Lines::new(1 << 20);
            while let Some(Ok(frame)) = body.frame().await {
                lines.push(frame.data_ref().expect("no trailers"));
                while let Some(line) = lines.next().expect("short lines") {
                    if hear.send(serde_json::from_slice(line).expect("JSON")).is_err() {
                        return;
                    }
                }
            }
        });
        let frames = stream::poll_fn(move |cx| said.poll_recv(cx)).map(|text| Ok(Frame::data(text.into())));
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))));
    }
    let message = if line.starts_with("PUT") { body.collect().await.expect("a body").to_bytes() } else { Bytes::from("null") };
    let _ = ask.send((line, secret, serde_json::from_slice(&message).expect("JSON")));
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::from_u16(status.unwrap_or(204)).expect("a status");
    Ok(response)
}

impl Talk {
    fn says(&self, message: &Value) {
        self.says_text(format!("{message}\n"));
    }

    fn says_text(&self, text: String) {
        self.say.send(text).expect("the edge listens");
    }

    /// The next message of this type; `None` when the stream has ended.
    async fn next(&mut self, of_type: &str) -> Option<Value> {
        loop {
            let message = self.heard.recv().await?;
            if message["type"] == of_type {
                return Some(message);
            }
        }
    }

    async fn hears(&mut self, of_type: &str) -> Value {
        self.next(of_type).await.unwrap_or_else(|| panic!("the stream ended before a {of_type}"))
    }

    /// The first report of which this is so.
    async fn report(&mut self, is_so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let report = self.hears("report").await;
            if is_so(&report) {
                return report;
            }
        }
    }

    /// Gives a command, and gets the answer to it.
    async fn commands(&mut self, id: u64, command: Value) -> Value {
        self.says(&json!({ "type": "command", "id": id, "command": command }));
        let done = self.hears("done").await;
        assert_eq!(done["id"], id);
        done
    }
}

fn config(control: &Control) -> String {
    format!(
        "[control]\nurl = \"http://{}\"\ntoken_file = \"DIR/edge.token\"\nreport_every = \"100ms\"\ncontent_every = \"100ms\"\n",
        control.addr
    )
}

/// An edge with some content, and control's end of its stream.
async fn talking() -> (Control, Running, Talk) {
    let mut control = Control::start(&[]).await;
    let edge = start_with(&config(&control)).await;
    let talk = control.stream(60_000).await;
    edge.origin.put("/titles/t/a", Object::new(1000, 1));
    (control, edge, talk)
}

async fn serves(edge: &Running, protocol: Protocol) {
    let connection = edge.connect(protocol).await;
    assert_eq!(get(&connection, &edge.signed("/titles/t/a")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_edge_registers_reports_on_one_stream_and_says_when_it_drains() {
    let mut control = Control::start(&[]).await;
    let more = format!("{}[limits]\nconnections = 77\n", config(&control));
    let edge = start_with(&more).await;
    let (line, secret, registration) = control.asked().await;
    assert_eq!((line.as_str(), secret.as_str()), ("PUT /fleet/edges/edge-a", "Bearer the-secret-of-edges"));
    let expected = json!({ "site": "site-1", "url": "https://edge.example", "version": env!("CARGO_PKG_VERSION") });
    assert_eq!(registration, expected);
    let (line, secret, _) = control.asked().await;
    assert_eq!((line.as_str(), secret.as_str()), ("POST /fleet/edges/edge-a/stream", "Bearer the-secret-of-edges"));
    let mut talk = control.stream(60_000).await;
    assert_eq!(talk.hears("report").await["health"], "ready");

    edge.origin.put("/titles/t/a", Object::new(1000, 1));
    let connection = edge.connect(Protocol::Http2).await;
    assert_eq!(get(&connection, &edge.signed("/titles/t/a")).await.status, StatusCode::OK);
    let report = talk.report(|report| {
        // The first report may be older than the threads whose time is counted.
        report["requests"] == 1 && report["hitRatios"]["ram"] == 0.0 && report["load"]["cpuShare"].is_number()
    });
    let report = report.await;
    assert_eq!((&report["bytesSent"], &report["bytesFilled"], &report["bytesSsd"]), (&json!(1000), &json!(1000), &json!(0)));
    assert_eq!((&report["connections"], &report["connectionsMax"]), (&json!(1), &json!(77)));
    assert_eq!((&report["ramBytesMax"], &report["devices"], &report["devicesOff"]), (&json!(16 << 20), &json!(0), &json!(0)));
    let share = report["load"]["cpuShare"].as_f64().expect("Linux tells");
    assert!((0.0..=1.0).contains(&share), "{report}");

    drop(connection);
    edge.stop().await;
    let mut last = Value::Null;
    while let Some(report) = talk.next("report").await {
        last = report;
    }
    assert_eq!(last["health"], "draining", "its last word, and then it ends the stream");
    assert!(control.asked.try_recv().is_err(), "one registration and one stream were enough");
}

#[tokio::test]
async fn an_edge_serves_without_control_and_tells_it_when_it_comes() {
    let mut control = Control::start(&[503, 500, 204, 404, 204]).await;
    let edge = start_with(&config(&control)).await;
    edge.origin.put("/titles/t/a", Object::new(1000, 1));
    serves(&edge, Protocol::Http3).await;
    for expected in ["PUT", "PUT", "PUT", "POST", "PUT", "POST"] {
        let (line, ..) = control.asked().await;
        assert!(line.starts_with(expected), "it registers again before each stream: {line}");
    }
    control.stream(60_000).await.hears("report").await;
    assert_eq!(edge.admin("/readyz").await.0, 200);
    edge.stop().await;
}

#[tokio::test]
async fn a_stream_on_which_control_falls_silent_is_given_up_for_another() {
    let mut control = Control::start(&[]).await;
    let edge = start_with(&config(&control)).await;
    let mut first = control.stream(50).await;
    first.says(&json!({ "type": "beat" }));
    let mut second = control.stream(60_000).await;
    second.hears("report").await;
    assert_eq!(first.next("never").await, None, "the first one is closed");
    edge.stop().await;
}

#[tokio::test]
async fn a_stream_that_control_ends_or_spoils_is_opened_anew() {
    let mut control = Control::start(&[]).await;
    let edge = start_with(&config(&control)).await;
    drop(control.stream(60_000).await);
    let spoilt = control.stream(60_000).await;
    spoilt.says_text("x".repeat(wire::report::DOWN_LINE_BYTES_MAX + 1));
    let mut third = control.stream(60_000).await;
    third.says_text("\n{}\n[]\nno JSON\n{\"type\":\"later\"}\n".into());
    third.hears("report").await;
    third.hears("report").await;
    assert!(control.streams.try_recv().is_err(), "what is not understood is passed over");
    edge.stop().await;
}

#[tokio::test]
async fn what_control_has_purged_is_filled_anew() {
    let (_control, edge, mut talk) = talking().await;
    serves(&edge, Protocol::Http2).await;
    serves(&edge, Protocol::Http2).await;
    assert_eq!(edge.origin.asked().len(), 1);
    let done = talk.commands(1, json!({ "name": "purge", "purge": [{ "prefix": "/titles/t/" }] })).await;
    assert_eq!(done, json!({ "type": "done", "id": 1 }));
    serves(&edge, Protocol::Http2).await;
    assert_eq!(edge.origin.asked().len(), 2);
    let done = talk.commands(2, json!({ "name": "purge", "purge": [{ "object": "a" }, "all"] })).await;
    assert_eq!(done["error"], "\"a\" names no object: a path begins with a slash");
    serves(&edge, Protocol::Http2).await;
    assert_eq!(edge.origin.asked().len(), 2, "all of it or nothing");
    edge.stop().await;
}

#[tokio::test]
async fn a_command_that_is_not_known_is_refused() {
    let (_control, edge, mut talk) = talking().await;
    for (id, command) in [(1, json!({ "name": "dance" })), (2, json!({ "name": "purge", "purge": [{ "colour": "red" }] }))] {
        let done = talk.commands(id, command).await;
        let error = done["error"].as_str().expect("an error");
        assert!(error.starts_with("this edge does not understand it: unknown variant"), "{error}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_drained_edge_says_so_and_serves_whoever_comes() {
    let (mut control, edge, mut talk) = talking().await;
    talk.hears("report").await;
    assert_eq!(talk.commands(1, json!({ "name": "drain" })).await, json!({ "type": "done", "id": 1 }));
    assert_eq!(talk.report(|report| report["health"] == "draining").await["type"], "report");
    assert_eq!(edge.admin("/readyz").await, (503, "drained: an operator has control send nobody here\n".into()));
    serves(&edge, Protocol::Http1).await;
    talk.commands(2, json!({ "name": "undrain" })).await;
    talk.report(|report| report["health"] == "ready").await;
    assert_eq!(edge.admin("/readyz").await.0, 200);

    // A stream that is opened later says it again.
    drop(talk);
    let mut talk = control.streams.recv().await.expect("another stream");
    talk.says(&json!({ "type": "hello", "protocol": 1, "version": "9", "reportEveryMs": 60_000, "isDrained": true }));
    talk.report(|report| report["health"] == "draining").await;
    edge.stop().await;
}

#[tokio::test]
async fn control_is_told_what_an_edge_holds_when_that_has_changed() {
    let (_control, edge, mut talk) = talking().await;
    let digest = |message: Value| serde_json::from_value::<Digest>(message).expect("a digest");
    let empty = digest(talk.hears("content").await);
    let share = |digest: &Digest| digest.share([("/titles/t/a", 1000)]).expect("all is in the sample");
    assert_eq!((empty.slices, empty.sample_bits, empty.slice_bytes), (0, 0, 256 << 10));
    serves(&edge, Protocol::Http2).await;
    let held = digest(talk.hears("content").await);
    assert_eq!((held.slices, held.seed), (1, empty.seed));
    assert!((share(&held) - 1.0).abs() < f64::EPSILON);
    talk.commands(1, json!({ "name": "purge", "purge": ["all"] })).await;
    for _ in 0..5 {
        let next = talk.heard.recv().await.expect("the stream goes on");
        assert_eq!(next["type"], "report", "what has not changed is not told again");
    }
    edge.stop().await;
}

#[tokio::test]
async fn the_networks_that_an_edge_serves_are_in_its_registration() {
    let mut control = Control::start(&[]).await;
    // Keys of the whole file cannot follow a table: the edge of the tests has them by a file of its own.
    let (dir, _) = crate::support::files();
    std::fs::write(dir.path().join("prefixes"), "203.0.113.0/24\n2001:db8::/32\n").expect("writes");
    let mut config = crate::support::config(dir.path(), control.addr, &config(&control));
    config.prefixes = vec!["10.1.0.0/16".parse().expect("a prefix")];
    config.prefixes_file = Some(dir.path().join("prefixes"));
    let edge = edge::Edge::open(config).await.expect("opens");
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(edge.run(stop.clone()));
    let (.., registration) = control.asked().await;
    assert_eq!(registration["prefixes"], json!(["10.1.0.0/16", "203.0.113.0/24", "2001:db8::/32"]));
    stop.cancel();
    task.await.expect("no panic").expect("ends well");
}

#[tokio::test]
async fn a_name_that_two_edges_have_is_not_fought_over() {
    let (mut control, edge, mut talk) = talking().await;
    talk.says(&json!({ "type": "replaced" }));
    assert_eq!(talk.next("never").await, None);
    // Without the longest of pauses it would be back after a tenth of a second.
    let next = tokio::time::timeout(Duration::from_millis(500), control.streams.recv()).await;
    assert!(next.is_err(), "it waits long before it tries again");
    edge.stop().await;
}

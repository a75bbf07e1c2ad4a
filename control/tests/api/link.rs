//! An edge's end of a stream: lines of JSON both ways in one exchange of HTTP/2.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc};
use wire::{
    content::{Sample, slice_hash},
    lines::Lines,
};

use crate::service::{EDGE, Service, report, with};

/// A patience that a machine under load does not exhaust.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open stream.
pub(crate) struct Link {
    say: mpsc::UnboundedSender<Bytes>,
    incoming: Incoming,
    lines: Lines,
}

impl Link {
    /// Opens a stream, or gives the status that refuses it.
    pub(crate) async fn try_open(addr: SocketAddr, edge: &str, secret: &str) -> Result<Self, StatusCode> {
        let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
        let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let (say, mut said) = mpsc::unbounded_channel();
        let body = stream::poll_fn(move |cx| said.poll_recv(cx)).map(|line| Ok::<_, Infallible>(Frame::data(line)));
        let request = Request::post(format!("http://{addr}/fleet/edges/{edge}/stream"))
            .header("authorization", format!("Bearer {secret}"))
            .header("content-type", "application/x-ndjson")
            .body(StreamBody::new(body));
        let response = client.send_request(request.unwrap()).await.unwrap();
        if response.status() != StatusCode::OK {
            return Err(response.status());
        }
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Ok(Self { say, incoming: response.into_body(), lines: Lines::new(wire::report::DOWN_LINE_BYTES_MAX) })
    }

    /// Registers an edge at a site, opens its stream, and hears control's hello.
    pub(crate) async fn open(service: &Service, edge: &str, registration: &Value) -> Self {
        let registered = service.send(with(http::Method::PUT, &format!("/fleet/edges/{edge}"), EDGE, registration)).await;
        assert!(registered.status.is_success(), "{registered:?}");
        let mut link = Self::try_open(service.addr, edge, EDGE).await.unwrap();
        link.says(&json!({ "type": "hello", "protocol": 1, "version": "0.1.0" }));
        assert_eq!(link.hears("hello").await["protocol"], 1);
        link
    }

    pub(crate) fn says(&self, message: &Value) {
        self.says_bytes(format!("{message}\n").into());
    }

    pub(crate) fn says_bytes(&self, bytes: Bytes) {
        // One whose stream was ended says it to nobody.
        let _ = self.say.send(bytes);
    }

    /// Reports that it is ready, with more to say.
    pub(crate) fn reports(&self, more: &Value) {
        let mut report = report("ready");
        report["type"] = json!("report");
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.says(&report);
    }

    /// Says that it holds the first slices of these objects.
    pub(crate) fn holds(&self, paths: impl IntoIterator<Item = String>) {
        let mut sample = Sample::default();
        paths.into_iter().for_each(|path| sample.add(slice_hash(9, &path, 0)));
        let mut digest = serde_json::to_value(sample.digest(9, 1 << 20)).unwrap();
        digest["type"] = json!("content");
        self.says(&digest);
    }

    pub(crate) fn done(&self, id: &Value, error: Option<&str>) {
        self.says(&json!({ "type": "done", "id": id, "error": error }));
    }

    /// The next message that is no beat; none once the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.lines.next().unwrap() {
                let message: Value = serde_json::from_slice(line).unwrap();
                if message["type"] != "beat" {
                    return Some(message);
                }
                continue;
            }
            let frame = tokio::time::timeout(PATIENCE, self.incoming.frame()).await.expect("control speaks in time");
            self.lines.push(frame?.ok()?.data_ref().expect("no trailers"));
        }
    }

    pub(crate) async fn hears(&mut self, of_type: &str) -> Value {
        let message = self.next().await.unwrap_or_else(|| panic!("the stream ended before a {of_type}"));
        assert_eq!(message["type"], of_type, "{message}");
        message
    }

    /// Waits for the next beat: what was said before it was sent may still be on its way.
    pub(crate) async fn ended(mut self) {
        assert_eq!(self.next().await, None);
    }
}

/// Asks until the answer is as it should be, which nobody tells.
pub(crate) async fn becomes<T, F: Future<Output = T>>(ask: impl Fn() -> F, is_so: impl Fn(&T) -> bool) -> T {
    let asking = async {
        loop {
            let answer = ask().await;
            if is_so(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it becomes so")
}

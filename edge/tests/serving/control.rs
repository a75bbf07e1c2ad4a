//! A control that listens to what an edge says, and does not always answer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use edge::http::Protocol;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    origin::Object,
    support::{get, start_with},
};

/// What came: method and path, secret, message.
type Said = (String, String, Value);

struct Control {
    addr: SocketAddr,
    said: mpsc::UnboundedReceiver<Said>,
    statuses: Arc<Mutex<Vec<u16>>>,
}

impl Control {
    /// Answers with `statuses`, and then with 204.
    async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let addr = listener.local_addr().expect("bound");
        let (sender, said) = mpsc::unbounded_channel();
        let statuses = Arc::new(Mutex::new(statuses.to_vec()));
        let answers = statuses.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                tokio::spawn(listen(stream, sender.clone(), answers.clone()));
            }
        });
        Self { addr, said, statuses }
    }

    async fn next(&mut self) -> Said {
        self.said.recv().await.expect("an edge speaks")
    }
}

async fn listen(mut stream: TcpStream, sender: mpsc::UnboundedSender<Said>, statuses: Arc<Mutex<Vec<u16>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).expect("text");
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        let mut body = vec![0; header("content-length: ").parse().unwrap_or(0)];
        stream.read_exact(&mut body).await.expect("a message");
        let line = head.lines().next().expect("a line").trim_end_matches(" HTTP/1.1").to_owned();
        let said = (line, header("authorization: "), serde_json::from_slice(&body).expect("JSON"));
        let status = { statuses.lock().expect("no panic").pop().unwrap_or(204) };
        let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
        if sender.send(said).is_err() || stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn config(control: &Control) -> String {
    format!("[control]\nurl = \"http://{}\"\ntoken_file = \"DIR/edge.token\"\nreport_every = \"100ms\"\n", control.addr)
}

#[tokio::test]
async fn an_edge_registers_reports_and_says_when_it_drains() {
    let mut control = Control::start(&[]).await;
    let edge = start_with(&config(&control)).await;
    let (line, secret, registration) = control.next().await;
    assert_eq!((line.as_str(), secret.as_str()), ("PUT /fleet/edges/edge-a", "Bearer the-secret-of-edges"));
    let expected = json!({ "site": "site-1", "url": "https://edge.example", "version": env!("CARGO_PKG_VERSION") });
    assert_eq!(registration, expected);
    let (line, _, report) = control.next().await;
    assert_eq!((line.as_str(), &report["health"]), ("POST /fleet/edges/edge-a/reports", &json!("ready")));

    edge.origin.put("/titles/t/a", Object::new(1000, 1));
    let connection = edge.connect(Protocol::Http2).await;
    assert_eq!(get(&connection, &edge.signed("/titles/t/a")).await.status, StatusCode::OK);
    let report = loop {
        let (_, _, report) = control.next().await;
        if report["requests"] == 1 {
            break report;
        }
    };
    assert_eq!((&report["bytesSent"], &report["bytesFilled"], &report["connections"]), (&json!(1000), &json!(1000), &json!(1)));
    assert_eq!(report["ramBytesMax"], 16 << 20);

    *control.statuses.lock().expect("no panic") = vec![204, 204, 404];
    let mut forgotten = control.next().await.0;
    while forgotten.starts_with("POST") {
        forgotten = control.next().await.0;
    }
    assert_eq!(forgotten, "PUT /fleet/edges/edge-a", "control forgot it, so it registers again");

    drop(connection);
    edge.stop().await;
    let mut last = None;
    while let Ok((_, _, report)) = control.said.try_recv() {
        last = Some(report);
    }
    assert_eq!(last.expect("a last word")["health"], "draining");
}

#[tokio::test]
async fn an_edge_serves_without_control_and_tells_it_when_it_comes() {
    let mut control = Control::start(&[503, 500]).await;
    let edge = start_with(&config(&control)).await;
    edge.origin.put("/titles/t/a", Object::new(1000, 1));
    let connection = edge.connect(Protocol::Http3).await;
    assert_eq!(get(&connection, &edge.signed("/titles/t/a")).await.status, StatusCode::OK);
    for expected in ["PUT", "PUT", "PUT", "POST"] {
        assert!(control.next().await.0.starts_with(expected), "it tries until it is registered, and then reports");
    }
    assert_eq!(edge.admin("/readyz").await.0, 200);
    edge.stop().await;
}

//! HTTP/1.1 without TLS, for networks that are trusted.

use edge::http::{Limits, Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Running, counted, pattern, soon, start};

/// Says `bytes` and reads to the end.
async fn said(server: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.plain_addr).await.expect("connects");
    stream.write_all(bytes).await.expect("writes");
    let mut answer = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn requests_are_answered_as_over_tls_but_nobody_is_sent_to_http3() {
    let server = start(Limits::default());
    let requests =
        "GET /bytes/1000000 HTTP/1.1\r\nhost: a\r\n\r\nGET /who HTTP/1.1\r\nhost: edge.example\r\nconnection: close\r\n\r\n";
    let answer = said(&server, requests.as_bytes()).await;
    let head_bytes = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let (head, rest) = answer.split_at(head_bytes);
    let head = String::from_utf8_lossy(head).to_lowercase();
    assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("\r\ncontent-length: 1000000\r\n"), "{head}");
    assert!(!head.contains("alt-svc"), "{head}");
    let (body, second) = rest.split_at(1_000_000);
    assert!(body == pattern(1_000_000));
    assert!(second.ends_with(b"\r\n\r\nhttp/1.1 GET edge.example /who from 127.0.0.1"), "{:?}", String::from_utf8_lossy(second));
    let counters = server.counters.of(Protocol::Http1);
    assert_eq!((counters.connections.value(), counters.requests.value()), (1, 2));
    server.stop().await;
}

#[tokio::test]
async fn neither_http2_nor_tls_is_spoken_there() {
    let server = start(Limits::default());
    let preface = said(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(preface.is_empty() || preface.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&preface));
    let hello = said(&server, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await;
    assert!(hello.is_empty() || hello.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&hello));
    assert_eq!(server.counters.of(Protocol::Http1).requests.value(), 0);
    server.stop().await;
}

#[tokio::test]
async fn the_same_limits_hold() {
    let limits = Limits { connections_max: 1, idle_timeout: std::time::Duration::from_millis(200), ..Limits::default() };
    let server = start(limits);
    let mut first = TcpStream::connect(server.plain_addr).await.expect("connects");
    counted("the first is taken", &server.counters.of(Protocol::Http1).connections, 1).await;
    let mut byte = [0];
    // The place may be free again by then, if this machine is slow; then it is idleness that ends the second as well.
    let mut second = TcpStream::connect(server.plain_addr).await.expect("connects");
    assert!(matches!(soon("the second ends", second.read(&mut byte)).await, Ok(0) | Err(_)));
    assert!(matches!(soon("the first ends for idleness", first.read(&mut byte)).await, Ok(0) | Err(_)));
    counted("it is counted", &server.counters.timed_out, 1).await;
    server.stop().await;
}

//! Clients that take more than their share.

use std::time::Duration;

use edge::http::{Limits, Protocol, client::Connection};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Running, fetch, fetch_as, start};

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_counted() {
    let server = start(Limits { header_bytes_max: 8 << 10, ..Limits::default() });
    let mut headers = HeaderMap::new();
    headers.insert("x-large", HeaderValue::from_bytes(&[b'a'; 40_000]).expect("a value"));
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        match fetch_as(&connection, Method::GET, "/bytes/1", headers.clone()).await {
            Ok((head, _)) => assert_eq!(head.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{protocol:?}"),
            Err(error) => println!("{protocol:?}: {error}"),
        }
        assert!(fetch(&server.connect(protocol).await, "/bytes/1").await.is_ok(), "{protocol:?}");
        assert_eq!(
            server.counters.of(protocol).requests.value(),
            if protocol == Protocol::Http3 { 2 } else { 1 },
            "{protocol:?}"
        );
    }
    assert!(server.counters.heads_too_large.value() >= 1);
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_or_a_head_that_never_ends_is_cut_off() {
    let limit = Duration::from_millis(100);
    let server = start(Limits { header_timeout: limit, idle_timeout: limit, ..Limits::default() });
    let mut silent = tokio::net::TcpStream::connect(server.addr).await.expect("connects");
    let mut none = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), silent.read(&mut none)).await.expect("cut off");
    assert!(matches!(read, Ok(0) | Err(_)));

    let mut tls = raw_http1(&server).await;
    tls.write_all(b"GET /bytes/1 HTTP/1.1\r\nhost: a\r\nx-slow: ").await.expect("writes");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), tls.read_to_end(&mut answer)).await.expect("cut off");
    println!("{read:?} {}", String::from_utf8_lossy(&answer));
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(server.counters.timed_out.value() >= 2, "both are counted");
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_counted() {
    let server = start(Limits { connections_max: 2, ..Limits::default() });
    let (one, two) = (server.connect(Protocol::Http2).await, server.connect(Protocol::Http3).await);
    assert!(fetch(&one, "/bytes/1").await.is_ok() && fetch(&two, "/bytes/1").await.is_ok());
    for (refused, protocol) in Protocol::ALL.into_iter().enumerate() {
        let third = Connection::connect(protocol, server.addr, "127.0.0.1", server.client_tls.clone()).await;
        let answered = match &third {
            Ok(connection) => fetch(connection, "/bytes/1").await.is_ok(),
            Err(_) => false,
        };
        assert!(!answered, "{protocol:?}");
        assert_eq!(server.counters.refused_connections.value(), refused as u64 + 1, "{protocol:?}");
    }
    assert!(fetch(&one, "/bytes/1").await.is_ok() && fetch(&two, "/bytes/1").await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let server = start(Limits { write_stall_max: Duration::from_millis(200), ..Limits::default() });
    for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
        let connection = server.connect(protocol).await;
        let (_, body) = connection.send(Method::GET, "edge", "/sevens/200000000", HeaderMap::new()).await.expect("an answer");
        let given_up = tokio::time::timeout(Duration::from_secs(10), async {
            while server.counters.stalled.value() <= number as u64 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        given_up.await.unwrap_or_else(|_| panic!("{protocol:?}"));
        drop(body);
    }
    server.stop().await;
}

async fn raw_http1(server: &Running) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let tcp = tokio::net::TcpStream::connect(server.addr).await.expect("connects");
    let name = "127.0.0.1".try_into().expect("a name");
    tokio_rustls::TlsConnector::from(server.client_tls.clone()).connect(name, tcp).await.expect("shakes hands")
}

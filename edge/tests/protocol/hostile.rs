//! Clients that take more than their share.

use std::time::Duration;

use edge::http::{Limits, Protocol, client::Connection};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{counted, fetch, fetch_as, soon, start};

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_counted() {
    let server = start(Limits { header_bytes_max: 8 << 10, ..Limits::default() });
    let large = |bytes| HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from("a".repeat(bytes)).expect("a value"))]);
    for (number, protocol) in (1..).zip(Protocol::ALL) {
        let connection = server.connect(protocol).await;
        assert!(fetch_as(&connection, Method::GET, "/bytes/1", large(8000)).await.is_ok(), "{protocol:?}: below the limit");
        let (head, _) = fetch_as(&connection, Method::GET, "/bytes/1", large(9000)).await.expect("an answer");
        assert_eq!(head.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{protocol:?}");
        assert!(fetch(&connection, "/bytes/1").await.is_ok(), "{protocol:?}: the connection goes on");
        assert_eq!(server.counters.heads_too_large.value(), number, "{protocol:?}");
    }
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        let huge = soon("an end", fetch_as(&connection, Method::GET, "/bytes/1", large(1_000_000))).await;
        let status = huge.map(|(head, _)| head.status);
        assert!(
            status.as_ref().map_or(true, |status| *status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            "{protocol:?} {status:?}"
        );
    }
    server.stop().await;
}

/// h3 keeps a HEADERS frame until it is whole: a client must not get a gigabyte of memory for saying that one is coming.
#[tokio::test]
async fn an_http3_head_of_any_announced_length_takes_no_more_memory_than_a_head_may() {
    let server = start(Limits { header_bytes_max: 8 << 10, ..Limits::default() });
    let (_endpoint, quinn) = server.raw_quic().await;
    let (mut send, _recv) = quinn.open_bi().await.expect("a stream");
    // HEADERS, 2^30 - 1 bytes.
    send.write_all(&[1, 0xbf, 0xff, 0xff, 0xff]).await.expect("writes");
    let chunk = [0; 10_000];
    let written = async {
        let mut written = 0;
        while send.write_all(&chunk).await.is_ok() {
            written += chunk.len();
        }
        written
    };
    let written = soon("the server gives up", written).await;
    assert!(written < 1 << 20, "{written} bytes were taken");
    counted("the head", &server.counters.heads_too_large, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_or_a_head_that_never_ends_is_cut_off() {
    let server = start(Limits { header_timeout: Duration::from_millis(200), ..Limits::default() });
    let mut silent = TcpStream::connect(server.addr).await.expect("connects");
    let read = soon("the handshake", silent.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    counted("the handshake", &server.counters.timed_out, 1).await;

    let mut slow = server.raw_tls(Protocol::Http1).await;
    slow.write_all(b"GET /bytes/1 HTTP/1.1\r\nhost: a\r\nx-slow: ").await.expect("writes");
    let drip = async {
        let (mut reads, mut writes) = tokio::io::split(slow);
        let dripping = async {
            while writes.write_all(b"a").await.is_ok() && writes.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut answer = Vec::new();
        tokio::select! {
            () = dripping => {}
            _ = reads.read_to_end(&mut answer) => {}
        }
        answer
    };
    assert_eq!(soon("the head", drip).await, b"", "a byte now and then does not help");
    counted("the head", &server.counters.timed_out, 2).await;

    let (_endpoint, quinn) = server.raw_quic().await;
    let (mut send, mut recv) = quinn.open_bi().await.expect("a stream");
    send.write_all(&[1, 10, 0]).await.expect("writes");
    assert_eq!(soon("the stream", recv.read_to_end(1000)).await.expect("ended"), b"");
    counted("the stream", &server.counters.timed_out, 3).await;
    server.stop().await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let server = start(Limits { idle_timeout: Duration::from_millis(300), ..Limits::default() });
    for (number, protocol) in (1..).zip(Protocol::ALL) {
        let connection = server.connect(protocol).await;
        assert!(fetch(&connection, "/bytes/1").await.is_ok());
        if protocol != Protocol::Http3 {
            counted("its end", &server.counters.timed_out, number).await;
        }
        // QUIC's own timeout is as long, and the first to notice ends it.
        soon("no more", async {
            while server.counters.open() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
        })
        .await;
    }
    let mut wordless = server.raw_tls(Protocol::Http2).await;
    let mut said = Vec::new();
    let _ = soon("a client of HTTP/2 that says nothing", wordless.read_to_end(&mut said)).await;
    soon("its place is free", async {
        while server.counters.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    })
    .await;
    server.stop().await;
}

/// CVE-2023-44487.
#[tokio::test]
async fn a_flood_of_http2_resets_ends_the_connection() {
    let server = start(Limits::default());
    let mut tls = server.raw_tls(Protocol::Http2).await;
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    for stream in (1_u32..4000).step_by(2) {
        // GET, https, /, and the authority "a", all without indexing (RFC 7541 §B); then RST_STREAM with CANCEL.
        flood.extend_from_slice(&[0, 0, 6, 1, 5]);
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(&[0x82, 0x87, 0x84, 0x01, 1, b'a']);
        flood.extend_from_slice(&[0, 0, 4, 3, 0]);
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(&[0, 0, 0, 8]);
    }
    let _ = tls.write_all(&flood).await;
    let _ = soon("its end", tls.read_to_end(&mut Vec::new())).await;
    counted("the flood", &server.counters.floods, 1).await;
    assert!(fetch(&server.connect(Protocol::Http2).await, "/bytes/1").await.is_ok(), "others are served");
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_http3_streams_without_a_request_ends_the_connection() {
    let server = start(Limits::default());
    let (_endpoint, quinn) = server.raw_quic().await;
    let flood = async {
        while let Ok((mut send, _recv)) = quinn.open_bi().await {
            let _ = send.reset(0_u32.into());
        }
    };
    soon("its end", flood).await;
    match quinn.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, 0x107_u32.into(), "H3_EXCESSIVE_LOAD"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.counters.floods.value(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_quic_client_shows_its_address_once_places_are_scarce() {
    let server = start(Limits { connections_max: 4, ..Limits::default() });
    let first = server.connect(Protocol::Http3).await;
    assert_eq!(server.counters.retries.value(), 0);
    let others = [server.connect(Protocol::Http2).await, server.connect(Protocol::Http2).await];
    let asked = server.connect(Protocol::Http3).await;
    assert_eq!(server.counters.retries.value(), 1);
    for connection in others.iter().chain([&first, &asked]) {
        assert!(fetch(connection, "/bytes/1").await.is_ok());
    }
    assert_eq!(server.counters.refused_connections.value(), 0);
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
        counted("given up", &server.counters.stalled, number as u64 + 1).await;
        drop(body);
    }
    server.stop().await;
}

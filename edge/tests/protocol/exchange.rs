//! Requests and answers as they should be.

use edge::http::{Limits, Protocol};
use futures_util::future;
use http::{HeaderMap, Method, StatusCode, header};

use crate::support::{fetch, fetch_as, pattern, start, trusting, write_certificate};

#[tokio::test]
async fn a_body_of_many_chunks_arrives_exactly() {
    let server = start(Limits::default());
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        for length in [0, 1, 63, 64, 16_383, 16_384, 5_000_000] {
            let (head, bytes) = fetch(&connection, &format!("/bytes/{length}")).await.expect("an answer");
            assert_eq!(head.status, StatusCode::OK);
            assert_eq!(head.headers[header::CONTENT_LENGTH], length.to_string(), "{protocol:?}");
            assert!(bytes == pattern(length), "{protocol:?} {length}");
        }
        assert_eq!(server.counters.of(protocol).connections.value(), 1);
        assert_eq!(server.counters.of(protocol).requests.value(), 7);
    }
    server.stop().await;
}

#[tokio::test]
async fn all_protocols_hand_on_the_same_request() {
    let server = start(Limits::default());
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        let (head, bytes) = fetch(&connection, "/headers?a=1&b=%20").await.expect("an answer");
        let expected = format!("{} GET edge.example /headers?a=1&b=%20", protocol.alpn());
        assert_eq!(String::from_utf8(bytes), Ok(expected));
        let alt_svc = head.headers.get(header::ALT_SVC).map(|value| value.to_str().expect("ASCII").to_owned());
        let expected = (protocol != Protocol::Http3).then(|| format!("h3=\":{}\"; ma=86400", server.addr.port()));
        assert_eq!(alt_svc, expected, "{protocol:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = start(Limits::default());
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        let (head, bytes) = fetch_as(&connection, Method::HEAD, "/bytes/1000", HeaderMap::new()).await.expect("an answer");
        assert_eq!((head.headers[header::CONTENT_LENGTH].as_bytes(), bytes.len()), (&b"1000"[..], 0), "{protocol:?}");
        let (_, bytes) = fetch(&connection, "/bytes/10").await.expect("the connection goes on");
        assert!(bytes == pattern(10), "{protocol:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_hundred_requests_go_side_by_side() {
    let server = start(Limits::default());
    for protocol in [Protocol::Http2, Protocol::Http3] {
        let connection = server.connect(protocol).await;
        let all = (0..100).map(|number| fetch(&connection, ["/bytes/70000", "/bytes/300000"][number % 2]));
        for (number, answer) in future::join_all(all).await.into_iter().enumerate() {
            let (_, bytes) = answer.expect("an answer");
            assert!(bytes == pattern([70_000, 300_000][number % 2]), "{protocol:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_a_short_success() {
    let server = start(Limits::default());
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        let error = fetch(&connection, "/broken/200000").await.expect_err("half of what was announced");
        println!("{protocol:?}: {error}");
        if protocol != Protocol::Http1 {
            let (_, bytes) = fetch(&connection, "/bytes/10").await.expect("only the stream broke");
            assert!(bytes == pattern(10));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let server = start(Limits::default());
    let kept = server.connect(Protocol::Http3).await;
    write_certificate(server.dir.path());
    server.tls.reload().expect("a certificate");
    let trusting_new = trusting(server.dir.path());
    for protocol in Protocol::ALL {
        let connect = edge::http::client::Connection::connect(protocol, server.addr, "127.0.0.1", trusting_new.clone());
        assert!(fetch(&connect.await.expect("the new one"), "/bytes/1").await.is_ok(), "{protocol:?}");
    }
    assert!(fetch(&kept, "/bytes/1").await.is_ok(), "connections go on");
    std::fs::write(server.dir.path().join("edge.crt"), "not a certificate").expect("writes");
    let error = server.tls.reload().expect_err("refused").to_string();
    assert!(error.contains("edge.crt") && error.contains("no PEM block with a certificate"), "{error}");
    drop(kept);
    server.stop().await;
}

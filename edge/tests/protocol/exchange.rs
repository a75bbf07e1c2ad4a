//! Requests and answers as they should be.

use bytes::BufMut;
use edge::http::{Limits, Protocol, client::Connection};
use futures_util::future;
use http::{HeaderMap, Method, StatusCode, header};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{fetch, fetch_as, pattern, soon, start, start_on, trusting, write_certificate};

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
        let expected = format!("{} GET edge.example /headers?a=1&b=%20 from 127.0.0.1", protocol.alpn());
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
async fn a_part_is_handed_on_as_a_part() {
    let server = start(Limits::default());
    for protocol in Protocol::ALL {
        let (head, bytes) = fetch(&server.connect(protocol).await, "/part/90000").await.expect("an answer");
        assert_eq!(head.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(head.headers[header::CONTENT_RANGE], "bytes 10-90009/1000000");
        assert_eq!(head.headers[header::CONTENT_LENGTH], "90000");
        assert!(bytes == pattern(90_000), "{protocol:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn answers_that_may_have_no_body_send_none() {
    let server = start(Limits::default());
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            let (head, bytes) = fetch(&connection, &format!("/status/{}", status.as_u16())).await.expect("an answer");
            assert_eq!((head.status, bytes.len()), (status, 0), "{protocol:?}");
            assert!(!head.headers.contains_key(header::CONTENT_LENGTH), "{protocol:?} {:?}", head.headers);
        }
        let (_, bytes) = fetch(&connection, "/bytes/10").await.expect("the connection goes on");
        assert!(bytes == pattern(10), "{protocol:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn http1_writes_these_bytes() {
    let server = start(Limits::default());
    let mut tls = server.raw_tls(Protocol::Http1).await;
    let requests = "GET /part/3 HTTP/1.1\r\nhost: a\r\n\r\nHEAD /bytes/5 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    tls.write_all(requests.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    soon("both answers", tls.read_to_end(&mut answer)).await.expect("closed by TLS' own end");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let without_dates: Vec<_> = answer.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
    let alt_svc = format!("alt-svc: h3=\":{}\"; ma=86400", server.addr.port());
    let part = String::from_utf8_lossy(&pattern(3)).into_owned();
    let expected = [
        "HTTP/1.1 206 Partial Content",
        "content-range: bytes 10-12/1000000",
        "content-length: 3",
        &alt_svc,
        "",
        &format!("{part}HTTP/1.1 200 OK"),
        "content-length: 5",
        &alt_svc,
        "connection: close",
        "",
        "",
    ];
    assert_eq!(without_dates, expected);
    server.stop().await;
}

#[tokio::test]
async fn ipv6_and_ipv4_come_to_one_address() {
    let server = start_on("[::]:0", Limits::default());
    let port = server.addr.port();
    for protocol in Protocol::ALL {
        for (ip, name) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
            let addr = format!("{ip}:{port}").parse().expect("an address");
            let connection = Connection::connect(protocol, addr, "127.0.0.1", server.client_tls.clone()).await.expect("connects");
            let (_, said) = fetch(&connection, "/").await.expect("an answer");
            let said = String::from_utf8(said).expect("UTF-8");
            assert!(said.ends_with(&format!(" from {name}")), "{said}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_quic_client_that_changes_its_address_is_found_again() {
    let server = start(Limits::default());
    // Without steering each has one chance in two to come to the wrong worker.
    for _ in 0..8 {
        let (endpoint, quinn) = server.raw_quic().await;
        let transport = edge::http::h3::Connection::new(edge::http::h3::Quinn::new(quinn), edge::http::h3::ReadLimits::NONE);
        let (_connection, mut sender) = h3::client::new(transport).await.expect("HTTP/3");
        for rebind in [false, true] {
            if rebind {
                endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").expect("binds")).expect("another socket");
            }
            let request = http::Request::get("https://edge/bytes/100000").body(()).expect("a request");
            let mut stream = sender.send_request(request).await.expect("sends");
            stream.finish().await.expect("sends");
            soon("an answer", stream.recv_response()).await.expect("an answer");
            let mut bytes = Vec::new();
            while let Some(chunk) = soon("the rest", stream.recv_data()).await.expect("comes") {
                bytes.put(chunk);
            }
            assert!(bytes == pattern(100_000));
        }
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
        let broke = async {
            // HTTP/2 may send the reset before anything else.
            let Ok((head, mut body)) = connection.send(Method::GET, "edge", "/broken/200000", HeaderMap::new()).await else {
                return;
            };
            assert_eq!(head.headers[header::CONTENT_LENGTH], "400000");
            loop {
                match body.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return,
                    None => panic!("{protocol:?}: half of what was announced is taken for all"),
                }
            }
        };
        soon("the break", broke).await;
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
        let connect = Connection::connect(protocol, server.addr, "127.0.0.1", trusting_new.clone());
        assert!(fetch(&connect.await.expect("the new one"), "/bytes/1").await.is_ok(), "{protocol:?}");
    }
    assert!(fetch(&kept, "/bytes/1").await.is_ok(), "connections go on");
    std::fs::write(server.dir.path().join("edge.crt"), "not a certificate").expect("writes");
    let error = server.tls.reload().expect_err("refused").to_string();
    assert!(error.contains("edge.crt") && error.contains("no PEM block with a certificate"), "{error}");
    drop(kept);
    server.stop().await;
}

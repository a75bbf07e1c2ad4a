//! HTTP/1.1 that two readers could read in two ways (RFC 9112 §11.2), and HTTP/1.1 that is none. Whatever comes after such a request on its
//! connection is not read as a request.

use edge::http::{Limits, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Running, counted, fetch, patient, start};

/// Sends bytes, and reads until the end.
async fn say(server: &Running, bytes: &[u8]) -> String {
    let mut tls = server.raw_tls(Protocol::Http1).await;
    tls.write_all(bytes).await.expect("writes");
    tls.flush().await.expect("writes");
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = patient("an end", tls.read(&mut chunk)).await {
        said.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8(said).expect("text")
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http1).await;
    let mut malformed = 0;
    for (what, request) in [
        ("no host", "GET /a HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET /a HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("a user in the host", "GET /a HTTP/1.1\r\nhost: b@a\r\n\r\n"),
        ("a host that is none", "GET /a HTTP/1.1\r\nhost: a b\r\n\r\n"),
        ("a line that ends with LF alone", "GET /a HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"),
        ("a head that ends with LF alone", "GET /a HTTP/1.1\nhost: a\n\n"),
        ("a space before the colon", "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\n"),
        ("a folded line", "GET /a HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n"),
        ("a first line that is folded", "GET /a HTTP/1.1\r\n host: a\r\n\r\n"),
        ("a CR in a value", "GET /a HTTP/1.1\r\nhost: a\r\nx: y\rz\r\n\r\n"),
        ("a NUL in a value", "GET /a HTTP/1.1\r\nhost: a\r\nx: y\0z\r\n\r\n"),
        ("a name that is none", "GET /a HTTP/1.1\r\nhost: a\r\nx(y: z\r\n\r\n"),
        ("no name", "GET /a HTTP/1.1\r\nhost: a\r\n: z\r\n\r\n"),
        ("two lengths", "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 38\r\n\r\n"),
        ("two lengths in one", "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0, 38\r\n\r\n"),
        ("a length with a sign", "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: +0\r\n\r\n"),
        ("a length of more than can be", "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n"),
        ("a coding that is unknown", "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n"),
        ("chunked, but not last", "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n"),
        ("chunks in HTTP/1.0", "POST /a HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("a version that is none", "GET /a HTTP/9.1\r\nhost: a\r\n\r\n"),
        ("words", "what do you want?\r\n\r\n"),
    ] {
        let said = say(&server, format!("{request}{SMUGGLED}").as_bytes()).await;
        malformed += 1;
        assert!(said.starts_with("HTTP/1.1 400 ") || said.starts_with("HTTP/1.0 400 "), "{what}: {said}");
        assert_eq!(said.matches("HTTP/1.").count(), 1, "{what}: {said}");
        counted(what, &server.counters.malformed, malformed).await;
        assert!(fetch(&witness, "/bytes/1").await.is_ok(), "{what}: others are served");
    }
    assert_eq!(server.counters.malformed.value(), malformed, "each once");
    assert_eq!(server.counters.of(Protocol::Http1).requests.value(), malformed, "the witness's alone reached what answers");
    server.stop().await;
}

#[tokio::test]
async fn a_request_with_content_is_refused_and_nothing_after_it_is_read() {
    let server = start(Limits::default());
    for (number, (what, request)) in (1..).zip([
        ("a length", "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"),
        ("the same length twice", "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
        ("chunks", "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "length, then chunks",
            "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks, then length",
            "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        ),
        ("content that is asked for", "PUT /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"),
    ]) {
        let said = say(&server, format!("{request}{SMUGGLED}").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("connection: close\r\n"), "{what}: {said}");
        assert_eq!(said.matches("HTTP/1.").count(), 1, "{what}: {said}");
        assert_eq!(server.counters.contents.value(), number, "{what}");
    }
    assert_eq!(server.counters.of(Protocol::Http1).requests.value(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_request_may_say_that_it_has_no_content_and_one_of_http_1_0_need_not_name_a_host() {
    let server = start(Limits::default());
    let none = "GET /bytes/3 HTTP/1.1\r\nhost:\r\ncontent-length: 0\r\n\r\n";
    let said = say(&server, format!("{none}{none}GET /bytes/3 HTTP/1.0\r\n\r\n").as_bytes()).await;
    assert_eq!(said.matches(" 200 OK\r\n").count(), 3, "{said}");
    assert_eq!(server.counters.malformed.value() + server.counters.contents.value(), 0);
    server.stop().await;
}

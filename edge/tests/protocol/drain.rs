//! The end of a server, and of a client.

use std::{sync::atomic::Ordering, time::Duration};

use edge::http::{Limits, Protocol};
use http::{HeaderMap, Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Running, fetch, soon, start};

/// What ends a server's life: a drain, or another process that takes over.
const ENDS: [fn(&Running); 2] = [|server| server.drain.cancel(), |server| server.orderer.leave()];

#[tokio::test]
async fn a_drain_finishes_what_is_being_sent_and_takes_nothing_new() {
    for protocol in Protocol::ALL {
        let server = start(Limits::default());
        let connection = server.connect(protocol).await;
        let (_, mut body) = connection.send(Method::GET, "edge", "/gated", HeaderMap::new()).await.expect("an answer");
        server.echo.gated.notified().await;
        server.drain.cancel();
        let refused = tokio::time::timeout(Duration::from_secs(10), async {
            while let Ok(connection) =
                edge::http::client::Connection::connect(protocol, server.addr, "127.0.0.1", server.client_tls.clone()).await
            {
                drop(connection);
                tokio::task::yield_now().await;
            }
        });
        refused.await.expect("no new connection once it drains");
        if protocol != Protocol::Http1 {
            // What it asked before the news reached it is answered.
            soon("no new request either", async { while fetch(&connection, "/bytes/1").await.is_ok() {} }).await;
        }
        assert!(!server.task.is_finished());
        server.echo.gate.notify_one();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.expect("the rest comes"));
        }
        assert_eq!(bytes, b"0123456789abcdefghij", "{protocol:?}");
        let ended = tokio::time::timeout(Duration::from_secs(10), server.task).await.expect("ends by itself");
        ended.expect("no panic").expect("ends well");
    }
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_all_the_same() {
    for protocol in Protocol::ALL {
        let server = start(Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() });
        let connection = server.connect(protocol).await;
        let answer = connection.send(Method::GET, "edge", "/gated", HeaderMap::new()).await.expect("an answer");
        server.echo.gated.notified().await;
        tokio::time::timeout(Duration::from_secs(10), server.stop()).await.expect("ends");
        drop(answer);
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_body_at_once() {
    let server = start(Limits::default());
    for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
        let connection = server.connect(protocol).await;
        let (_, body) = connection.send(Method::GET, "edge", "/gated", HeaderMap::new()).await.expect("an answer");
        server.echo.gated.notified().await;
        let dropped = &server.echo.dropped;
        assert_eq!(dropped.count.load(Ordering::SeqCst), number as u64);
        drop(body);
        if protocol == Protocol::Http1 {
            drop(connection);
        }
        let freed = tokio::time::timeout(Duration::from_secs(10), dropped.notify.notified());
        freed.await.unwrap_or_else(|_| panic!("{protocol:?}: the body waits for bytes that nobody wants"));
    }
    assert!(fetch(&server.connect(Protocol::Http2).await, "/bytes/1").await.is_ok());
    server.stop().await;
}

/// RFC 9112 §9.6.
#[tokio::test]
async fn the_last_answer_of_http1_says_that_the_connection_closes() {
    for end in ENDS {
        let server = start(Limits::default());
        let mut asking = server.raw_tls(Protocol::Http1).await;
        asking.write_all(b"GET /bytes/3 HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("asks");
        let mut answer = vec![0; 4096];
        let length = soon("an answer", asking.read(&mut answer)).await.expect("reads");
        assert!(!String::from_utf8_lossy(&answer[..length]).contains("connection: close"));
        asking.write_all(b"GET /bytes/3 HTTP/1.1\r\nhost: a\r\nx-half").await.expect("asks");
        // The server has seen that there is one more request, or it would have closed the connection already.
        asking.flush().await.expect("asks");
        let other = server.connect(Protocol::Http2).await;
        assert!(fetch(&other, "/bytes/1").await.is_ok());
        end(&server);
        let said = async {
            let _ = asking.write_all(b": 1\r\n\r\n").await;
            let mut said = Vec::new();
            let _ = asking.read_to_end(&mut said).await;
            String::from_utf8_lossy(&said).into_owned()
        };
        let said = soon("the end", said).await;
        // A drain may close a connection that was idle when it came to it; who takes over from another closes none.
        let is_drain = server.drain.is_cancelled();
        assert!(said.contains("connection: close\r\n") || is_drain && said.is_empty(), "{said:?}");
        drop((asking, other));
        soon("its end", server.task).await.expect("no panic").expect("ends well");
    }
}

#[tokio::test]
async fn a_connection_of_http1_that_was_not_asked_yet_is_answered_when_another_process_takes_over() {
    let server = start(Limits::default());
    let (fresh, used) = (server.connect(Protocol::Http1).await, server.connect(Protocol::Http1).await);
    assert!(fetch(&used, "/bytes/1").await.is_ok());
    server.orderer.leave();
    let refused = async { while tokio::net::TcpStream::connect(server.addr).await.is_ok() {} };
    soon("nobody new", refused).await;
    for connection in [&fresh, &used] {
        let (head, body) = fetch(connection, "/bytes/1000").await.expect("an answer");
        assert_eq!((head.headers["connection"].as_bytes(), body.len()), (&b"close"[..], 1000));
    }
    soon("its end", server.task).await.expect("no panic").expect("ends well");
}

/// RFC 9113 §6.8.
#[tokio::test]
async fn http2_says_goaway_and_finishes_what_was_asked() {
    for end in ENDS {
        let server = start(Limits::default());
        let stream = server.raw_tls(Protocol::Http2).await;
        let (requests, connection) = h2::client::handshake(stream).await.expect("a connection");
        let ended = tokio::spawn(connection);
        let request = |path: &str| Request::get(format!("https://a{path}")).body(()).expect("a request");
        let mut requests = requests.ready().await.expect("open");
        let (answer, _) = requests.send_request(request("/gated"), true).expect("asks");
        let mut body = answer.await.expect("an answer").into_body();
        server.echo.gated.notified().await;
        end(&server);
        let told = async {
            loop {
                requests = match requests.clone().ready().await {
                    Ok(requests) => requests,
                    Err(error) => return error,
                };
                tokio::task::yield_now().await;
            }
        };
        let told = soon("GOAWAY", told).await;
        assert!(told.is_go_away() && told.is_remote() && told.reason() == Some(h2::Reason::NO_ERROR), "{told:?}");
        server.echo.gate.notify_one();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            bytes.extend_from_slice(&chunk.expect("the rest comes"));
        }
        assert_eq!(bytes, b"0123456789abcdefghij");
        drop((body, requests));
        // Both sides close it now; whose word does not arrive is chance.
        let _ = soon("its end", ended).await.expect("no panic");
        soon("its end", server.task).await.expect("no panic").expect("ends well");
    }
}

/// RFC 9114 §5.2.
#[tokio::test]
async fn http3_says_goaway_twice_and_finishes_what_was_asked() {
    for end in ENDS {
        let server = start(Limits::default());
        let (_endpoint, quinn) = server.raw_quic().await;
        let (mut send, mut answer) = quinn.open_bi().await.expect("a stream");
        send.write_all(&headers("/gated")).await.expect("asks");
        send.finish().expect("asks");
        server.echo.gated.notified().await;
        let mut control = control_stream(&quinn).await;
        end(&server);
        // The largest ID that a client's request can have, and then the one after its only request.
        assert_eq!(goaway(&mut control).await, (1 << 62) - 4);
        assert_eq!(goaway(&mut control).await, 4);
        let (mut send, mut rejected) = quinn.open_bi().await.expect("a stream");
        send.write_all(&headers("/bytes/1")).await.expect("asks");
        send.finish().expect("asks");
        match soon("a refusal", rejected.read_to_end(1000)).await {
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => assert_eq!(code, 0x10b_u32.into()),
            other => panic!("{other:?}"),
        }
        server.echo.gate.notify_one();
        let answer = soon("the rest", answer.read_to_end(1000)).await.expect("the whole answer");
        assert!(answer.ends_with(b"0123456789abcdefghij"), "{answer:?}");
        closed_well(&quinn).await;
        soon("its end", server.task).await.expect("no panic").expect("ends well");
    }
}

#[tokio::test]
async fn a_connection_of_http3_that_was_asked_nothing_is_closed_without_an_error() {
    for end in ENDS {
        let server = start(Limits::default());
        let (_endpoint, quinn) = server.raw_quic().await;
        // Only now the server's side of the handshake is over, too.
        let _control = control_stream(&quinn).await;
        end(&server);
        closed_well(&quinn).await;
        soon("its end", server.task).await.expect("no panic").expect("ends well");
    }
}

/// A HEADERS frame, of fields that are in QPACK's static table (RFC 9204 §A) but for the values of `:path` and `:authority`.
fn headers(path: &str) -> Vec<u8> {
    const GET: u8 = 0xc0 | 17;
    const HTTPS: u8 = 0xc0 | 23;
    let fields = [&[0, 0, GET, HTTPS, 0x50, 1, b'a', 0x51, path.len() as u8], path.as_bytes()].concat();
    [&[1, fields.len() as u8][..], &fields].concat()
}

/// The server's control stream, after its type.
async fn control_stream(quinn: &quinn::Connection) -> quinn::RecvStream {
    let find = async {
        loop {
            let mut stream = quinn.accept_uni().await.expect("a stream");
            if integer(&mut stream).await == 0 {
                return stream;
            }
        }
    };
    soon("a control stream", find).await
}

/// The ID in the next GOAWAY frame.
async fn goaway(control: &mut quinn::RecvStream) -> u64 {
    let find = async {
        loop {
            let (kind, length) = (integer(control).await, integer(control).await);
            if kind == 7 {
                return integer(control).await;
            }
            control.read_exact(&mut vec![0; length as usize]).await.expect("a frame");
        }
    };
    soon("GOAWAY", find).await
}

/// RFC 9000 §16.
async fn integer(stream: &mut quinn::RecvStream) -> u64 {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes[..1]).await.expect("a byte");
    let length = 1 << (bytes[0] >> 6);
    bytes[0] &= 0x3f;
    stream.read_exact(&mut bytes[1..length]).await.expect("the rest");
    bytes[..length].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// With H3_NO_ERROR.
async fn closed_well(quinn: &quinn::Connection) {
    match soon("its end", quinn.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, 0x100_u32.into()),
        other => panic!("{other:?}"),
    }
}

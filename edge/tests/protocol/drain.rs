//! The end of a server, and of a client.

use std::{sync::atomic::Ordering, time::Duration};

use edge::http::{Limits, Protocol};
use http::{HeaderMap, Method};

use crate::support::{fetch, soon, start};

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

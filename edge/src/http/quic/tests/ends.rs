//! How connections begin, and how they and the endpoint end.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::{Served, Setting, answer_all, code, next_stream, patient, soon};
use crate::http::quic::ConnectionError;

#[tokio::test]
async fn a_client_shows_that_it_is_where_it_says_if_it_is_asked_to() {
    let served = Served::new(Setting::default());
    let (client, connection) = tokio::join!(served.connect(), async {
        let first = soon("a client", served.endpoint.accept()).await.expect("the endpoint is open");
        assert!(!first.remote_address_validated());
        let addr = first.remote_address();
        first.retry();
        let second = soon("again", served.endpoint.accept()).await.expect("the endpoint is open");
        assert!(second.remote_address_validated());
        assert_eq!(second.remote_address(), addr);
        soon("a handshake", second.accept()).await.expect("a connection")
    });
    tokio::spawn(answer_all(connection));
    client.fetch(10_000).await;
}

#[tokio::test]
async fn a_client_that_is_refused_is_told_and_one_that_is_ignored_tries_again() {
    let served = Served::new(Setting::default());
    for dropped in [false, true] {
        let (refused, ()) = tokio::join!(attempt(&served), async {
            let incoming = soon("a client", served.endpoint.accept()).await.expect("the endpoint is open");
            if dropped { drop(incoming) } else { incoming.refuse() }
        });
        match refused {
            Err(ConnectionError::ConnectionClosed(close)) => {
                assert_eq!(close.error_code, quinn_proto::TransportErrorCode::CONNECTION_REFUSED);
            }
            other => panic!("{other:?}"),
        }
    }
    let (client, connection) = tokio::join!(served.connect(), async {
        soon("a client", served.endpoint.accept()).await.expect("the endpoint is open").ignore();
        served.accept().await
    });
    drop((client, connection));
    served.emptied().await;
}

#[tokio::test]
async fn the_last_handle_that_is_dropped_closes_the_connection() {
    let served = Served::new(Setting::default());
    let (client, connection) = served.pair(served.addr, patient()).await;
    let asked = client.ask(1).await;
    let halves = next_stream(&connection).await;
    let stopped = halves.0.stopped();
    drop((connection, halves));
    assert_eq!(client.connection.close_reason(), None, "who waits for a stream holds the connection");
    drop(stopped);
    match soon("its end", client.connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => assert_eq!((close.error_code, close.reason.len()), (code(0), 0)),
        other => panic!("{other:?}"),
    }
    drop(asked);
    served.emptied().await;
}

#[tokio::test]
async fn a_handshake_that_nobody_waits_for_any_more_is_given_up() {
    let served = Served::new(Setting::default());
    let (refused, ()) = tokio::join!(attempt(&served), async {
        let incoming = soon("a client", served.endpoint.accept()).await.expect("the endpoint is open");
        let mut handshake = Box::pin(incoming.accept());
        assert!(handshake.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(handshake);
    });
    assert!(refused.is_err());
    served.emptied().await;
}

#[tokio::test]
async fn an_endpoint_that_is_closed_closes_its_connections_and_takes_no_more() {
    let served = Served::new(Setting::default());
    let (client, connection) = served.pair(served.addr, patient()).await;
    let (other, other_connection) = served.pair(served.addr, patient()).await;
    let waiting = tokio::spawn({
        let endpoint = served.endpoint.clone();
        async move { endpoint.accept().await.is_none() }
    });
    tokio::task::yield_now().await;
    served.endpoint.close(code(0x100), b"bye");
    assert!(soon("no client", waiting).await.expect("no panic"));
    for connection in [&client.connection, &other.connection] {
        match soon("its end", connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!((close.error_code, &close.reason[..]), (code(0x100), &b"bye"[..]));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(connection.closed().await, ConnectionError::LocallyClosed);
    assert_eq!(other_connection.closed().await, ConnectionError::LocallyClosed);
    match attempt(&served).await {
        Err(ConnectionError::ConnectionClosed(close)) => {
            assert_eq!(close.error_code, quinn_proto::TransportErrorCode::CONNECTION_REFUSED);
        }
        other => panic!("{other:?}"),
    }
    // Handles hold nothing up.
    served.emptied().await;
}

#[tokio::test]
async fn connections_outlive_an_endpoint_that_is_dropped() {
    let served = Served::new(Setting::default());
    let (client, connection) = served.pair(served.addr, patient()).await;
    drop(served);
    let serving = tokio::spawn(answer_all(connection));
    client.fetch(200_000).await;
    client.connection.close(code(0), b"");
    soon("the server notices", serving).await.expect("no panic");
}

#[test]
fn handles_that_outlive_their_runtime_have_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let served = runtime.block_on(async { Served::new(Setting::default()) });
    let (client, connection) = runtime.block_on(served.pair(served.addr, patient()));
    drop(runtime);
    let mut closed = pin!(connection.closed());
    let over = closed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(over, Poll::Ready(ConnectionError::LocallyClosed)), "{over:?}");
    let mut accepting = pin!(served.endpoint.accept());
    assert!(matches!(accepting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(None)));
    drop(client);
}

async fn attempt(served: &Served) -> Result<quinn::Connection, ConnectionError> {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let config = served.client_config(patient());
    soon("an outcome", endpoint.connect_with(config, served.addr, "127.0.0.1").expect("an address")).await
}

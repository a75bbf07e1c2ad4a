//! Caps on what a connection is sent. Only that it takes long enough is asserted: no machine is too slow for that.

use std::time::{Duration, Instant};

use edge::http::{Cap, Congestion, Limits, Protocol};
use http::{HeaderMap, Method};

use crate::support::{fetch, pattern, soon, start};

#[tokio::test]
async fn a_connection_is_sent_no_more_than_its_cap_over_each_protocol() {
    const BYTES: u64 = 12_000_000;
    // The kernel lets the first ten segments of TCP go as they are, which are 64 KiB each on loopback.
    const AT_ONCE: u64 = 1_000_000;
    let server = start(Limits { connection_bits_per_second_max: Some(80_000_000), ..Limits::default() });
    for protocol in Protocol::ALL {
        let connection = server.connect(protocol).await;
        let started = Instant::now();
        let (_, mut body) =
            connection.send(Method::GET, "edge", &format!("/sevens/{BYTES}"), HeaderMap::new()).await.expect("an answer");
        let mut got = 0;
        while let Some(chunk) = soon("bytes", body.next()).await {
            got += chunk.expect("no error").len() as u64;
        }
        let least = Duration::from_secs_f64(0.9 * (BYTES - AT_ONCE) as f64 * 8.0 / 80e6);
        assert_eq!(got, BYTES);
        assert!(started.elapsed() >= least, "{protocol:?}: {:?}, and at least {least:?}", started.elapsed());
    }
    assert!(server.counters.paced(Cap::Connection).value() > BYTES / 2, "{:?}", server.counters.paced(Cap::Connection));
    server.stop().await;
}

#[tokio::test]
async fn a_cap_is_each_connections_own_and_changes_no_byte() {
    let server = start(Limits { connection_bits_per_second_max: Some(200_000_000), ..Limits::default() });
    for protocol in Protocol::ALL {
        let connections = [server.connect(protocol).await, server.connect(protocol).await];
        let bodies = connections.iter().map(|connection| fetch(connection, "/bytes/2000000"));
        for answer in soon("bodies", futures_util::future::join_all(bodies)).await {
            assert!(answer.expect("an answer").1 == pattern(2_000_000), "{protocol:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn either_congestion_control_sends_everything() {
    for congestion in [Congestion::Cubic, Congestion::NewReno] {
        let server = start(Limits { congestion, ..Limits::default() });
        let answer = soon("a body", fetch(&server.connect(Protocol::Http3).await, "/bytes/4000000")).await;
        assert!(answer.expect("an answer").1 == pattern(4_000_000), "{congestion:?}");
        server.stop().await;
    }
}

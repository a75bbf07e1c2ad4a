use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use edge::http::Protocol;
use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::Semaphore;

use crate::{
    origin::{Fault, Object},
    support::{AUTHORITY, SLICE, ask, get, start, start_of},
};

const PATH: &str = "/titles/t/v1080/00001.m4s";
const VIEWERS: usize = 200;

#[tokio::test]
async fn two_hundred_viewers_of_a_cold_object_cost_one_request_a_slice() {
    let edge = start().await;
    let segment = Object::new(2 * SLICE + 77, 1);
    edge.origin.put(PATH, segment.clone());
    edge.origin.fails(Fault::HoldAfter(1000), 1);
    let path = edge.signed(PATH);
    let mut connections = Vec::new();
    for protocol in Protocol::ALL.into_iter().cycle().take(VIEWERS / 10) {
        connections.push(edge.connect(protocol).await);
    }
    let viewers = connections.iter().cycle().take(VIEWERS).map(|connection| get(connection, &path));
    let (answers, ()) = tokio::join!(join_all(viewers), async {
        edge.origin.is_asked(1).await;
        edge.origin.release();
    });
    for answer in answers {
        assert!(answer.body == *segment.bytes && !answer.is_broken);
    }
    let mut by_slice: HashMap<String, usize> = HashMap::new();
    for asked in edge.origin.asked() {
        *by_slice.entry(asked.headers["range"].clone()).or_default() += 1;
    }
    assert_eq!(by_slice.len(), 3);
    assert!(by_slice.values().all(|count| *count == 1), "{by_slice:?}");
    edge.stop().await;
}

/// A thousand viewers over 250 connections come to a cold object of 100 MiB at the same time, each to a MiB of it, so that every slice is
/// wanted by a dozen of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_viewers_of_a_cold_object_of_100_mib_cost_one_request_a_slice() {
    const LENGTH: usize = 100 << 20;
    const CONNECTIONS: usize = 250;
    const VIEWERS: usize = 1000;
    const WANTED: usize = 1 << 20;
    let edge = start_of("ram = \"192MiB\", slice = \"256KiB\"", "").await;
    // A block of odd length, over and over: no two slices are the same.
    let block = Object::new(65_521, 1);
    let bytes: Vec<u8> = block.bytes.iter().copied().cycle().take(LENGTH).collect();
    let film = Object { bytes: Arc::new(bytes), ..block };
    edge.origin.put(PATH, film.clone());
    edge.origin.fails(Fault::HoldAfter(1000), usize::MAX);
    let path = edge.signed(PATH);
    let connecting = Protocol::ALL.into_iter().cycle().take(CONNECTIONS).map(|protocol| edge.connect(protocol));
    let connections = join_all(connecting).await;
    let viewers = (0..VIEWERS).map(async |viewer| {
        // The first slices are wanted by all who begin at the start, the others by those who come in later.
        let start = if viewer % 10 == 0 { 0 } else { viewer * (LENGTH - WANTED) / VIEWERS };
        let range = format!("bytes={start}-{}", start + WANTED - 1);
        let answer = ask(&connections[viewer % CONNECTIONS], Method::GET, &path, &[("range", &range)]).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "viewer {viewer}: {:?}", answer.headers);
        assert!(answer.body == film.bytes[start..start + WANTED] && !answer.is_broken, "viewer {viewer} at {start}");
    });
    tokio::join!(join_all(viewers), async {
        // Each connection's first viewer is there before the origin says more than the first bytes.
        edge.origin.is_asked(CONNECTIONS / 4).await;
        edge.origin.release();
    });
    let mut by_slice: HashMap<String, usize> = HashMap::new();
    for asked in edge.origin.asked() {
        *by_slice.entry(asked.headers["range"].clone()).or_default() += 1;
    }
    let twice: Vec<_> = by_slice.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "asked more than once: {twice:?}");
    assert_eq!(by_slice.len(), LENGTH / SLICE);
    assert!(edge.metric("larder_edge_requests_total{protocol=\"h3\",status=\"2xx\",verdict=\"collapsed\"}").await > 0);
    edge.stop().await;
}

/// A viewer's wait is the origin's: being one of a thousand adds little to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slowest_of_a_thousand_waiters_has_its_first_byte_soon_after_the_first_has() {
    const CONNECTIONS: usize = 250;
    const VIEWERS: usize = 1000;
    /// An origin across an ocean that has to look for the title first.
    const ORIGIN_TAKES: Duration = Duration::from_secs(6);
    let edge = start().await;
    let segment = Object::new(SLICE, 1);
    edge.origin.put(PATH, segment.clone());
    edge.origin.fails(Fault::SlowAndHeld(ORIGIN_TAKES, 1000), 1);
    let path = edge.signed(PATH);
    let connecting = Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Http1).cycle().take(CONNECTIONS);
    let connections = join_all(connecting.map(|protocol| edge.connect(protocol))).await;
    let have_begun = Semaphore::new(0);
    let viewers = (0..VIEWERS).map(async |viewer| {
        let begun = Instant::now();
        let sent = connections[viewer % CONNECTIONS].send(Method::GET, AUTHORITY, &path, HeaderMap::new()).await;
        let (head, mut body) = sent.expect("an answer");
        assert_eq!(head.status, StatusCode::OK, "viewer {viewer}");
        let chunk = body.next().await.expect("bytes").expect("bytes");
        let waited = begun.elapsed();
        assert!(!chunk.is_empty() && segment.bytes.starts_with(&chunk), "viewer {viewer}");
        have_begun.add_permits(1);
        let mut at = chunk.len();
        while let Some(chunk) = body.next().await.transpose().expect("bytes") {
            assert!(segment.bytes[at..].starts_with(&chunk), "viewer {viewer} at {at}");
            at += chunk.len();
        }
        assert_eq!(at, SLICE, "viewer {viewer}");
        waited
    });
    // The rest comes when all have begun, so that what is measured is waiting and not a thousand times the object.
    let (waits, ()) = tokio::join!(join_all(viewers), async {
        have_begun.acquire_many(VIEWERS as u32).await.expect("it is open").forget();
        edge.origin.release();
    });
    let (first, last) = (*waits.iter().min().expect("a thousand"), *waits.iter().max().expect("a thousand"));
    println!("first bytes of {VIEWERS} viewers after {} to {} ms", first.as_millis(), last.as_millis());
    assert!(first >= ORIGIN_TAKES / 2, "all of them waited for the origin: {first:?}");
    assert!(last.as_secs_f64() <= 1.2 * first.as_secs_f64(), "{first:?}, and {last:?} for the slowest");
    assert_eq!(edge.origin.asked().len(), 1);
    edge.stop().await;
}

#[tokio::test]
async fn the_viewer_who_asked_first_may_leave_without_ending_it_for_the_others() {
    let edge = start().await;
    let segment = Object::new(SLICE, 1);
    edge.origin.put(PATH, segment.clone());
    edge.origin.fails(Fault::HoldAfter(1000), 1);
    let path = edge.signed(PATH);
    let first = edge.connect(Protocol::Http3).await;
    let (_, mut body) = first.send(Method::GET, AUTHORITY, &path, HeaderMap::new()).await.expect("an answer");
    let chunk = body.next().await.expect("bytes").expect("bytes");
    assert!(!chunk.is_empty() && segment.bytes.starts_with(&chunk), "bytes are sent as they come");
    let second = edge.connect(Protocol::Http2).await;
    let (answer, ()) = tokio::join!(get(&second, &path), async {
        drop(body);
        drop(first);
        edge.metric_becomes("larder_edge_connections", 1).await;
        edge.origin.release();
    });
    assert!(answer.body == *segment.bytes);
    assert_eq!(answer.header("cache-status"), "edge-a; fwd=miss; collapsed; detail=origin");
    assert_eq!(edge.origin.asked().len(), 1);
    edge.stop().await;
}

use std::collections::HashMap;

use edge::http::Protocol;
use futures_util::future::join_all;
use http::{HeaderMap, Method};

use crate::{
    origin::{Fault, Object},
    support::{AUTHORITY, SLICE, get, start},
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

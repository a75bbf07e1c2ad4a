use std::time::Duration;

use edge::http::Protocol;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::time::timeout;

use crate::{
    origin::{Fault, Object},
    support::{SLICE, get, start, start_with, try_ask},
};

const PATH: &str = "/titles/t/film.mp4";

#[tokio::test]
async fn an_origin_that_is_away_is_503_with_retry_after_and_play_resumes_when_it_is_back() {
    let mut edge = start().await;
    let film = Object::new(2 * SLICE, 1);
    edge.origin.put(PATH, film.clone());
    let path = edge.signed(PATH);
    edge.origin.go_away().await;
    for protocol in Protocol::ALL {
        let answer = get(&edge.connect(protocol).await, &path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{protocol:?}");
        assert_eq!((answer.header("retry-after"), answer.header("cache-control")), ("2", "no-store"));
        assert_eq!(answer.text(), "the object cannot be had right now\n");
        assert_eq!(answer.header("cache-status"), "edge-a; fwd=miss; detail=origin");
    }
    assert!(edge.metric("larder_edge_fills_total{end=\"unavailable\"}").await >= 3);

    edge.origin.come_back().await;
    let connection = edge.connect(Protocol::Http3).await;
    assert!(get(&connection, &path).await.body == *film.bytes);

    edge.origin.go_away().await;
    assert!(get(&connection, &path).await.body == *film.bytes, "what is cached is served without an origin");
    edge.stop().await;
}

#[tokio::test]
async fn what_an_origin_has_not_or_will_not_give_is_told_apart() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(10, 1));
    let connection = edge.connect(Protocol::Http2).await;
    let missing = get(&connection, &edge.signed("/titles/t/none")).await;
    assert_eq!((missing.status, missing.text().as_str()), (StatusCode::NOT_FOUND, "no such object\n"));
    assert_eq!(missing.header("cache-status"), "edge-a; fwd=miss; fwd-status=404; detail=origin");
    for (said, status) in [(500, 502), (401, 502), (302, 502), (503, 503), (429, 503), (410, 404)] {
        // Where trying later may help, it was tried again at once.
        edge.origin.fails(Fault::Status(said), if status == 503 { 2 } else { 1 });
        let answer = get(&connection, &edge.signed(PATH)).await;
        assert_eq!(answer.status.as_u16(), status, "the origin answered {said}");
        assert_eq!(answer.header("retry-after"), if status == 503 { "2" } else { "" });
        assert!(!answer.text().contains(&said.to_string()), "what the origin said is not for players: {}", answer.text());
    }
    assert_eq!(get(&connection, &edge.signed(PATH)).await.status, StatusCode::OK);
    edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_says_nothing_is_given_up_and_no_viewer_waits_for_ever() {
    let edge = start_with("timeout = \"500ms\"").await;
    let film = Object::new(SLICE, 1);
    edge.origin.put(PATH, film.clone());
    let connection = edge.connect(Protocol::Http3).await;
    edge.origin.fails(Fault::Silent, 2);
    let answer = timeout(Duration::from_secs(20), get(&connection, &edge.signed(PATH))).await.expect("in time");
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert!(get(&connection, &edge.signed(PATH)).await.body == *film.bytes);

    edge.origin.put("/titles/t/other.mp4", film.clone());
    edge.origin.fails(Fault::HoldAfter(1000), 1);
    let answer = timeout(Duration::from_secs(20), get(&connection, &edge.signed("/titles/t/other.mp4"))).await.expect("in time");
    assert!(answer.body == *film.bytes, "the fill that stalled was replaced by another, and the viewer did not notice");
    edge.stop().await;
}

#[tokio::test]
async fn a_fill_that_breaks_off_is_made_up_for_and_one_that_always_does_breaks_the_answer() {
    let edge = start().await;
    for protocol in Protocol::ALL {
        let film = Object::new(3 * SLICE, protocol as u64);
        let [once, always] = ["once", "always"].map(|name| format!("/titles/{}/{name}", protocol as u8));
        edge.origin.put(&once, film.clone());
        edge.origin.put(&always, film.clone());
        let connection = edge.connect(protocol).await;
        edge.origin.fails(Fault::CutAfter(1000), 1);
        let answer = get(&connection, &edge.signed(&once)).await;
        assert!(answer.body == *film.bytes && !answer.is_broken, "{protocol:?}");
        let asked = edge.origin.asked();
        let rest = asked.iter().find(|asked| asked.path == once && asked.headers["range"] == format!("bytes=1000-{}", SLICE - 1));
        let etag = rest.expect("the rest of the slice is asked for, and no more").headers.get("if-match");
        assert_eq!(etag, Some(&film.etag), "{protocol:?}");

        edge.origin.fails(Fault::CutAfter(1000), usize::MAX);
        if let Ok(answer) = try_ask(&connection, Method::GET, &edge.signed(&always), &[]).await {
            assert!(answer.is_broken && answer.body.len() < film.bytes.len(), "{protocol:?}: a short answer never looks whole");
            assert!(answer.body == film.bytes[..answer.body.len()], "{protocol:?}: what came is right");
        }
        edge.origin.is_honest_again();
    }
    edge.metric_becomes("larder_edge_broken_answers_total", 3).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_kept_connection_that_the_origin_closed_is_not_a_failure() {
    let mut edge = start().await;
    for name in ["a", "b"] {
        edge.origin.put(&format!("/titles/t/{name}"), Object::new(100, 1));
    }
    let connection = edge.connect(Protocol::Http1).await;
    assert_eq!(get(&connection, &edge.signed("/titles/t/a")).await.status, StatusCode::OK);
    edge.origin.go_away().await;
    edge.origin.come_back().await;
    assert_eq!(get(&connection, &edge.signed("/titles/t/b")).await.status, StatusCode::OK);
    edge.stop().await;
}

#[tokio::test]
async fn fills_beyond_the_limit_wait_for_their_turn() {
    let edge = start_with("fills = 2").await;
    let paths: Vec<_> = (0..12)
        .map(|number| {
            let path = format!("/titles/t/{number}");
            edge.origin.put(&path, Object::new(100, 1));
            edge.signed(&path)
        })
        .collect();
    edge.origin.fails(Fault::Slow(Duration::from_millis(10)), usize::MAX);
    let connection = edge.connect(Protocol::Http2).await;
    let answers = join_all(paths.iter().map(|path| get(&connection, path))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(edge.origin.at_once_max(), 2);
    edge.stop().await;
}

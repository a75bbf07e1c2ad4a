use edge::http::Protocol;
use http::{Method, StatusCode};

use crate::{
    origin::{Fault, Object},
    support::{SLICE, ask, get, start, start_with},
};

const PATH: &str = "/titles/t/film.mp4";

#[tokio::test]
async fn an_object_comes_whole_with_its_headers_and_then_from_ram() {
    let edge = start().await;
    let film = Object::new(3 * SLICE + 1234, 1);
    edge.origin.put(PATH, film.clone());
    let path = edge.signed(PATH);
    for (protocol, from) in [
        (Protocol::Http3, "edge-a; fwd=miss; stored; detail=origin"),
        (Protocol::Http2, "edge-a; hit; detail=ram"),
        (Protocol::Http1, "edge-a; hit; detail=ram"),
    ] {
        let answer = get(&edge.connect(protocol).await, &path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == *film.bytes && !answer.is_broken, "{protocol:?}");
        assert_eq!(answer.header("cache-status"), from);
        for (name, value) in [
            ("content-type", "video/mp4"),
            ("etag", "\"v1\""),
            ("cache-control", "public, max-age=3600"),
            ("accept-ranges", "bytes"),
            ("content-length", "787666"),
            ("server", "larder"),
            ("access-control-allow-origin", "*"),
            ("timing-allow-origin", "*"),
            ("content-range", ""),
            ("x-internal", ""),
        ] {
            assert_eq!(answer.header(name), value, "{name} on {protocol:?}");
        }
        assert!(answer.header("access-control-expose-headers").contains("Cache-Status"));
        assert!(answer.header("date").ends_with(" GMT"), "{answer:?}");
        let timing = answer.header("server-timing");
        let fill = if from.contains("hit") { "cache;desc=hit;dur=" } else { "cache;desc=miss, fill;dur=" };
        assert!(timing.starts_with("token;dur=") && timing.contains(fill), "{timing}");
    }
    assert_eq!(edge.origin.asked().len(), 4, "one request a slice");
    edge.metric_becomes("larder_edge_sent_bytes_total{protocol=\"h3\"}", 787_666).await;
    assert_eq!(edge.metric("larder_edge_requests_total{protocol=\"h2\",status=\"2xx\",verdict=\"hit\"}").await, 1);
    assert_eq!(edge.metric("larder_edge_first_byte_seconds_count{verdict=\"miss\"}").await, 1);
    edge.stop().await;
}

#[tokio::test]
async fn every_range_around_the_bounds_of_slices_is_right() {
    let edge = start().await;
    let film = Object::new(2 * SLICE + 100, 1);
    edge.origin.put(PATH, film.clone());
    let path = edge.signed(PATH);
    let connection = edge.connect(Protocol::Http2).await;
    let length = film.bytes.len();
    let bounds: Vec<usize> = [0, 1, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE - 1, 2 * SLICE, length - 1].into();
    for first in &bounds {
        for last in bounds.iter().filter(|last| *last >= first) {
            let answer = ask(&connection, Method::GET, &path, &[("range", &format!("bytes={first}-{last}"))]).await;
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{first}-{last}");
            assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{length}"));
            assert!(answer.body == film.bytes[*first..=*last], "{first}-{last}");
        }
    }
    assert_eq!(edge.origin.asked().len(), 3, "each slice is fetched once");
    edge.stop().await;
}

#[tokio::test]
async fn ranges_and_conditions_are_answered_as_the_rfc_says() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(SLICE + 100, 1));
    let path = edge.signed(PATH);
    let whole = SLICE + 100;
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        for (headers, status, length, content_range) in [
            (&[("range", "bytes=-50")][..], 206, 50, "bytes 262194-262243/262244"),
            (&[("range", "bytes=262200-")], 206, 44, "bytes 262200-262243/262244"),
            (&[("range", "bytes=0-999999999")], 206, whole, "bytes 0-262243/262244"),
            (&[("range", "bytes=262244-")], 416, 37, "bytes */262244"),
            (&[("range", "bytes=18446744073709551615-")], 416, 37, "bytes */262244"),
            (&[("range", "bytes=0-1,2-6")], 206, 7, "bytes 0-6/262244"),
            (&[("range", "bytes=junk")], 200, whole, ""),
            (&[("range", "bytes=0-9"), ("if-range", "\"v1\"")], 206, 10, "bytes 0-9/262244"),
            (&[("range", "bytes=0-9"), ("if-range", "\"v0\"")], 200, whole, ""),
            (&[("if-none-match", "\"v1\"")], 304, 0, ""),
            (&[("if-none-match", "\"v0\", W/\"v1\"")], 304, 0, ""),
            (&[("if-match", "\"v0\"")], 412, 30, ""),
            (&[("if-match", "\"v1\""), ("range", "bytes=0-9")], 206, 10, "bytes 0-9/262244"),
        ] {
            let answer = ask(&connection, Method::GET, &path, headers).await;
            assert_eq!(answer.status.as_u16(), status, "{protocol:?} {headers:?}");
            assert_eq!((answer.body.len(), answer.header("content-range")), (length, content_range), "{protocol:?} {headers:?}");
            let etag = if status < 400 { "\"v1\"" } else { "" };
            assert_eq!(answer.header("etag"), etag, "{protocol:?} {headers:?}");
        }
        let head = ask(&connection, Method::HEAD, &path, &[("range", "bytes=0-9")]).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_eq!((head.header("content-length"), head.header("etag")), ("262244", "\"v1\""));
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_object_that_is_opened_in_its_middle_costs_no_question_of_its_own() {
    let edge = start().await;
    let film = Object::new(3 * SLICE, 1);
    edge.origin.put(PATH, film.clone());
    let connection = edge.connect(Protocol::Http3).await;
    let range = format!("bytes={}-{}", 2 * SLICE, 2 * SLICE + 9);
    let answer = ask(&connection, Method::GET, &edge.signed(PATH), &[("range", &range)]).await;
    assert!(answer.body == film.bytes[2 * SLICE..2 * SLICE + 10]);
    let asked = edge.origin.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].headers["range"], format!("bytes={}-{}", 2 * SLICE, 3 * SLICE - 1));

    edge.origin.put("/titles/t/short.mp4", Object::new(10, 1));
    let beyond = ask(&connection, Method::GET, &edge.signed("/titles/t/short.mp4"), &[("range", &range)]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */10"));
    edge.stop().await;
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(0, 1));
    let path = edge.signed(PATH);
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        let answer = get(&connection, &path).await;
        assert_eq!((answer.status, answer.body.len(), answer.is_broken), (StatusCode::OK, 0, false), "{protocol:?}");
        assert_eq!((answer.header("content-length"), answer.header("etag")), ("0", "\"v1\""));
        let range = ask(&connection, Method::GET, &path, &[("range", "bytes=0-")]).await;
        assert_eq!((range.status, range.header("content-range")), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */0"));
    }
    edge.stop().await;
}

#[tokio::test]
async fn scripts_are_told_what_they_may_ask() {
    let edge = start_with("[cors]\nallowed_origins = [\"https://app.example\"]").await;
    let connection = edge.connect(Protocol::Http2).await;
    let preflight = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "range"),
    ];
    let answer = ask(&connection, Method::OPTIONS, &edge.signed(PATH), &preflight).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
    assert!(answer.header("access-control-allow-headers").starts_with("Range, If-Range"));
    assert_eq!((answer.header("access-control-allow-credentials"), answer.header("vary")), ("true", "Origin"));

    let refused = ask(&connection, Method::GET, PATH, &[("origin", "https://app.example")]).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (StatusCode::FORBIDDEN, "https://app.example"));
    let stranger = ask(&connection, Method::GET, PATH, &[("origin", "https://other.example")]).await;
    assert_eq!((stranger.header("access-control-allow-origin"), stranger.header("vary")), ("", "Origin"));

    let post = ask(&connection, Method::POST, &edge.signed(PATH), &[]).await;
    assert_eq!((post.status, post.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, OPTIONS"));
    assert!(edge.origin.asked().is_empty());
    edge.stop().await;
}

#[tokio::test]
async fn a_stale_object_is_asked_for_again_and_a_new_version_is_never_mixed_with_the_old() {
    let edge = start().await;
    let short_lived = |version| Object { cache_control: "max-age=0", ..Object::new(2 * SLICE, version) };
    let (old, new) = (short_lived(1), short_lived(2));
    edge.origin.put(PATH, old.clone());
    let path = edge.signed(PATH);
    let connection = edge.connect(Protocol::Http3).await;
    assert!(get(&connection, &path).await.body == *old.bytes);
    assert_eq!(edge.origin.asked().len(), 2);
    assert!(get(&connection, &path).await.body == *old.bytes);
    let asked = edge.origin.asked();
    assert_eq!((asked.len(), asked[2].headers["if-none-match"].as_str()), (3, "\"v1\""), "one question, and no bytes");

    edge.origin.put(PATH, new.clone());
    let answer = get(&connection, &path).await;
    assert!(answer.body == *new.bytes && answer.header("etag") == "\"v2\"");
    edge.stop().await;
}

#[tokio::test]
async fn every_answer_tells_where_it_comes_from_and_stored_ones_how_old_they_are() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(1000, 1));
    let path = edge.signed(PATH);
    let (hit, miss) = ("edge-a; hit; detail=ram", "edge-a; fwd=miss; stored; detail=origin");
    let connection = edge.connect(Protocol::Http2).await;
    // What was made for this very request has no age.
    let fresh = get(&connection, &path).await;
    assert_eq!((fresh.header("cache-status"), fresh.header("age")), (miss, ""));
    for (method, headers, status, has_age) in [
        (Method::GET, &[][..], 200, true),
        (Method::HEAD, &[], 200, true),
        (Method::GET, &[("range", "bytes=0-1")], 206, true),
        (Method::GET, &[("range", "bytes=0-1,5-6")], 206, true),
        (Method::GET, &[("if-none-match", "\"v1\"")], 304, true),
        (Method::GET, &[("if-match", "\"v0\"")], 412, false),
        (Method::GET, &[("range", "bytes=1000-")], 416, false),
    ] {
        let answer = ask(&connection, method.clone(), &path, headers).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-status")), (status, hit), "{method} {headers:?}");
        assert_eq!(answer.header("age").parse::<u64>().is_ok_and(|age| age < 60), has_age, "{method} {headers:?}: {answer:?}");
        assert!(answer.header("access-control-expose-headers").contains("Age, Cache-Status"));
    }

    let aged = "/titles/t/aged.mp4";
    edge.origin.put(aged, Object::new(1000, 1));
    edge.origin.fails(Fault::Header("age", Some("1200".into())), 1);
    let aged = edge.signed(aged);
    for verdict in [miss, hit] {
        let answer = get(&connection, &aged).await;
        assert_eq!(answer.header("cache-status"), verdict);
        let age: u64 = answer.header("age").parse().expect("an age");
        assert!((1200..1260).contains(&age), "the origin's counts too: {age}");
    }

    let unknown = edge.signed("/titles/t/unknown.mp4");
    edge.origin.put("/titles/t/unknown.mp4", Object::new(1000, 1));
    let head = ask(&connection, Method::HEAD, &unknown, &[]).await;
    assert_eq!((head.status, head.header("cache-status"), head.header("age")), (StatusCode::OK, miss, ""));
    edge.stop().await;
}

#[tokio::test]
async fn tags_are_for_operators_and_not_for_players() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(1000, 1));
    edge.origin.fails(Fault::Header("cache-tag", Some("film, 2026".into())), 1);
    let connection = edge.connect(Protocol::Http3).await;
    for _ in 0..2 {
        let answer = get(&connection, &edge.signed(PATH)).await;
        assert_eq!((answer.status, answer.header("cache-tag")), (StatusCode::OK, ""));
    }
    edge.stop().await;
}

//! Several ranges in one request (RFC 9110 §15.3.7.2), read by a parser that shares nothing with the edge.

use std::ops::Range;

use edge::http::{Protocol, client::Connection};
use http::{Method, StatusCode};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    origin::{Fault, Object},
    support::{Answer, SLICE, ask, start, start_with, try_ask},
};

const PATH: &str = "/titles/t/film.mp4";

/// A part as it came: where it says that it belongs, and its bytes.
type Part = (Range<usize>, Vec<u8>);

/// The parts of `answer`, which must be nothing but them.
#[track_caller]
fn parts(answer: &Answer, length: usize) -> Vec<Part> {
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").expect("several parts");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let mut rest = answer.body.strip_prefix(format!("--{boundary}").as_bytes()).expect("a boundary first");
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head_end = part.windows(4).position(|four| four == b"\r\n\r\n").expect("a head's end") + 4;
        let head = std::str::from_utf8(&part[..head_end]).expect("text");
        let lines: Vec<_> = head.lines().filter(|line| !line.is_empty()).collect();
        let [content_type, range] = lines[..] else { panic!("{head:?}") };
        assert_eq!(content_type, "content-type: video/mp4");
        let range = range.strip_prefix("content-range: bytes ").and_then(|range| range.strip_suffix(&format!("/{length}")));
        let (first, last) = range.and_then(|range| range.split_once('-')).expect("a range");
        let range = first.parse().expect("a number")..last.parse::<usize>().expect("a number") + 1;
        let body_end = head_end + range.len();
        parts.push((range, part[head_end..body_end].to_vec()));
        rest = part[body_end..].strip_prefix(format!("\r\n--{boundary}").as_bytes()).expect("a boundary after a part");
    }
    assert_eq!(rest, b"--\r\n", "nothing after the last boundary");
    parts
}

async fn get(connection: &Connection, path: &str, range: &str) -> Answer {
    ask(connection, Method::GET, path, &[("range", range)]).await
}

#[tokio::test]
async fn several_ranges_come_in_their_order_with_exact_bytes_on_every_protocol() {
    let edge = start().await;
    let film = Object::new(2 * SLICE + 100, 1);
    edge.origin.put(PATH, film.clone());
    let (path, length) = (edge.signed(PATH), film.bytes.len());
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        let around = format!("bytes={}-{},0-0,{}-{},-1", SLICE - 1, SLICE, 2 * SLICE - 2, 2 * SLICE + 1);
        let answer = get(&connection, &path, &around).await;
        assert_eq!((answer.status, answer.header("content-range")), (StatusCode::PARTIAL_CONTENT, ""), "{protocol:?}");
        assert_eq!((answer.header("etag"), answer.header("accept-ranges")), ("\"v1\"", "bytes"));
        let expected = [SLICE - 1..SLICE + 1, 0..1, 2 * SLICE - 2..2 * SLICE + 2, length - 1..length];
        let expected: Vec<Part> = expected.into_iter().map(|range| (range.clone(), film.bytes[range].to_vec())).collect();
        assert!(parts(&answer, length) == expected, "{protocol:?}");

        let touching = get(&connection, &path, "bytes=0-1,2-6").await;
        assert_eq!((touching.header("content-range"), touching.body.len()), ("bytes 0-6/524388", 7), "one is left");
        let half = get(&connection, &path, "bytes=600000-,5-6").await;
        assert_eq!(
            (half.header("content-range"), half.body.as_slice()),
            ("bytes 5-6/524388", &film.bytes[5..7]),
            "the other is not there"
        );
        assert_eq!(get(&connection, &path, "bytes=600000-,700000-").await.status, StatusCode::RANGE_NOT_SATISFIABLE);
        let many = (0..17).map(|n| format!("{}-{}", n * 2, n * 2)).collect::<Vec<_>>().join(",");
        let whole = get(&connection, &path, &format!("bytes={many}")).await;
        assert!(whole.status == StatusCode::OK && whole.body == *film.bytes, "too many are none");
        let changed = ask(&connection, Method::GET, &path, &[("range", "bytes=0-0,5-5"), ("if-range", "\"v0\"")]).await;
        assert_eq!((changed.status, changed.body.len()), (StatusCode::OK, length));
        let same = ask(&connection, Method::GET, &path, &[("range", "bytes=0-0,5-5"), ("if-range", "\"v1\"")]).await;
        assert_eq!(parts(&same, length).len(), 2);
        let head = ask(&connection, Method::HEAD, &path, &[("range", "bytes=0-0,5-5")]).await;
        assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "524388"));
    }
    assert_eq!(edge.origin.asked().len(), 3, "each slice is fetched once");
    edge.stop().await;
}

/// Against a model that has a flag for each byte: all that was asked for comes, once, and nothing else.
#[tokio::test]
async fn any_ranges_are_all_the_bytes_asked_for_and_each_once() {
    const ROUNDS: usize = 60;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let edge = start().await;
    let film = Object::new(SLICE + 5000, 1);
    edge.origin.put(PATH, film.clone());
    let (path, length) = (edge.signed(PATH), film.bytes.len());
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        for _ in 0..ROUNDS {
            let wanted: Vec<(usize, usize)> = (0..random.random_range(2..=16))
                .map(|_| {
                    // Mostly near the bound of two slices, where they meet and overlap.
                    let first = random.random_range(SLICE - 3000..length + 100);
                    (first, first + random.random_range(0..2000))
                })
                .collect();
            let text = wanted.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(", ");
            let mut is_wanted = vec![false; length];
            wanted.iter().filter(|(first, _)| *first < length).for_each(|(first, last)| {
                is_wanted[*first..(last + 1).min(length)].fill(true);
            });
            let answer = get(&connection, &path, &format!("bytes={text}")).await;
            let came = match answer.header("content-range").strip_prefix("bytes ") {
                Some("*/267144") => Vec::new(),
                Some(range) => {
                    let (first, _) = range.split_once('-').expect("a range");
                    let first: usize = first.parse().expect("a number");
                    vec![(first..first + answer.body.len(), answer.body.clone())]
                }
                None => parts(&answer, length),
            };
            for (range, bytes) in came {
                assert!(bytes == film.bytes[range.clone()], "{protocol:?} {range:?} of {text}");
                assert!(
                    is_wanted[range.clone()].iter().all(|is_wanted| *is_wanted),
                    "{protocol:?}: {range:?} is asked for, and once: {text}"
                );
                is_wanted[range].fill(false);
            }
            assert!(!is_wanted.contains(&true), "{protocol:?}: all of {text} comes");
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_part_that_cannot_be_had_any_more_breaks_the_answer_off() {
    for fault in [Fault::Status(412), Fault::Status(500)] {
        let edge = start_with("").await;
        let film = Object::new(8 * SLICE, 1);
        edge.origin.put(PATH, film.clone());
        let path = edge.signed(PATH);
        for protocol in Protocol::ALL {
            let connection = edge.connect(protocol).await;
            let first = get(&connection, &path, "bytes=0-9").await;
            assert_eq!(first.status, StatusCode::PARTIAL_CONTENT);
            // The first part is in RAM; the origin has another version, or fails, when the second is wanted.
            edge.origin.fails(fault.clone(), 20);
            let range = format!("bytes=0-9,{}-{}", 6 * SLICE, 6 * SLICE + 9);
            match try_ask(&connection, Method::GET, &path, &[("range", &range)]).await {
                Ok(answer) => {
                    assert!(answer.is_broken, "{protocol:?} {fault:?}");
                    let announced: usize = answer.header("content-length").parse().expect("a number");
                    assert!(answer.body.len() < announced, "{protocol:?}: never a short success");
                }
                // A stream that is reset may lose even its head.
                Err(error) => assert_ne!(protocol, Protocol::Http1, "{error}"),
            }
            edge.origin.is_honest_again();
        }
        edge.metric_becomes("larder_edge_broken_answers_total", 3).await;
        edge.stop().await;
    }
}

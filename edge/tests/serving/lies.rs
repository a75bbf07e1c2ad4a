use edge::http::Protocol;
use http::{Method, StatusCode};

use crate::{
    origin::{Fault, Object},
    support::{SLICE, ask, get, start, try_ask},
};

/// Whatever an origin says, a player gets the right bytes or an error, and the right bytes once the origin is honest.
#[tokio::test]
async fn a_lying_origin_never_yields_a_wrong_byte() {
    let edge = start().await;
    let film = Object::new(2 * SLICE + 10, 1);
    let header = |name, value: &str| Fault::Header(name, Some(value.to_owned()));
    let lies = [
        Fault::Shifted(1),
        Fault::Shifted(-1),
        Fault::Whole,
        Fault::TooMany(1),
        Fault::TooFew(1),
        Fault::Noise,
        Fault::Header("etag", None),
        header("etag", "W/\"v1\""),
        header("etag", "v1"),
        Fault::Header("content-range", None),
        header("content-range", "bytes 5-262148/524298"),
        header("content-range", "bytes 0-262142/524298"),
        header("content-range", "bytes 0-262143/*"),
        header("content-range", "bytes 0-262143/18446744073709551615"),
        header("content-length", "262143"),
        header("content-length", "262145"),
        header("content-length", "many"),
        header("content-encoding-of-none", "harmless"),
    ];
    let connections = [(0, edge.connect(Protocol::Http3).await), (SLICE, edge.connect(Protocol::Http2).await)];
    for (number, lie) in lies.into_iter().enumerate() {
        for (first, connection) in &connections {
            let first = *first;
            let path = format!("/titles/t/{number}-{first}");
            edge.origin.put(&path, film.clone());
            let range = format!("bytes={first}-");
            edge.origin.fails(lie.clone(), usize::MAX);
            match try_ask(connection, Method::GET, &edge.signed(&path), &[("range", &range)]).await {
                Ok(answer) if answer.status.is_success() => {
                    let is_right = answer.body == film.bytes[first..][..answer.body.len()];
                    let is_whole = answer.body.len() == film.bytes.len() - first;
                    assert!(is_right && (is_whole || answer.is_broken), "{lie:?} from {first}");
                }
                Ok(answer) => {
                    assert!(answer.status.is_server_error() && answer.body.len() < 100, "{lie:?} from {first}: {answer:?}");
                }
                Err(_broken_off) => {}
            }
            // Who joins a fill that was lied to shares its end.
            edge.metric_becomes("larder_edge_fills", 0).await;
            edge.origin.is_honest_again();
            let answer = ask(connection, Method::GET, &edge.signed(&path), &[("range", &range)]).await;
            assert!(answer.body == film.bytes[first..] && !answer.is_broken, "after {lie:?} from {first}");
        }
    }
    edge.stop().await;
}

/// The second slice is of another version than the first.
#[tokio::test]
async fn an_object_that_changes_under_a_viewer_breaks_the_answer_and_is_the_new_one_for_the_next() {
    let edge = start().await;
    let path = "/titles/t/film.mp4";
    let (old, new) = (Object::new(4 * SLICE, 1), Object::new(4 * SLICE, 2));
    for protocol in Protocol::ALL {
        let path = format!("{path}.{}", protocol as u8);
        edge.origin.put(&path, old.clone());
        let connection = edge.connect(protocol).await;
        let first = ask(&connection, Method::GET, &edge.signed(&path), &[("range", "bytes=0-9")]).await;
        assert!(first.body == old.bytes[..10]);
        edge.origin.put(&path, new.clone());
        if let Ok(answer) = try_ask(&connection, Method::GET, &edge.signed(&path), &[]).await {
            assert!(
                answer.is_broken && answer.body == old.bytes[..answer.body.len()],
                "{protocol:?}: no byte of the new version"
            );
        }
        let connection = edge.connect(protocol).await;
        let answer = get(&connection, &edge.signed(&path)).await;
        assert!(answer.status == StatusCode::OK && answer.body == *new.bytes, "{protocol:?}");
    }
    edge.stop().await;
}

/// The first bytes that are wanted are of another version than the one that is known: nothing was sent yet, so the viewer gets the new one.
#[tokio::test]
async fn an_object_that_changed_before_the_first_byte_is_the_new_one() {
    let edge = start().await;
    let path = edge.signed("/titles/t/film.mp4");
    let (old, new) = (Object::new(4 * SLICE, 1), Object::new(4 * SLICE, 2));
    edge.origin.put("/titles/t/film.mp4", old);
    let connection = edge.connect(Protocol::Http2).await;
    ask(&connection, Method::GET, &path, &[("range", "bytes=0-9")]).await;
    edge.origin.put("/titles/t/film.mp4", new.clone());
    let range = format!("bytes={}-", 2 * SLICE);
    let answer = ask(&connection, Method::GET, &path, &[("range", &range)]).await;
    assert!(answer.body == new.bytes[2 * SLICE..] && answer.header("etag") == "\"v2\"");
    edge.stop().await;
}

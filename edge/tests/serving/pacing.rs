//! Caps that connections share, and what players are told of the way to them.

use std::time::{Duration, Instant};

use edge::http::Protocol;
use futures_util::future::join_all;
use http::Method;
use wire::{
    object::ObjectPath,
    token::{Claims, RATE_CLAIM, in_path, sign},
};

use crate::{
    origin::Object,
    support::{ISSUER, Running, SLICE, ask, get, now_unix_s, start, start_with},
};

const PATH: &str = "/titles/t/film.mp4";
const BYTES: usize = 8 * SLICE;

/// The film's path with a token for `subject`, which may say its own rate.
fn signed_for(edge: &Running, subject: &str, rate: Option<u64>) -> String {
    let root = ObjectPath::new("/titles").expect("a path");
    let mut claims =
        Claims { iss: Some(ISSUER.into()), sub: Some(subject.into()), ..Claims::for_tree(&root, now_unix_s() + 3600) };
    claims.extensions.extend(rate.map(|rate| (RATE_CLAIM.to_owned(), rate.into())));
    let token = sign(&edge.key, &claims).expect("signs");
    in_path("", &token, &ObjectPath::new(PATH).expect("a path"))
}

/// Fetches the film by each path at once, on connections of all protocols in turns. How long the last one took.
async fn fetch_all(edge: &Running, film: &Object, paths: &[String]) -> Duration {
    let connections = join_all((0..paths.len()).map(|number| edge.connect(Protocol::ALL[number % 3]))).await;
    let started = Instant::now();
    let answers = join_all(paths.iter().zip(&connections).map(|(path, connection)| get(connection, path))).await;
    for answer in answers {
        assert!(answer.body == *film.bytes && !answer.is_broken, "{}", answer.status);
    }
    started.elapsed()
}

/// What `bytes` take at `rate`, less what may go at once and a tenth.
fn least(bytes: usize, rate: u64) -> Duration {
    let at_once = rate as f64 / 80.0;
    Duration::from_secs_f64(0.9 * (bytes as f64 - at_once) * 8.0 / rate as f64)
}

#[tokio::test]
async fn all_connections_of_one_subject_share_its_cap() {
    let edge = start_with("[pacing]\ntoken_max = \"40Mbit/s\"\n").await;
    let film = Object::new(BYTES, 1);
    edge.origin.put(PATH, film.clone());
    let paths = ["anna", "anna", "anna"].map(|subject| signed_for(&edge, subject, None));
    let took = fetch_all(&edge, &film, &paths).await;
    assert!(took >= least(3 * BYTES, 40_000_000), "{took:?}");
    assert!(edge.metric("larder_edge_paced_bytes_total{cap=\"token\"}").await > BYTES as u64);
    assert_eq!(edge.metric("larder_edge_paced_bytes_total{cap=\"site\"}").await, 0);
    edge.stop().await;
}

#[tokio::test]
async fn a_token_that_says_its_own_rate_is_held_to_it_on_an_edge_without_caps() {
    let edge = start().await;
    let film = Object::new(BYTES, 1);
    edge.origin.put(PATH, film.clone());
    let took = fetch_all(&edge, &film, &[signed_for(&edge, "anna", Some(20_000_000))]).await;
    assert!(took >= least(BYTES, 20_000_000), "{took:?}");
    let paced = edge.metric("larder_edge_paced_bytes_total{cap=\"token\"}").await;
    fetch_all(&edge, &film, &[signed_for(&edge, "bert", None)]).await;
    assert_eq!(edge.metric("larder_edge_paced_bytes_total{cap=\"token\"}").await, paced, "others are not");
    edge.stop().await;
}

#[tokio::test]
async fn all_players_together_are_sent_no_more_than_the_site_may() {
    let edge = start_with("[pacing]\nsite_max = \"50Mbit/s\"\n").await;
    let film = Object::new(BYTES, 1);
    edge.origin.put(PATH, film.clone());
    let paths = ["anna", "bert", "carl"].map(|subject| signed_for(&edge, subject, None));
    let took = fetch_all(&edge, &film, &paths).await;
    assert!(took >= least(3 * BYTES, 50_000_000), "{took:?}");
    assert!(edge.metric("larder_edge_paced_bytes_total{cap=\"site\"}").await > BYTES as u64);
    edge.stop().await;
}

/// The parameters of a CMSD-Dynamic value.
fn hinted(value: &str) -> Vec<(&str, u64)> {
    let parameters = value.strip_prefix("\"edge-a\"").expect(value).split(';').skip(1);
    parameters
        .map(|parameter| parameter.split_once('=').map(|(key, value)| (key, value.parse().expect(value))).expect(value))
        .collect()
}

#[tokio::test]
async fn players_that_send_cmcd_are_told_what_the_way_to_them_carries() {
    let edge = start().await;
    edge.origin.put(PATH, Object::new(BYTES, 1));
    let path = edge.signed(PATH);
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        let silent = get(&connection, &path).await;
        assert_eq!(silent.header("cmsd-dynamic"), "", "{protocol:?}: nobody asked");
        let told = ask(&connection, Method::GET, &path, &[("cmcd-session", "sid=\"a\"")]).await;
        let hints = hinted(told.header("cmsd-dynamic"));
        assert_eq!(hints.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["etp", "rtt"], "{protocol:?} {hints:?}");
        assert!(hints[0].1 > 100, "{protocol:?}: more than a modem: {hints:?}");
        assert!(told.header("access-control-expose-headers").contains("CMSD-Dynamic"));
        let queried = get(&connection, &format!("{path}?CMCD=bl%3D2100")).await;
        assert_eq!(queried.status, 200);
        assert!(!queried.header("cmsd-dynamic").is_empty(), "{protocol:?}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_cap_is_said_as_what_to_play_at_and_bounds_the_estimate() {
    let edge = start_with("[pacing]\nconnection_max = \"100Mbit/s\"\ntoken_max = \"80Mbit/s\"\n").await;
    edge.origin.put(PATH, Object::new(2 * SLICE, 1));
    for protocol in Protocol::ALL {
        let connection = edge.connect(protocol).await;
        for (rate, cap) in [(None, 80_000), (Some(50_000_000), 50_000)] {
            let path = signed_for(&edge, &format!("{protocol:?} {cap}"), rate);
            get(&connection, &path).await;
            let told = ask(&connection, Method::GET, &path, &[("cmcd-request", "bl=2100")]).await;
            let hints = hinted(told.header("cmsd-dynamic"));
            let of = |wanted| hints.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
            assert_eq!(of("mb"), Some(cap * 8 / 10), "{protocol:?} {hints:?}");
            assert!(of("etp").is_none_or(|etp| etp <= cap), "{protocol:?} {hints:?}");
        }
    }
    edge.stop().await;
    let edge = start_with("[pacing]\nconnection_max = \"100Mbit/s\"\nrate_hint = false\n").await;
    edge.origin.put(PATH, Object::new(SLICE, 1));
    let path = edge.signed(PATH);
    let told = ask(&edge.connect(Protocol::Http2).await, Method::GET, &path, &[("cmcd-request", "bl=2100")]).await;
    assert_eq!(told.header("cmsd-dynamic"), "");
    edge.stop().await;
}

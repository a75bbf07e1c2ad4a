use std::time::Duration;

use control::{Config, Control};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    link::{Link, becomes},
    service::{EDGE, OPERATOR, Service, config, directory, registration, send, start, start_in, title, with},
};

fn at(site: &str, edge: &str) -> Value {
    let mut registration = registration(edge);
    registration["site"] = json!(site);
    registration
}

async fn edge_view(service: &Service, edge: &str) -> Value {
    let edges = service.send(with(Method::GET, "/fleet/edges", OPERATOR, &json!(null))).await.json();
    edges["edges"].as_array().unwrap().iter().find(|view| view["edge"] == edge).unwrap().clone()
}

async fn told(service: &Service, path: &str, body: &Value) -> (StatusCode, Value) {
    let reply = service.send(with(Method::POST, path, OPERATOR, body)).await;
    (reply.status, if reply.body.is_empty() { Value::Null } else { reply.json() })
}

async fn ranked(service: &Service) -> Vec<String> {
    let playback = service.get("/videos/demo/playback").await.json();
    playback["edges"].as_array().into_iter().flatten().map(|edge| edge["edge"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_edge_is_ranked_by_what_it_reports_on_its_stream() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    let link = Link::open(&service, "e1", &at("berlin", "e1")).await;
    assert_eq!(ranked(&service).await, Vec::<String>::new(), "connected, but not heard of");
    link.reports(&json!({ "connections": 9, "connectionsMax": 10, "load": { "bitsPerSecond": 5, "cpuShare": 0.25 } }));
    becomes(async || ranked(&service).await, |edges| edges == &["e1"]).await;
    let view = edge_view(&service, "e1").await;
    assert_eq!((&view["isConnected"], &view["loadPermille"], &view["slices"]), (&json!(true), &json!(900), &json!(null)));
    assert_eq!(view["report"]["load"]["cpuShare"], 0.25);
    link.holds((0..3).map(|n| format!("/x/{n}")));
    becomes(async || edge_view(&service, "e1").await, |view| view["slices"] == 3).await;
    link.reports(&json!({ "health": "draining" }));
    becomes(async || ranked(&service).await, Vec::is_empty).await;
}

#[tokio::test]
async fn an_edge_that_reports_overload_leaves_before_it_fails() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    let (busy, idle) = (Link::open(&service, "e1", &at("a", "e1")).await, Link::open(&service, "e2", &at("b", "e2")).await);
    let sending = |share: f64| json!({ "load": { "bitsPerSecond": (share * 1e9) as u64, "bitsPerSecondMax": 1_000_000_000 } });
    busy.reports(&sending(0.1));
    idle.reports(&sending(0.1));
    becomes(async || ranked(&service).await, |edges| edges.len() == 2).await;
    busy.reports(&sending(0.96));
    becomes(async || ranked(&service).await, |edges| edges == &["e2"]).await;
    busy.reports(&sending(0.5));
    becomes(async || ranked(&service).await, |edges| edges.len() == 2).await;
}

#[tokio::test]
async fn only_a_registered_edge_opens_a_stream_and_has_one() {
    let (_dir, service) = start().await;
    assert_eq!(Link::try_open(service.addr, "e1", EDGE).await.err(), Some(StatusCode::NOT_FOUND));
    let mut first = Link::open(&service, "e1", &at("berlin", "e1")).await;
    assert_eq!(Link::try_open(service.addr, "e1", OPERATOR).await.err(), Some(StatusCode::UNAUTHORIZED));
    let second = Link::try_open(service.addr, "e1", EDGE).await.unwrap();
    first.hears("replaced").await;
    first.ended().await;
    assert_eq!(edge_view(&service, "e1").await["isConnected"], true, "by the newer one");
    drop(second);
    becomes(async || edge_view(&service, "e1").await, |view| view["isConnected"] == false).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_edge_talks_nonsense_or_is_removed() {
    let (_dir, service) = start().await;
    for spoilt in [b"no JSON\n".to_vec(), b"{\"type\":\"report\"}\n".to_vec(), vec![b'x'; wire::report::UP_LINE_BYTES_MAX + 1]] {
        let link = Link::open(&service, "e1", &at("berlin", "e1")).await;
        link.says_bytes(b"\n{\"type\":\"later\",\"x\":1}\n".as_slice().into());
        link.says_bytes(spoilt.into());
        link.ended().await;
    }
    let link = Link::open(&service, "e1", &at("berlin", "e1")).await;
    service.send(with(Method::DELETE, "/fleet/edges/e1", OPERATOR, &json!(null))).await;
    link.reports(&json!({}));
    link.ended().await;
}

#[tokio::test]
async fn a_stream_on_which_an_edge_falls_silent_is_given_up_and_control_beats_meanwhile() {
    let dir = directory();
    let control = Control::open(Config { edge_timeout: Duration::from_millis(600), ..config(dir.path()) }).await.unwrap();
    let addr = control.addr();
    tokio::spawn(control.run(Default::default()));
    send(addr, with(Method::PUT, "/fleet/edges/e1", EDGE, &registration("e1"))).await;
    let mut link = Link::try_open(addr, "e1", EDGE).await.unwrap();
    assert_eq!(link.hears("hello").await["reportEveryMs"], 200);
    link.ended().await;
}

#[tokio::test]
async fn control_stops_without_waiting_for_streams() {
    let (_dir, service) = start().await;
    let link = Link::open(&service, "e1", &at("berlin", "e1")).await;
    // The edge reads on: it is control that ends the stream, and only then can it stop.
    tokio::join!(service.stop(), link.ended());
}

#[tokio::test]
async fn a_purge_is_carried_out_by_every_edge_that_is_there() {
    let (_dir, service) = start().await;
    let mut links = Vec::new();
    for (edge, site) in [("e1", "berlin"), ("e2", "berlin"), ("e3", "paris")] {
        links.push(Link::open(&service, edge, &at(site, edge)).await);
    }
    let purge = json!({ "purge": [{ "prefix": "/titles/a/" }, "all"], "site": "berlin" });
    let obeying = async {
        for (link, error) in [(0, None), (1, Some("no disk"))] {
            let command = links[link].hears("command").await;
            assert_eq!(command["command"], json!({ "name": "purge", "purge": [{ "prefix": "/titles/a/" }, "all"] }));
            links[link].done(&command["id"], error);
        }
    };
    let ((), (status, view)) = tokio::join!(obeying, told(&service, "/purges", &purge));
    assert_eq!((status, &view["number"], &view["isDone"]), (StatusCode::OK, &json!(1), &json!(true)));
    let states: Vec<_> =
        view["edges"].as_array().unwrap().iter().map(|edge| (&edge["edge"], &edge["state"], &edge["error"])).collect();
    assert_eq!(states, [(&json!("e1"), &json!("done"), &json!(null)), (&json!("e2"), &json!("failed"), &json!("no disk"))]);

    // The site's purge was not for this one, the next is.
    let next = json!({ "purge": ["all"], "edge": "e3" });
    let obeying = async {
        let command = links[2].hears("command").await;
        links[2].done(&command["id"], None);
    };
    let ((), (status, view)) = tokio::join!(obeying, told(&service, "/purges", &next));
    assert_eq!((status, view["edges"].as_array().unwrap().len()), (StatusCode::OK, 1));
    let looked_up = service.send(with(Method::GET, "/purges/2", OPERATOR, &json!(null))).await.json();
    assert_eq!(looked_up, view);
}

#[tokio::test]
async fn an_edge_that_was_away_is_told_what_was_purged_also_after_a_restart_of_control() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    drop(Link::open(&service, "e1", &at("berlin", "e1")).await);
    becomes(async || edge_view(&service, "e1").await, |view| view["isConnected"] == false).await;
    for tag in ["a", "b", "c"] {
        let (status, view) = told(&service, "/purges", &json!({ "purge": [{ "tag": tag }] })).await;
        assert_eq!((status, &view["edges"][0]["state"]), (StatusCode::ACCEPTED, &json!("away")));
    }
    service.stop().await;

    let service = start_in(dir.path()).await.unwrap();
    let mut link = Link::open(&service, "e1", &at("berlin", "e1")).await;
    for tag in ["a", "b"] {
        let command = link.hears("command").await;
        assert_eq!(command["command"]["purge"], json!([{ "tag": tag }]));
        link.done(&command["id"], None);
    }
    let last = link.hears("command").await;
    let state = async |number: u64| {
        let view = service.send(with(Method::GET, &format!("/purges/{number}"), OPERATOR, &json!(null))).await.json();
        view["edges"][0]["state"].clone()
    };
    becomes(async || state(2).await, |state| state == "done").await;
    assert_eq!(state(3).await, "pending");
    drop(link);
    // What was not answered comes again, and nothing that was.
    let mut link = Link::open(&service, "e1", &at("berlin", "e1")).await;
    assert_eq!(link.hears("command").await["command"], last["command"]);
    // Whoever comes new may have been here before, and is told all that is kept.
    let mut newcomer = Link::open(&service, "e9", &at("berlin", "e9")).await;
    for tag in ["a", "b", "c"] {
        assert_eq!(newcomer.hears("command").await["command"]["purge"], json!([{ "tag": tag }]));
    }
    drop(link);
    let removed = service.send(with(Method::DELETE, "/fleet/edges/e1", OPERATOR, &json!(null))).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    let mut link = Link::open(&service, "e1", &at("berlin", "e1")).await;
    assert_eq!(link.hears("command").await["command"]["purge"], json!([{ "tag": "a" }]), "and so it is when it was removed");
}

#[tokio::test]
async fn what_names_nothing_is_not_purged() {
    let (_dir, service) = start().await;
    service.edge_up("e1").await;
    for (body, status, kind) in [
        (json!({ "purge": [] }), 422, "flawed-purge"),
        (json!({ "purge": [{ "object": "a" }] }), 422, "flawed-purge"),
        (json!({ "purge": ["all"], "edge": "e9" }), 404, "no-such-edge"),
        (json!({ "purge": ["all"], "site": "nowhere" }), 404, "no-such-site"),
    ] {
        let (found, problem) = told(&service, "/purges", &body).await;
        assert_eq!((found.as_u16(), &problem["type"]), (status, &json!(format!("/problems/{kind}"))), "{problem}");
    }
    let unknown = service.send(with(Method::GET, "/purges/7", OPERATOR, &json!(null))).await;
    assert_eq!((unknown.status, &unknown.json()["type"]), (StatusCode::NOT_FOUND, &json!("/problems/no-such-purge")));
}

#[tokio::test]
async fn a_drained_edge_gets_nobody_and_is_told_so_also_after_a_restart() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    service.publish(&title("demo")).await;
    let mut link = Link::open(&service, "e1", &at("berlin", "e1")).await;
    link.reports(&json!({}));
    becomes(async || ranked(&service).await, |edges| edges == &["e1"]).await;
    assert_eq!(told(&service, "/fleet/edges/e1/drain", &json!(null)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ranked(&service).await, Vec::<String>::new(), "from the answer on, whatever the edge says");
    assert_eq!(link.hears("command").await["command"], json!({ "name": "drain" }));
    link.reports(&json!({}));
    assert_eq!(edge_view(&service, "e1").await["isDrained"], true);
    assert_eq!(told(&service, "/fleet/edges/e9/drain", &json!(null)).await.0, StatusCode::NOT_FOUND);
    service.stop().await;

    let service = start_in(dir.path()).await.unwrap();
    let mut link = Link::try_open(service.addr, "e1", EDGE).await.unwrap();
    assert_eq!(link.hears("hello").await["isDrained"], true);
    assert_eq!(told(&service, "/fleet/edges/e1/undrain", &json!(null)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(link.hears("command").await["command"], json!({ "name": "undrain" }));
    link.reports(&json!({}));
    becomes(async || ranked(&service).await, |edges| edges == &["e1"]).await;
}

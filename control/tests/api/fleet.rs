use std::time::Duration;

use control::{Config, Control};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{
    EDGE, OPERATOR, Service, config, directory, registration, report, request, send, start, start_in, title, with,
};

async fn ranked(service: &Service) -> Vec<String> {
    let playback = service.get("/videos/demo/playback").await.json();
    playback["edges"].as_array().into_iter().flatten().map(|edge| edge["edge"].as_str().unwrap().to_owned()).collect()
}

async fn edges(service: &Service) -> Value {
    service.send(with(Method::GET, "/fleet/edges", OPERATOR, &json!(null))).await.json()["edges"].clone()
}

#[tokio::test]
async fn an_edge_is_ranked_from_its_first_report_until_it_drains() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    let register = || with(Method::PUT, "/fleet/edges/e1", EDGE, &registration("e1"));
    assert_eq!(service.report("e1", "ready").await.status, StatusCode::NOT_FOUND, "so the edge registers again");
    assert_eq!(service.send(register()).await.status, StatusCode::CREATED);
    assert_eq!(ranked(&service).await, Vec::<String>::new(), "registered, but not heard of");
    assert_eq!(edges(&service).await[0]["health"], "silent");
    service.report("e1", "ready").await;
    assert_eq!(ranked(&service).await, ["e1"]);
    assert_eq!(service.send(register()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ranked(&service).await, ["e1"], "registering again is harmless");
    service.report("e1", "draining").await;
    assert_eq!(ranked(&service).await, Vec::<String>::new());
}

#[tokio::test]
async fn operators_see_every_edge_and_its_last_report() {
    let (_dir, service) = start().await;
    service.edge_up("e1").await;
    service.send(with(Method::PUT, "/fleet/edges/e2", EDGE, &registration("e2"))).await;
    let edges = edges(&service).await;
    let expected = json!({ "edge": "e1", "site": "site-1", "url": "https://e1.example:8443", "version": "0.1.0", "health": "ready",
                           "isDrained": false, "isConnected": false, "loadPermille": 250, "slices": null, "prefixes": 0,
                           "reportAgeMs": edges[0]["reportAgeMs"], "report": report("ready") });
    assert_eq!(edges[0], expected);
    assert!(edges[0]["reportAgeMs"].as_u64().unwrap() < 60_000);
    assert_eq!(
        (&edges[1]["health"], &edges[1]["reportAgeMs"], &edges[1]["report"]),
        (&json!("silent"), &json!(null), &json!(null))
    );
}

#[tokio::test]
async fn an_edge_that_falls_silent_leaves_the_rankings() {
    let dir = directory();
    let timeout = Duration::from_millis(100);
    let control = Control::open(Config { edge_timeout: timeout, ..config(dir.path()) }).await.unwrap();
    let addr = control.addr();
    tokio::spawn(control.run(Default::default()));
    send(addr, with(Method::PUT, "/videos/demo", OPERATOR, &title("demo"))).await;
    send(addr, with(Method::PUT, "/fleet/edges/e1", EDGE, &registration("e1"))).await;
    send(addr, with(Method::POST, "/fleet/edges/e1/reports", EDGE, &report("ready"))).await;
    // Time itself is awaited here; how an edge stands at a given time is tested without a clock beside the code.
    tokio::time::sleep(timeout).await;
    let reply = send(addr, request(Method::GET, "/videos/demo/playback")).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_edge_known_from_before_a_restart_is_ranked_after_its_next_report() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    service.publish(&title("demo")).await;
    service.edge_up("e1").await;
    service.stop().await;

    let service = start_in(dir.path()).await.unwrap();
    assert_eq!(ranked(&service).await, Vec::<String>::new());
    assert_eq!(service.report("e1", "ready").await.status, StatusCode::NO_CONTENT, "it need not register again");
    assert_eq!(ranked(&service).await, ["e1"]);
}

#[tokio::test]
async fn a_removed_edge_is_forgotten_for_good() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    service.edge_up("e1").await;
    let remove = || with(Method::DELETE, "/fleet/edges/e1", OPERATOR, &json!(null));
    assert_eq!(service.send(remove()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.send(remove()).await.status, StatusCode::NOT_FOUND);
    service.stop().await;
    let service = start_in(dir.path()).await.unwrap();
    assert_eq!(edges(&service).await, json!([]));
}

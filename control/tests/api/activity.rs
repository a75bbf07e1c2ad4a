use control::config::KeySource;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    issuer::{Key, claims, jwks},
    service::{EDGE, OPERATOR, Reply, Service, config, directory, request, start, start_in, start_with, title, with},
    tokens::viewers,
};

/// A batch as anybody sends it.
fn batch(events: &Value) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = with(Method::POST, "/activity", OPERATOR, &json!({ "sentAt": "2001-01-01T00:00:01Z", "events": events }));
    request.headers_mut().remove("authorization");
    request
}

/// The same from a relay.
fn relayed(events: &Value) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    with(Method::POST, "/activity", OPERATOR, &json!({ "sentAt": "2001-01-01T00:00:01Z", "events": events }))
}

fn event(kind: &str, id: &str, title: &str, more: &Value) -> Value {
    let mut event = json!({ "type": kind, "id": id, "at": "2001-01-01T00:00:00Z", "session": "s1", "title": title });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

fn plays(title: &str, count: usize) -> Vec<Value> {
    (0..count).map(|n| event("play", &format!("{title}-{n}"), title, &json!({}))).collect()
}

/// A user who watched `titles`.
fn watched(user: &str, titles: &[&str]) -> Vec<Value> {
    let stop = |title: &&str| event("stop", &format!("{user}-{title}"), title, &json!({ "user": user, "playedMs": 200_000 }));
    titles.iter().map(stop).collect()
}

/// Asks until the answer is as it should be: what is sent is folded in its own time.
async fn until(
    service: &Service,
    ask: impl Fn() -> http::Request<http_body_util::Full<bytes::Bytes>>,
    is_so: impl Fn(&Reply) -> bool,
) -> Reply {
    loop {
        let reply = service.send(ask()).await;
        if is_so(&reply) {
            return reply;
        }
        tokio::task::yield_now().await;
    }
}

async fn metric(service: &Service, line: &str) -> f64 {
    let metrics = service.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.unwrap_or_else(|| panic!("{line} is not in {text}")).trim().parse().unwrap()
}

#[tokio::test]
async fn events_are_kept_once_and_each_flaw_is_told() {
    let (_dir, service) = start().await;
    let quality = json!({ "cmcd": { "br": 4500, "bl": 12300, "sta": "p", "pr": 1.5, "bs": false, "cdn": "e1", "ec": ["E1"] } });
    let events = json!([
        event("play", "1", "demo", &json!({})),
        event("quality", "2", "demo", &quality),
        event("stop", "3", "demo", &json!({})),
        7
    ]);
    let reply = service.send(batch(&events)).await;
    assert_eq!((reply.status, reply.header("cache-control")), (StatusCode::ACCEPTED, "no-store"));
    let receipt = reply.json();
    assert_eq!((&receipt["accepted"], &receipt["refused"]), (&json!(2), &json!({ "malformed": 1, "missing-field": 1 })));
    assert_eq!(
        receipt["flaws"][0],
        json!({ "reason": "missing-field", "pointer": "/events/2/playedMs", "detail": "an event of type stop has one" })
    );
    let again = service.send(batch(&events)).await.json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(2)));
    assert_eq!(metric(&service, r#"larder_control_activity_events_total{kind="play",outcome="accepted"}"#).await, 1.0);
    assert_eq!(metric(&service, r#"larder_control_activity_refused_total{reason="missing-field"}"#).await, 2.0);
    assert_eq!(metric(&service, "larder_control_activity_duplicates_total").await, 2.0);
}

#[tokio::test]
async fn what_is_no_batch_is_a_problem() {
    let (_dir, service) = start().await;
    let kind = |reply: &Reply| reply.json()["type"].as_str().unwrap().to_owned();
    let mut not_json = batch(&json!([]));
    not_json.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(kind(&service.send(not_json).await), "/problems/not-json");
    assert_eq!(kind(&service.send(batch(&json!(7))).await), "/problems/bad-body");
    assert_eq!(kind(&service.send(batch(&json!(plays("demo", 1001)))).await), "/problems/bad-body");
    let large = event("play", "1", "demo", &json!({ "rendition": "x".repeat(600_000) }));
    assert_eq!(kind(&service.send(batch(&json!([large]))).await), "/problems/body-too-large");
    let edge = with(Method::POST, "/activity", "nobody's secret, long enough", &json!({ "events": [] }));
    assert_eq!(service.send(edge).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn only_an_operator_says_whose_an_event_is_and_where() {
    let (_dir, service) = start().await;
    let events = json!([event("play", "1", "demo", &json!({ "user": "ann", "region": "de-by" }))]);
    assert_eq!(service.send(batch(&events)).await.json()["refused"], json!({ "not-allowed": 1 }));
    assert_eq!(service.send(relayed(&events)).await.json()["accepted"], 1);
    let nobody = json!([event("play", "2", "demo", &json!({ "user": "Ann Else" }))]);
    assert_eq!(service.send(relayed(&nobody)).await.json()["refused"], json!({ "bad-value": 1 }), "no token names her so");
    let audit = service.send(with(Method::GET, "/audit", OPERATOR, &json!(null))).await.json();
    assert_eq!(audit["entries"], json!([]), "what a relay passes on is not her deed");
}

#[tokio::test]
async fn where_control_is_not_open_strangers_send_nothing() {
    let dir = directory();
    let service = start_with(control::Config { anonymous: false, ..config(dir.path()) }).await.unwrap();
    assert_eq!(service.send(batch(&json!([]))).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.send(relayed(&json!([]))).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_is_played_is_trending_where_it_is_played() {
    let (_dir, service) = start().await;
    for id in ["a", "b", "c"] {
        service.publish(&title(id)).await;
    }
    assert_eq!(service.get("/trending").await.json(), json!({ "window": "hour", "region": null, "titles": [] }));
    let here = |mut events: Vec<Value>, region: &str| {
        events.iter_mut().for_each(|event| event["region"] = region.into());
        events
    };
    let events = [here(plays("a", 5), "de-by"), here(plays("b", 9), "de-be"), plays("invented", 30)].concat();
    service.send(relayed(&json!(events))).await;
    let list = |reply: &Reply| -> Vec<String> {
        let trends = reply.json();
        trends["titles"].as_array().unwrap().iter().map(|trend| trend["video"]["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = until(&service, || request(Method::GET, "/trending"), |reply| list(reply).len() == 2).await;
    assert_eq!(list(&all), ["b", "a"], "and nothing that is not catalogued");
    assert_eq!((&all.json()["titles"][0]["plays"], &all.json()["region"]), (&json!(9), &json!(null)));
    let of = async |query: &str| service.get(&format!("/trending?{query}")).await;
    assert_eq!(list(&of("region=de-by&window=day").await), ["a"]);
    assert_eq!(list(&of("region=elsewhere").await), ["b", "a"], "nothing is known of it");
    assert_eq!(list(&of("limit=1").await), ["b"]);
    for bad in ["window=year", "limit=0", "limit=51", "more=1", &format!("region={}", "x".repeat(65))] {
        assert_eq!(of(bad).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let mut same = request(Method::GET, "/trending?limit=1");
    same.headers_mut().insert("if-none-match", of("limit=1").await.header("etag").parse().unwrap());
    assert_eq!(service.send(same).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn there_is_always_something_to_watch() {
    let (_dir, service) = start().await;
    assert_eq!(service.get("/recommendations").await.json(), json!({ "rows": [] }), "but where there is nothing");
    for id in ["a", "b"] {
        service.publish(&title(id)).await;
    }
    let rows = service.get("/recommendations").await;
    assert_eq!(rows.header("cache-control"), "private, no-store");
    let rows = rows.json()["rows"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!((&rows[0]["id"], &rows[0]["kind"], &rows[0]["fallback"]), (&json!("new"), &json!("new"), &json!(false)));
    assert_eq!(rows[0]["videos"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn when_the_catalogue_fails_rows_are_what_they_were_a_while_ago() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    for id in ["a", "b"] {
        service.publish(&title(id)).await;
    }
    // What is known of the catalogue follows in its own time.
    while metric(&service, "larder_control_overview_titles").await < 2.0 {
        tokio::task::yield_now().await;
    }
    let database = rusqlite::Connection::open(dir.path().join("state/control.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    database.execute_batch("ALTER TABLE titles RENAME TO gone").unwrap();
    let rows = service.get("/recommendations").await.json()["rows"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["kind"], &rows[0]["fallback"]), (1, &json!("new"), &json!(true)));
    assert_eq!(rows[0]["videos"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn quality_is_told_to_operators_by_region() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    let report = json!({ "region": "de-by", "playedMs": 9000, "cmcd": { "br": 3000, "msd": 800, "bsd": 1000 } });
    service.send(relayed(&json!([event("quality", "1", "demo", &report)]))).await;
    let ask = || with(Method::GET, "/activity/quality?hours=2", OPERATOR, &json!(null));
    let reply = until(&service, ask, |reply| reply.json()["regions"].as_array().is_some_and(|regions| !regions.is_empty())).await;
    let region = &reply.json()["regions"][0];
    assert_eq!((&region["region"], &region["reports"], &region["stalledShare"]), (&json!("de-by"), &json!(1), &json!(0.1)));
    assert_eq!((&region["startMs"]["count"], &region["throughputKbps"]["p50"]), (&json!(1), &json!(null)));
    assert!(region["bitrateKbps"]["p50"].as_u64().unwrap().abs_diff(3000) <= 3000 / 16);
    assert_eq!(service.send(with(Method::GET, "/activity/quality", EDGE, &json!(null))).await.status, StatusCode::UNAUTHORIZED);
    let too_many = with(Method::GET, "/activity/quality?hours=841", OPERATOR, &json!(null));
    assert_eq!(service.send(too_many).await.status, StatusCode::BAD_REQUEST);
    // After a restart it is still known.
    service.stop().await;
    let service = start_in(dir.path()).await.unwrap();
    assert_eq!(service.send(ask()).await.json()["regions"][0]["reports"], 1);
}

/// A control that knows viewers.
async fn with_viewers() -> (TempDir, Service, Key) {
    let dir = directory();
    let key = Key::eddsa("ed");
    let set = dir.path().join("viewers.jwks");
    std::fs::write(&set, jwks(&[&key])).unwrap();
    let config = control::Config { viewers: Some(viewers(KeySource::File(set))), ..config(dir.path()) };
    let service = start_with(config).await.unwrap();
    (dir, service, key)
}

#[tokio::test]
async fn a_viewer_is_shown_what_those_watch_who_watch_what_she_watched() {
    let (_dir, service, key) = with_viewers().await;
    for (id, cast) in [("a", "One"), ("b", "Two"), ("c", "One"), ("d", "Three"), ("seen", "One")] {
        let mut title = title(id);
        title["cast"] = json!([cast]);
        service.publish(&title).await;
    }
    let others = (0..10).flat_map(|who| watched(&format!("u{who}"), &["a", "b", "seen"]));
    service.send(relayed(&json!(others.collect::<Vec<_>>()))).await;
    let token = key.token(&claims("ann"));
    let hers = json!([
        event("stop", "h1", "seen", &json!({ "playedMs": 5000 })),
        event("stop", "h2", "a", &json!({ "playedMs": 200_000 })),
    ]);
    let sent = with(Method::POST, "/activity", &token, &json!({ "sentAt": "2001-01-01T00:00:01Z", "events": hers }));
    assert_eq!(service.send(sent).await.json()["accepted"], 2);
    let ask = || with(Method::GET, "/recommendations", &token, &json!(null));
    // Folds, and the overview of the catalogue, follow in their own time.
    let reply = until(&service, ask, |reply| {
        let rows = reply.json();
        ["because-you-watched", "similar"]
            .iter()
            .all(|kind| rows["rows"].as_array().unwrap().iter().any(|row| row["kind"] == *kind))
    })
    .await;
    let rows = reply.json();
    let of = |row: &Value| -> Vec<String> {
        row["videos"].as_array().unwrap().iter().map(|video| video["id"].as_str().unwrap().to_owned()).collect()
    };
    let ids: Vec<_> = rows["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["because-you-watched:a", "new", "similar:a"]);
    assert_eq!(
        (of(&rows["rows"][0]), &rows["rows"][0]["because"]),
        (vec!["b".to_owned()], &json!("a")),
        "and not what she began"
    );
    assert_eq!(of(&rows["rows"][2]), ["c"]);
    let anybody = service.get("/recommendations").await.json();
    assert_eq!(anybody["rows"].as_array().unwrap().len(), 1, "what is hers is hers alone");
}

#[tokio::test]
async fn what_is_begun_stands_first_and_who_is_forgotten_is_anybody() {
    let (_dir, service, key) = with_viewers().await;
    for id in ["a", "b"] {
        service.publish(&title(id)).await;
    }
    let token = key.token(&claims("ann"));
    let ask = || with(Method::GET, "/recommendations", &token, &json!(null));
    let rows = |reply: &Reply| -> Vec<String> {
        reply.json()["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    // What is ahead of the clock is now.
    let at = json!({ "positionMs": 1000, "at": "2999-01-01T00:00:00Z" });
    let stopped = with(Method::PATCH, "/videos/a/last-watched-timestamp", &token, &at);
    assert_eq!(service.send(stopped).await.status, StatusCode::NO_CONTENT);
    let reply = service.send(ask()).await;
    assert_eq!(rows(&reply), ["continue-watching", "new"]);
    assert_eq!(reply.json()["rows"][0]["videos"][0]["id"], "a");

    let others = (0..10).flat_map(|who| watched(&format!("u{who}"), &["a", "b"]));
    service.send(relayed(&json!(others.chain(watched("ann", &["a"])).collect::<Vec<_>>()))).await;
    let is_known = |reply: &Reply| rows(reply).contains(&"because-you-watched:a".to_owned());
    until(&service, ask, is_known).await;
    let export = || with(Method::GET, "/users/ann", OPERATOR, &json!(null));
    assert_eq!(service.send(export()).await.json()["knownTitles"], json!(["a"]));
    assert_eq!(service.send(with(Method::DELETE, "/me", &token, &json!(null))).await.status, StatusCode::NO_CONTENT);
    // Forgetting is in the log by then, and folded in its own time.
    let reply = until(&service, ask, |reply| !is_known(reply)).await;
    assert_eq!(rows(&reply), ["new"]);
    assert_eq!(service.send(export()).await.json()["knownTitles"], json!([]));
}

use std::{fs, time::Duration};

use control::{
    Config,
    config::SteeringConfig,
    steering::record::{LINE_BYTES_MAX, Line},
};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    link::{Link, becomes},
    service::{OPERATOR, Reply, Service, config, directory, registration, request, start, start_in, start_with, title, with},
};

/// Where a steered player's address leads, on this control.
fn path(url: &str) -> &str {
    let rest = url.strip_prefix("http://control.test").unwrap_or(url);
    assert!(rest.starts_with("/steering/"), "{url}");
    rest
}

async fn playing(edges: &[&str]) -> (tempfile::TempDir, Service) {
    let (dir, service) = start().await;
    service.publish(&title("demo")).await;
    for edge in edges {
        service.edge_up(edge).await;
    }
    (dir, service)
}

async fn playback(service: &Service) -> Value {
    service.get("/videos/demo/playback").await.json()
}

async fn text(service: &Service, url: &str) -> String {
    let reply = service.get(path(url)).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    assert_eq!((reply.header("access-control-allow-origin"), reply.header("cache-control")), ("*", "no-store"));
    String::from_utf8(reply.body.into()).unwrap()
}

/// The address in a playlist's `EXT-X-CONTENT-STEERING`.
fn server(playlist: &str) -> &str {
    let line = playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-CONTENT-STEERING:SERVER-URI=\"")).unwrap();
    line.split('"').next().unwrap()
}

/// The pathway that a playlist begins with.
fn first_pathway(playlist: &str) -> &str {
    let line = playlist.lines().find(|line| line.starts_with("#EXT-X-CONTENT-STEERING:")).unwrap();
    line.split("PATHWAY-ID=\"").nth(1).unwrap().trim_end_matches('"')
}

async fn steered(service: &Service, url: &str, query: &str) -> Value {
    let joint = if url.contains('?') { '&' } else { '?' };
    let reply = service.get(&format!("{}{joint}{query}", path(url))).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (StatusCode::OK, "*"), "{reply:?}");
    reply.json()
}

fn priority(manifest: &Value) -> Vec<&str> {
    manifest["PATHWAY-PRIORITY"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_player_follows_the_ranking_from_its_playlist_on() {
    let (_dir, service) = playing(&["e1", "e2"]).await;
    let playback = playback(&service).await;
    let playlist = text(&service, playback["hls"].as_str().unwrap()).await;
    let best = playback["edges"][0]["edge"].as_str().unwrap();
    assert_eq!(first_pathway(&playlist), best);
    // Two renditions of video on two pathways, each with an address that an edge takes.
    let urls: Vec<_> = playlist.lines().filter(|line| line.starts_with("https://")).collect();
    assert_eq!(urls.len(), 4);
    for edge in ["e1", "e2"] {
        let base = format!("https://{edge}.example:8443/");
        assert_eq!(urls.iter().filter(|url| url.starts_with(&base) && url.ends_with("/playlist.m3u8")).count(), 2, "{urls:?}");
    }
    let manifest = steered(&service, server(&playlist), &format!("_HLS_pathway={best}&_HLS_throughput=4000000")).await;
    assert_eq!((&manifest["VERSION"], &manifest["TTL"], manifest.get("PATHWAY-CLONES")), (&json!(1), &json!(30), None));
    assert_eq!((priority(&manifest)[0], priority(&manifest).len()), (best, 2));

    service.report(best, "draining").await;
    let next = steered(&service, manifest["RELOAD-URI"].as_str().unwrap(), "").await;
    let other = if best == "e1" { "e2" } else { "e1" };
    assert_eq!(priority(&next), [other], "at its next question");
    service.report(other, "draining").await;
    let nobody = steered(&service, next["RELOAD-URI"].as_str().unwrap(), "").await;
    assert_eq!(priority(&nobody).len(), 2, "where nobody can serve it stays where it is");
}

#[tokio::test]
async fn an_edge_that_came_later_is_cloned() {
    let (_dir, service) = playing(&["e1"]).await;
    let playlist = text(&service, playback(&service).await["hls"].as_str().unwrap()).await;
    service.edge_up("e2").await;
    let manifest = steered(&service, server(&playlist), "_HLS_pathway=e1").await;
    let clones = json!([{ "BASE-ID": "e1", "ID": "e2", "URI-REPLACEMENT": { "HOST": "e2.example" } }]);
    assert_eq!((&manifest["PATHWAY-CLONES"], priority(&manifest).len()), (&clones, 2));
    let of_dash = steered(&service, server(&playlist), "_DASH_pathway=%22e1%22&_DASH_throughput=1000").await;
    assert_eq!(of_dash["PATHWAY-CLONES"][0]["URI-REPLACEMENT"], json!({ "HOST": "e2.example:8443" }));
}

#[tokio::test]
async fn dash_is_steered_by_the_same_server() {
    let (_dir, service) = playing(&["e1", "e2"]).await;
    let playback = playback(&service).await;
    let manifest = text(&service, playback["dash"].as_str().unwrap()).await;
    for part in [
        "<BaseURL serviceLocation=\"e1\">https://e1.example:8443/",
        "<BaseURL serviceLocation=\"e2\">https://e2.example:8443/",
        "media=\"v720/$Number%05d$.m4s\" startNumber=\"1\"",
        "<S t=\"0\" d=\"4000\" r=\"1\"/>\n            <S d=\"2000\"/>",
        "mediaPresentationDuration=\"PT10.000S\"",
    ] {
        assert!(manifest.contains(part), "{part} is not in\n{manifest}");
    }
    let url = manifest.split("queryBeforeStart=\"false\">").nth(1).unwrap().split('<').next().unwrap();
    let order = steered(&service, url, "_DASH_pathway=%22e1,e2%22&_DASH_throughput=5000000,1000").await;
    assert_eq!(priority(&order).len(), 2);
    // A player that tells nothing, in its first question and in its next, is answered as a player of DASH.
    service.edge_up("e3").await;
    let best = &playback["edges"][0]["edge"];
    let clones = json!([{ "BASE-ID": best, "ID": "e3", "URI-REPLACEMENT": { "HOST": "e3.example:8443" } }]);
    for url in [url, order["RELOAD-URI"].as_str().unwrap()] {
        assert_eq!(steered(&service, url, "").await["PATHWAY-CLONES"], clones, "{url}");
    }
}

#[tokio::test]
async fn sessions_that_were_never_given_or_are_over_are_told_apart() {
    let (dir, service) = playing(&["e1"]).await;
    for path in ["/steering/forged", "/steering/forged/master.m3u8", "/steering/forged/manifest.mpd"] {
        let reply = service.get(path).await;
        assert_eq!((reply.status, &reply.json()["type"]), (StatusCode::NOT_FOUND, &json!("/problems/no-such-session")), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), "*", "players may read what went wrong");
    }
    let hls = playback(&service).await["hls"].as_str().unwrap().to_owned();
    let mut anew = title("demo");
    anew["root"] = json!("/titles/another");
    service.publish(&anew).await;
    let over = service.get(path(&hls)).await;
    assert_eq!(
        (over.status, &over.json()["type"]),
        (StatusCode::GONE, &json!("/problems/session-over")),
        "another version of the title"
    );
    service.stop().await;

    let service = start_with(Config { token_lifetime: Duration::ZERO, ..config(dir.path()) }).await.unwrap();
    service.edge_up("e1").await;
    let hls = playback(&service).await["hls"].as_str().unwrap().to_owned();
    assert_eq!(service.get(path(&hls)).await.status, StatusCode::GONE, "expired at once");
}

#[tokio::test]
async fn a_session_goes_on_after_a_restart_of_control() {
    let (dir, service) = playing(&["e1"]).await;
    let playlist = text(&service, playback(&service).await["hls"].as_str().unwrap()).await;
    service.stop().await;
    let service = start_in(dir.path()).await.unwrap();
    let manifest = steered(&service, server(&playlist), "_HLS_pathway=e1").await;
    assert_eq!(priority(&manifest), ["e1"], "no edge has reported yet, so it stays where it is");
}

#[tokio::test]
async fn addresses_are_as_configured_or_as_the_request_names_control() {
    let (_dir, service) = playing(&["e1"]).await;
    assert!(playback(&service).await["hls"].as_str().unwrap().starts_with("http://control.test/steering/"));
    let strange = with_host("evil@control.test");
    assert_eq!(service.send(strange).await.status, StatusCode::BAD_REQUEST);

    let dir = directory();
    let steering = SteeringConfig { public_url: Some("https://play.example".parse().unwrap()), ..SteeringConfig::default() };
    let service = start_with(Config { steering, ..config(dir.path()) }).await.unwrap();
    service.publish(&title("demo")).await;
    service.edge_up("e1").await;
    assert!(playback(&service).await["hls"].as_str().unwrap().starts_with("https://play.example/steering/"));
}

fn with_host(host: &'static str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = request(Method::GET, "/videos/demo/playback");
    request.headers_mut().insert("host", HeaderValue::from_static(host));
    request
}

/// From a client of the network that berlin announces.
async fn from_berlin(service: &Service, path: &str) -> Reply {
    let mut request = request(Method::GET, path);
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
    service.send(request).await
}

async fn misses(service: &Service, query: &str) -> Value {
    service.send(with(Method::GET, &format!("/steering/misses?{query}"), OPERATOR, &json!(null))).await.json()
}

/// Two sites of one edge each: e1 at berlin, which announces the clients' network, and e2 at paris, which has the title.
async fn two_sites() -> (tempfile::TempDir, Service, Link, Link) {
    let (dir, service) = start().await;
    service.publish(&title("demo")).await;
    let mut at_berlin = registration("e1");
    (at_berlin["site"], at_berlin["prefixes"]) = (json!("berlin"), json!(["203.0.113.0/24"]));
    let mut at_paris = registration("e2");
    at_paris["site"] = json!("paris");
    let (e1, e2) = (Link::open(&service, "e1", &at_berlin).await, Link::open(&service, "e2", &at_paris).await);
    for link in [&e1, &e2] {
        link.reports(&json!({}));
    }
    let root = title("demo")["root"].as_str().unwrap().to_owned();
    e2.holds((1..4).map(|number| format!("{root}/v720/{number:05}.m4s")));
    e1.holds(["/titles/other/v720/00001.m4s".to_owned()]);
    becomes(
        async || {
            let explained = with(Method::GET, "/steering/explain?client=203.0.113.7&video=demo", OPERATOR, &json!(null));
            service.send(explained).await.json()
        },
        |explained| {
            let is_announced = explained["candidates"].as_array().unwrap().iter().any(|edge| edge["prefix"] == "203.0.113.0/24");
            let is_missed = explained["home"] == "berlin" && explained["miss"] == "content";
            is_announced && is_missed && explained["candidates"][0]["content"] == "holds"
        },
    )
    .await;
    (dir, service, e1, e2)
}

#[tokio::test]
async fn what_the_nearest_site_lacks_is_a_content_miss_in_seconds_and_bytes() {
    let (_dir, service, _e1, _e2) = two_sites().await;
    let playback = from_berlin(&service, "/videos/demo/playback").await.json();
    assert_eq!(playback["edges"][0]["edge"], "e2", "the one that has it");
    let playlist = text(&service, playback["hls"].as_str().unwrap()).await;
    // Time itself is counted here.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let played = format!("{}?_HLS_pathway=e2&_HLS_throughput=9000000", path(server(&playlist)));
    let asked = async || assert_eq!(from_berlin(&service, &played).await.status, StatusCode::OK);
    asked().await;
    let account = misses(&service, "").await;
    asked().await;
    asked().await;
    assert_eq!(misses(&service, "").await, account, "one question counts once, however often it is asked");
    let row = &account["rows"][0];
    assert_eq!((&row["video"], &row["site"], &row["playbacks"]), (&json!("demo"), &json!("berlin"), &json!(1)));
    assert_eq!((&row["contentMiss"]["playbacks"], &row["healthMiss"]["playbacks"]), (&json!(1), &json!(0)));
    let (seconds, bytes) = (row["contentMiss"]["seconds"].as_f64().unwrap(), row["contentMiss"]["bytes"].as_f64().unwrap());
    assert!(seconds >= 0.05, "{seconds}");
    // The mean of the best rendition, and of audio.
    assert!((bytes - seconds * 1_564_000.0 / 8.0).abs() < 2.0, "{bytes} in {seconds}");
    assert_eq!(row["served"]["seconds"], row["contentMiss"]["seconds"]);
    assert_eq!(
        (&account["total"]["playbacks"], misses(&service, "site=paris").await["rows"].as_array().unwrap().len()),
        (&json!(1), 0)
    );
    let by_site = misses(&service, "by=site&hours=1&video=demo").await;
    assert_eq!((&by_site["rows"][0]["video"], &by_site["rows"][0]["site"]), (&json!(null), &json!("berlin")));
    let refused = service.send(with(Method::GET, "/steering/misses?hours=99", OPERATOR, &json!(null))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_full_nearest_site_is_a_health_miss_and_a_player_at_home_is_none() {
    let (_dir, service, e1, _e2) = two_sites().await;
    let root = title("demo")["root"].as_str().unwrap().to_owned();
    e1.holds((1..4).map(|number| format!("{root}/v360/{number:05}.m4s")));
    let home = async || from_berlin(&service, "/videos/demo/playback").await.json();
    let at_home = becomes(home, |playback| playback["edges"][0]["edge"] == "e1").await;
    let url = |playback: &Value| playback["hls"].as_str().unwrap().to_owned();
    let playlist = text(&service, &url(&at_home)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let reply = from_berlin(&service, &format!("{}?_HLS_pathway=e1", path(server(&playlist)))).await;
    assert_eq!(reply.status, StatusCode::OK);

    e1.reports(&json!({ "load": { "bitsPerSecond": 99, "bitsPerSecondMax": 100 } }));
    let away = becomes(home, |playback| playback["edges"][0]["edge"] == "e2").await;
    let playlist = text(&service, &url(&away)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    from_berlin(&service, &format!("{}?_HLS_pathway=e2", path(server(&playlist)))).await;
    let row = misses(&service, "").await["rows"][0].clone();
    let (served, missed) = (row["served"]["seconds"].as_f64().unwrap(), row["healthMiss"]["seconds"].as_f64().unwrap());
    assert!(missed >= 0.02 && served >= missed + 0.02, "{row}");
    assert_eq!(row["contentMiss"]["seconds"], 0.0);
    let metrics = service.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.into()).unwrap();
    assert!(metrics.contains("larder_control_missed_seconds_total{reason=\"health\"}"), "{metrics}");
    assert!(metrics.contains("larder_control_edge_streams 2"), "{metrics}");
}

#[tokio::test]
async fn why_an_edge_was_chosen_or_not_is_told_of_every_edge() {
    let (_dir, service, e1, _e2) = two_sites().await;
    let ask =
        async |query: &str| service.send(with(Method::GET, &format!("/steering/explain?{query}"), OPERATOR, &json!(null))).await;
    let explained = ask("client=203.0.113.7&video=demo").await.json();
    let told: Vec<_> = explained["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| (&edge["edge"], &edge["place"], &edge["content"]))
        .collect();
    assert_eq!(told, [(&json!("e2"), &json!(1), &json!("holds")), (&json!("e1"), &json!(2), &json!("lacks"))]);
    assert_eq!(explained["candidates"][1]["prefix"], "203.0.113.0/24");
    assert_eq!(explained["candidates"][1]["reason"], "it does not hold the title and would have to fetch it");
    e1.reports(&json!({ "health": "draining" }));
    becomes(
        async || ask("client=203.0.113.7&video=demo").await.json(),
        |explained| explained["candidates"][1]["reason"] == "it drains: it takes nobody new" && explained["miss"] == "health",
    )
    .await;
    for (query, status) in [("client=x&video=demo", 400), ("client=203.0.113.7", 400), ("client=203.0.113.7&video=none", 404)] {
        assert_eq!(ask(query).await.status.as_u16(), status, "{query}");
    }
    assert_eq!(service.get("/steering/explain?client=203.0.113.7&video=demo").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn decisions_are_recorded_with_the_fleet_that_they_were_taken_in() {
    let (dir, service) = playing(&["e1", "e2"]).await;
    for _ in 0..3 {
        playback(&service).await;
    }
    service.stop().await;
    let files: Vec<_> = fs::read_dir(dir.path().join("state/decisions")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let text = fs::read_to_string(&files[0]).unwrap();
    assert!(text.lines().all(|line| line.len() < LINE_BYTES_MAX));
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(matches!(lines[0], Line::Fleet(_)), "{text}");
    assert_eq!(lines.iter().filter(|line| matches!(line, Line::Decision(_))).count(), 3);
    assert!(!text.contains("127.0.0.1"), "nobody's address is written down");
}

//! What viewers do, as players and applications see it.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use control::{
    Config,
    config::{HistoryConfig, KeySource, OperatorConfig},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    issuer::{self, Key, claims, jwks, now_s},
    service::{self, OPERATOR, Reply, Service, config, directory, start_with, title, title_of},
    tokens::viewers,
};

const MINUTE_MS: u64 = 60_000;
const LOOKER: &str = "the-secret-of-someone-who-operates";

struct Stage {
    dir: TempDir,
    service: Service,
    key: Key,
}

fn stage_config(dir: &Path) -> Config {
    let token_file = dir.join("looker.token");
    std::fs::write(&token_file, LOOKER).unwrap();
    let operator = OperatorConfig { name: "ops".parse().unwrap(), role: "operator".parse().unwrap(), token_file };
    Config {
        viewers: Some(viewers(KeySource::File(dir.join("viewers.jwks")))),
        operators: vec![operator],
        history: HistoryConfig { commit_every: std::time::Duration::ZERO, ..HistoryConfig::default() },
        ..config(dir)
    }
}

/// A control with three titles: an hour, and two of ten minutes.
async fn start() -> Stage {
    let dir = directory();
    let key = Key::eddsa("ed");
    std::fs::write(dir.path().join("viewers.jwks"), jwks(&[&key])).unwrap();
    let service = start_with(stage_config(dir.path())).await.unwrap();
    for (id, segments) in [("film", 900), ("one", 150), ("two", 150)] {
        assert_eq!(service.publish(&title_of(id, segments)).await.status, StatusCode::CREATED);
    }
    Stage { dir, service, key }
}

impl Stage {
    async fn restart(self) -> Self {
        let Self { dir, service, key } = self;
        service.stop().await;
        let service = start_with(stage_config(dir.path())).await.unwrap();
        Self { dir, service, key }
    }

    async fn send(&self, method: Method, path: &str, who: &str, body: &Value) -> Reply {
        let mut said = claims(who.split('/').next().unwrap());
        if let Some((_, profile)) = who.split_once('/') {
            said = issuer::with(said, "profile", profile.into());
        }
        self.service.send(service::with(method, path, &self.key.token(&said), body)).await
    }

    async fn watch(&self, who: &str, id: &str, at: &str, position_ms: u64) -> Reply {
        let body = json!({ "positionMs": position_ms, "at": at });
        self.send(Method::PATCH, &format!("/videos/{id}/last-watched-timestamp"), who, &body).await
    }

    async fn watched(&self, who: &str, id: &str, at: &str, position_ms: u64) {
        let reply = self.watch(who, id, at, position_ms).await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT, "{reply:?}");
    }

    async fn get(&self, path: &str, who: &str) -> Value {
        let reply = self.send(Method::GET, path, who, &Value::Null).await;
        assert_eq!((reply.status, reply.header("cache-control")), (StatusCode::OK, "no-store"), "{reply:?}");
        reply.json()
    }

    async fn stopped(&self, who: &str, id: &str) -> u64 {
        self.get(&format!("/videos/{id}/last-watched-timestamp"), who).await["positionMs"].as_u64().unwrap()
    }

    async fn rate(&self, who: &str, id: &str, op: &str) -> StatusCode {
        self.send(Method::PATCH, &format!("/videos/{id}?op={op}"), who, &Value::Null).await.status
    }

    /// All pages of a list: the ids of the titles in its member `name`.
    async fn ids(&self, path: &str, name: &str, who: &str, limit: u32) -> Vec<String> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}?limit={limit}{cursor}"), who).await;
            let entries = page[name].as_array().unwrap();
            assert!(entries.len() <= limit as usize);
            ids.extend(entries.iter().map(|entry| entry["video"]["id"].as_str().unwrap().to_owned()));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&nextCursor={next}"),
                None => return ids,
            }
        }
    }
}

/// `ago_ms` before now, as RFC 3339 has it.
fn ago(ago_ms: u64) -> String {
    rfc3339(now_s() * 1000 - ago_ms)
}

/// Milliseconds since 1970, as RFC 3339 has them.
pub(crate) fn rfc3339(ms: u64) -> String {
    let (mut days, mut year) = (ms / 86_400_000, 1970);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second, ms) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", month + 1, days + 1)
}

fn strings(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn a_viewer_goes_on_where_she_stopped_on_whatever_device() {
    let stage = start().await;
    let nothing = stage.get("/videos/film/last-watched-timestamp", "alice").await;
    assert_eq!(
        nothing,
        json!({ "videoId": "film", "positionMs": 0, "furthestMs": 0, "finished": false, "at": null, "device": null })
    );
    let (first, second) = (ago(20 * MINUTE_MS), ago(10 * MINUTE_MS));
    let body = json!({ "positionMs": 700_000, "at": second, "device": "living room" });
    let kept = stage.send(Method::PATCH, "/videos/film/last-watched-timestamp", "alice", &body).await;
    assert_eq!((kept.status, kept.body.len()), (StatusCode::NO_CONTENT, 0));
    stage.watched("alice", "film", &first, 900_000).await;
    let expected = json!({
        "videoId": "film", "positionMs": 700_000, "furthestMs": 900_000, "finished": false, "at": second, "device": "living room"
    });
    assert_eq!(stage.get("/videos/film/last-watched-timestamp", "alice").await, expected, "the older one came late");
    assert_eq!(stage.stopped("alice/kids", "film").await, 0, "another profile is another viewer");
    let stage = stage.restart().await;
    assert_eq!(stage.get("/videos/film/last-watched-timestamp", "alice").await, expected, "also after a restart");
    stage.watched("alice", "film", &ago(0), 3_500_000).await;
    assert_eq!(stage.get("/videos/film/last-watched-timestamp", "alice").await["finished"], true);
}

#[tokio::test]
async fn a_clock_that_is_ahead_counts_as_now_and_what_is_very_old_is_refused() {
    let stage = start().await;
    stage.watched("alice", "film", "2199-01-01T00:00:00Z", 1000).await;
    let at = stage.get("/videos/film/last-watched-timestamp", "alice").await["at"].as_str().unwrap().to_owned();
    assert!(at >= ago(MINUTE_MS) && at.as_str() < "2199", "{at}");
    stage.watched("alice", "film", "2199-01-01T00:00:01+01:00", 2000).await;
    assert_eq!(stage.stopped("alice", "film").await, 2000, "and does not win over what comes later");
    let refused = stage.watch("alice", "film", &ago(91 * 86_400_000), 5).await;
    assert_eq!((refused.status, &refused.json()["pointer"]), (StatusCode::BAD_REQUEST, &json!("/at")));
    assert_eq!(refused.json()["detail"], "at: older than 90 days");
}

#[tokio::test]
async fn positions_that_make_no_sense_are_refused_or_set_right() {
    let stage = start().await;
    let path = "/videos/film/last-watched-timestamp";
    let now = ago(0);
    for (body, pointer) in [
        (json!({ "positionMs": 1, "at": "yesterday" }), "/at"),
        (json!({ "positionMs": 1, "at": now, "device": "" }), "/device"),
        (json!({ "positionMs": 1, "at": now, "device": "x".repeat(65) }), "/device"),
        (json!({ "positionMs": -1, "at": now }), ""),
        (json!({ "positionMs": 1 }), ""),
        (json!({ "positionMs": 1, "at": now, "more": 1 }), ""),
    ] {
        let reply = stage.send(Method::PATCH, path, "alice", &body).await;
        let found = reply.json()["pointer"].as_str().unwrap_or_default().to_owned();
        let status = reply.status.as_u16();
        assert!(matches!(status, 400 | 422) && found == pointer, "{body}: {status} {found:?}");
    }
    stage.watched("alice", "film", &now, u64::MAX).await;
    assert_eq!(stage.stopped("alice", "film").await, 3_598_000, "what is beyond the end is the end");
    assert_eq!(stage.watch("alice", "missing", &now, 1).await.status, StatusCode::NOT_FOUND);
    let nobody = stage.service.send(service::request(Method::GET, path)).await;
    assert_eq!((nobody.status, &nobody.json()["type"]), (StatusCode::UNAUTHORIZED, &json!("/problems/no-token")));
    let operator = service::with(Method::PATCH, path, OPERATOR, &json!({ "positionMs": 1, "at": now }));
    assert_eq!(stage.service.send(operator).await.status, StatusCode::UNAUTHORIZED, "operators watch nothing");
}

#[tokio::test]
async fn likes_are_listed_newest_first_until_they_are_undone() {
    let stage = start().await;
    for id in ["film", "one", "two"] {
        assert_eq!(stage.rate("alice", id, "LIKE").await, StatusCode::NO_CONTENT);
        // Opinions have the server's time, in milliseconds: the next title's is another.
        let opinion = stage.get(&format!("/videos/{id}/opinion"), "alice").await;
        while time_of_an_opinion(&stage).await.as_str() <= opinion["at"].as_str().unwrap() {}
    }
    assert_eq!(stage.ids("/me/likes", "likes", "alice", 1).await, strings(&["two", "one", "film"]));
    assert_eq!(stage.rate("alice", "one", "DISLIKE").await, StatusCode::NO_CONTENT);
    assert_eq!(stage.rate("alice", "film", "NONE").await, StatusCode::NO_CONTENT);
    assert_eq!(stage.get("/videos/one/opinion", "alice").await["opinion"], "DISLIKE");
    assert_eq!(stage.get("/videos/film/opinion", "alice").await["opinion"], "NONE");
    assert_eq!(stage.get("/videos/film/opinion", "bob").await, json!({ "videoId": "film", "opinion": "NONE", "at": null }));
    let stage = stage.restart().await;
    assert_eq!(stage.ids("/me/likes", "likes", "alice", 20).await, strings(&["two"]));
    assert_eq!(stage.ids("/me/likes", "likes", "bob", 20).await, strings(&[]));
    for op in ["", "like", "UNLIKE"] {
        assert_eq!(stage.rate("alice", "one", op).await, StatusCode::BAD_REQUEST, "{op}");
    }
    assert_eq!(stage.rate("alice", "missing", "LIKE").await, StatusCode::NOT_FOUND);
}

/// The server's time, by what someone says for the first time.
async fn time_of_an_opinion(stage: &Stage) -> String {
    static CLOCKS: AtomicU64 = AtomicU64::new(0);
    let who = format!("clock-{}", CLOCKS.fetch_add(1, Ordering::Relaxed));
    stage.rate(&who, "film", "LIKE").await;
    stage.get("/videos/film/opinion", &who).await["at"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_unfinished_and_not_hidden_can_be_gone_on_with() {
    let stage = start().await;
    let list = async |who: &str| stage.ids("/me/continue-watching", "videos", who, 1).await;
    stage.watched("alice", "film", &ago(3 * MINUTE_MS), 1_799_000).await;
    stage.watched("alice", "one", &ago(2 * MINUTE_MS), 100_000).await;
    stage.watched("alice", "two", &ago(MINUTE_MS), 590_000).await;
    assert_eq!(list("alice").await, strings(&["one", "film"]), "the other one is at its credits");
    let entry = &stage.get("/me/continue-watching", "alice").await["videos"][1];
    assert_eq!(entry["video"]["title"], "The Title film");
    assert_eq!((&entry["progress"], &entry["positionMs"]), (&json!(0.5), &json!(1_799_000)));
    let hidden = stage.send(Method::DELETE, "/me/continue-watching/one", "alice", &Value::Null).await;
    assert_eq!(hidden.status, StatusCode::NO_CONTENT);
    assert_eq!(list("alice").await, strings(&["film"]));
    // Watched again, it is back; once a millisecond has passed, as the clock is ahead and so this counts as now.
    while list("alice").await != strings(&["one", "film"]) {
        stage.watched("alice", "one", "2199-01-01T00:00:00Z", 110_000).await;
    }
    assert_eq!(
        stage.service.send(service::with(Method::DELETE, "/videos/film", OPERATOR, &Value::Null)).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(list("alice").await, strings(&["one"]), "what is not catalogued any more cannot be gone on with");
    assert_eq!(list("bob").await, strings(&[]));
}

/// A table that is gone is what a test can do to a database that is open; a disk that fails looks the same from here.
#[tokio::test]
async fn playback_goes_on_without_the_database_and_what_needs_it_is_told_to_come_back() {
    let stage = start().await;
    stage.service.edge_up("e1").await;
    stage.watched("alice", "film", &ago(1000), 60_000).await;
    let playback = async || {
        let playback = stage.get("/videos/film/playback", "alice").await;
        assert_eq!(playback["edges"][0]["edge"], "e1");
        playback["resume"]["positionMs"].as_u64()
    };
    assert_eq!(playback().await, Some(60_000));
    let database = rusqlite::Connection::open(stage.dir.path().join("state/control.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    database.execute_batch("ALTER TABLE views RENAME TO gone").unwrap();
    assert_eq!(playback().await, None, "from the beginning, and at once");
    let history = async || stage.send(Method::GET, "/me/history", "alice", &Value::Null).await;
    assert_eq!(history().await.status, StatusCode::INTERNAL_SERVER_ERROR);
    // Asked often enough it is left alone.
    let refused = loop {
        let reply = history().await;
        if reply.status != StatusCode::INTERNAL_SERVER_ERROR {
            break reply;
        }
    };
    assert_eq!((refused.status, &refused.json()["type"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("/problems/unavailable")));
    assert_eq!(playback().await, None);
    database.execute_batch("ALTER TABLE gone RENAME TO views").unwrap();
    while playback().await.is_none() {
        // A pause of the breaker is awaited here.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(history().await.status, StatusCode::OK);
}

#[tokio::test]
async fn playback_begins_where_the_viewer_stopped() {
    let stage = start().await;
    stage.service.edge_up("e1").await;
    let resume = async |who: &str| stage.get("/videos/film/playback", who).await["resume"].clone();
    let segment = async |who: &str, query: &str| {
        let found = stage.get(&format!("/videos/film/cdn-url{query}"), who).await;
        ["segment", "startMs", "positionMs"].map(|name| found[name].as_u64().unwrap())
    };
    assert_eq!((resume("alice").await, segment("alice", "").await), (Value::Null, [1, 0, 0]), "she has not begun");
    let at = ago(MINUTE_MS);
    let body = json!({ "positionMs": 1_799_000, "at": at, "device": "phone" });
    stage.send(Method::PATCH, "/videos/film/last-watched-timestamp", "alice", &body).await;
    let expected = json!({ "positionMs": 1_799_000, "finished": false, "lastWatchedAt": at, "device": "phone" });
    assert_eq!(resume("alice").await, expected);
    assert_eq!(segment("alice", "").await, [450, 1_796_000, 1_799_000]);
    assert_eq!(segment("alice", "?lastWatchedTimestamp=4001").await, [2, 4000, 4001], "who says where is taken at her word");
    assert_eq!(segment("alice", "?segment=3").await, [3, 8000, 8000]);
    assert_eq!((resume("bob").await, segment("bob", "").await), (Value::Null, [1, 0, 0]));
    let stranger = stage.service.get("/videos/film/playback").await;
    assert_eq!((stranger.status, &stranger.json()["resume"]), (StatusCode::OK, &Value::Null));
    let stranger = stage.service.get("/videos/film/cdn-url").await;
    assert_eq!(stranger.status, StatusCode::BAD_REQUEST, "nobody knows where who is");
    stage.watched("alice", "film", &ago(0), 3_598_000).await;
    let resumed = resume("alice").await;
    assert_eq!((&resumed["positionMs"], &resumed["finished"]), (&json!(0), &json!(true)), "from the beginning again");
    assert_eq!(segment("alice", "").await, [1, 0, 0]);
}

#[tokio::test]
async fn history_has_a_view_for_each_sitting() {
    let stage = start().await;
    const HOUR_MS: u64 = 60 * MINUTE_MS;
    let second = ago(30 * HOUR_MS);
    for (id, at, position_ms) in [
        ("film", &ago(40 * 24 * HOUR_MS), 1),
        ("film", &second, 100_000),
        ("film", &ago(29 * HOUR_MS), 200_000),
        ("one", &ago(28 * HOUR_MS), 300_000),
        ("film", &ago(20 * HOUR_MS), 150_000),
    ] {
        stage.watched("alice", id, at, position_ms).await;
    }
    assert_eq!(stage.ids("/me/history", "views", "alice", 2).await, strings(&["film", "one", "film", "film"]));
    let views = stage.get("/me/history", "alice").await["views"].clone();
    assert_eq!((&views[0]["positionMs"], &views[0]["furthestMs"]), (&json!(150_000), &json!(150_000)));
    assert_eq!((&views[2]["begunAt"], &views[2]["positionMs"]), (&json!(second), &json!(200_000)));
    stage.service.send(service::with(Method::DELETE, "/videos/one", OPERATOR, &Value::Null)).await;
    let gone = &stage.get("/me/history", "alice").await["views"][1]["video"];
    assert_eq!(gone, &json!({ "id": "one", "title": null, "durationMs": null, "thumbnailUrl": null }));
    for bad in ["limit=0", "limit=101", "limit=x", "nextCursor=x", "page=2"] {
        let reply = stage.send(Method::GET, &format!("/me/history?{bad}"), "alice", &Value::Null).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn who_asks_to_be_forgotten_is_and_nobody_else() {
    let stage = start().await;
    for who in ["alice-in-the-looking-glass", "alice-in-the-looking-glass/kids", "bob"] {
        stage.watched(who, "film", &ago(MINUTE_MS), 1000).await;
        stage.rate(who, "one", "LIKE").await;
    }
    let who = "alice-in-the-looking-glass";
    for (method, path) in [(Method::PATCH, "/videos/two?op=LIKE"), (Method::DELETE, "/me"), (Method::DELETE, "/me")] {
        let mut keyed = service::with(method, path, &stage.key.token(&claims(who)), &Value::Null);
        keyed.headers_mut().insert("idempotency-key", "a-key".parse().unwrap());
        let reply = stage.service.send(keyed).await;
        assert_eq!((reply.status, reply.header("idempotency-replayed")), (StatusCode::NO_CONTENT, ""), "{path}");
    }
    assert_eq!(stage.stopped(who, "film").await, 0);
    assert_eq!(stage.ids("/me/likes", "likes", who, 20).await, strings(&[]));
    assert_eq!(stage.ids("/me/history", "views", who, 20).await, strings(&[]));
    for other in ["alice-in-the-looking-glass/kids", "bob"] {
        assert_eq!(stage.stopped(other, "film").await, 1000, "{other}");
    }
    stage.watched(who, "film", &ago(MINUTE_MS), 7).await;
    assert_eq!(stage.stopped(who, "film").await, 0, "what was on its way comes too late");
    stage.watched(who, "film", "2199-01-01T00:00:00Z", 8).await;
    assert_eq!(stage.stopped(who, "film").await, 8, "what she does now counts");
    let kids = "/users/alice-in-the-looking-glass%2Fkids";
    let admin = async |method: Method, path: &str, secret: &str| {
        stage.service.send(service::with(method, path, secret, &Value::Null)).await
    };
    assert_eq!(admin(Method::DELETE, kids, OPERATOR).await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin(Method::DELETE, &format!("/users/{who}"), OPERATOR).await.status, StatusCode::NO_CONTENT);
    let database = rusqlite::Connection::open(stage.dir.path().join("state/control.db")).unwrap();
    let kept = "SELECT count(*) FROM answers WHERE caller LIKE 'viewer alice-in%'";
    assert_eq!(database.query_one(kept, [], |row| row.get(0)), Ok(0), "answers that were kept for her are hers");
    assert!(std::fs::read_dir(stage.dir.path().join("state/viewers")).unwrap().all(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        !bytes.windows(who.len()).any(|window| window == who.as_bytes())
    }));
}

#[tokio::test]
async fn admins_hand_out_all_that_is_kept_of_a_user() {
    let stage = start().await;
    let at = ago(MINUTE_MS);
    stage.watched("alice/kids", "film", &at, 1000).await;
    stage.rate("alice/kids", "one", "DISLIKE").await;
    stage.send(Method::DELETE, "/me/continue-watching/two", "alice/kids", &Value::Null).await;
    let export =
        async |path: &str, secret: &str| stage.service.send(service::with(Method::GET, path, secret, &Value::Null)).await;
    let data = export("/users/alice%2Fkids", OPERATOR).await;
    assert_eq!((data.status, data.header("cache-control")), (StatusCode::OK, "no-store"));
    let data = data.json();
    assert_eq!(data["user"], "alice/kids");
    assert_eq!(
        data["views"],
        json!([{ "videoId": "film", "begunAt": at, "lastSeenAt": at, "positionMs": 1000, "furthestMs": 1000, "device": null }])
    );
    assert_eq!((&data["opinions"][0]["videoId"], &data["opinions"][0]["opinion"]), (&json!("one"), &json!("DISLIKE")));
    assert_eq!((data["hidden"].as_array().unwrap().len(), &data["hidden"][0]["videoId"]), (1, &json!("two")));
    let empty = export("/users/nobody", OPERATOR).await.json();
    assert_eq!(empty, json!({ "user": "nobody", "views": [], "opinions": [], "hidden": [], "knownTitles": [] }));
    assert_eq!(export("/users/alice%2Fkids", LOOKER).await.status, StatusCode::FORBIDDEN);
    assert_eq!(export("/users/alice%2Fkids", &stage.key.token(&claims("alice"))).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(export("/users/a%20b", OPERATOR).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_becomes_of_writes_is_counted() {
    let stage = start().await;
    stage.watched("alice", "film", &ago(MINUTE_MS), 1000).await;
    stage.watched("alice", "film", &ago(0), 2000).await;
    let metrics = stage.service.get("/metrics").await;
    let metrics = str::from_utf8(&metrics.body).unwrap();
    for line in [
        "larder_control_viewers_writes_total 2",
        "larder_control_viewers_commits_total{outcome=\"synced\"} 2",
        "larder_control_viewers_commit_seconds_count 2",
        "larder_control_viewers_queue_depth 0",
        "larder_control_requests_total{method=\"PATCH\",route=\"/videos/{id}/last-watched-timestamp\",status=\"204\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    for name in ["journal_bytes_total", "coalesced_total", "flush_batches_total", "unflushed_bytes", "packed_views_total"] {
        assert!(metrics.contains(&format!("\nlarder_control_viewers_{name} ")), "{name}");
    }
    // The smallest title is no viewer's.
    assert_eq!(stage.service.publish(&title("other")).await.status, StatusCode::CREATED);
}

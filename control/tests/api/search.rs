//! Search through the API: what is catalogued is found, however it is typed, and the index mends itself.

use std::{fs, time::Duration};

use http::{Method, StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::service::{OPERATOR, Reply, Service, request, start, start_in, title, with};

fn ids(page: &Value) -> Vec<&str> {
    page["videos"].as_array().unwrap().iter().map(|video| video["id"].as_str().unwrap()).collect()
}

/// Asks until the answer is as wanted. The index follows on its own, and nothing outside of control says when.
async fn until(service: &Service, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let page = service.get(path).await.json();
            if wanted(&page) {
                return page;
            }
            sleep(Duration::from_millis(25)).await;
        }
    };
    timeout(Duration::from_secs(60), asked).await.unwrap_or_else(|_| panic!("{path} never had the answer that was wanted"))
}

/// Asks until `text` finds just this.
async fn finds(service: &Service, text: &str, expected: &[&str]) {
    let path = format!("/videos?searchQuery={}", text.replace(' ', "+"));
    until(service, &path, |page| page["complete"] == true && ids(page) == expected).await;
}

fn film(id: &str, name: &str, words: &Value) -> Value {
    let mut film = title(id);
    film["title"] = json!(name);
    for (member, nothing) in [("cast", json!([])), ("genres", json!([])), ("description", json!(""))] {
        film[member] = nothing;
    }
    for member in ["year", "language", "kind"] {
        film[member] = json!(null);
    }
    film.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
    film
}

async fn library() -> (tempfile::TempDir, Service) {
    let (dir, service) = start().await;
    for film in [
        film("agent", "The Night Agent", &json!({ "genres": ["Thriller"], "year": 2023, "language": "en", "kind": "episode" })),
        film(
            "shift",
            "Night Shift",
            &json!({ "genres": ["Drama", "Thriller"], "year": 1999, "language": "en-GB", "kind": "film" }),
        ),
        film("day", "Übermut bei Tag", &json!({ "genres": ["Drama"], "year": 1995, "language": "de", "kind": "film" })),
        film("cast", "Other", &json!({ "cast": ["Zoë Nightingale"] })),
    ] {
        assert_eq!(service.publish(&film).await.status, StatusCode::CREATED);
    }
    until(&service, "/videos?sort=title", |page| page["total"] == 4 && page["complete"] == true).await;
    (dir, service)
}

#[tokio::test]
async fn titles_are_found_however_they_are_typed() {
    let (_dir, service) = library().await;
    for (typed, expected) in [
        ("night agent", &["agent"][..]),
        ("nihgt agent", &["agent"]),
        ("agent the nig", &["agent"]),
        ("nightshift", &["shift"]),
        ("UBERMUT", &["day"]),
        ("zoe", &["cast"]),
        ("zoe nightingal", &["cast"]),
        ("german drama", &["day"]),
        ("night 1999", &["shift"]),
        ("xyzzy", &[]),
        ("'; DROP TABLE titles; --", &[]),
    ] {
        finds(&service, &typed.replace('\'', "%27").replace(';', "%3B"), expected).await;
    }
    let page = service.get("/videos?searchQuery=night").await.json();
    assert_eq!((ids(&page).len(), &page["total"], &page["complete"]), (2, &json!(2), &json!(true)));
}

#[tokio::test]
async fn results_are_filtered_counted_and_ordered() {
    let (_dir, service) = library().await;
    let get = async |query: &str| service.get(&format!("/videos?{query}")).await.json();
    assert_eq!(ids(&get("genre=DRAMA&sort=title").await), ["shift", "day"]);
    assert_eq!(ids(&get("genre=drama,thriller&language=en&sort=title").await), ["agent", "shift"]);
    assert_eq!(ids(&get("year=1990-1999&sort=title").await), ["shift", "day"]);
    assert_eq!(ids(&get("searchQuery=night&kind=film").await), ["shift"]);
    assert_eq!(ids(&get("sort=title&limit=2").await), ["agent", "shift"]);
    assert_eq!(ids(&get("sort=newest&kind=film,episode").await).len(), 3);
    let page = get("searchQuery=night&genre=drama").await;
    assert_eq!(page["facets"]["genres"], json!([{ "value": "Thriller", "count": 2 }, { "value": "Drama", "count": 1 }]));
    assert_eq!(page["facets"]["kinds"], json!([{ "value": "film", "count": 1 }]));
    assert_eq!(page["facets"]["years"], json!([{ "value": 1999, "count": 1 }]));
    assert_eq!(page["facets"]["languages"], json!([{ "value": "en-GB", "count": 1 }]));
    let plain = get("").await;
    assert_eq!(
        (&plain["facets"], &plain["total"], ids(&plain).len()),
        (&json!(null), &json!(null), 4),
        "that list needs no index"
    );
    assert_eq!(get("facets=true").await["facets"]["genres"].as_array().unwrap().len(), 2);
    let first = get("facets=true&limit=3").await;
    let rest = get(&format!("limit=3&nextCursor={}", first["nextCursor"].as_str().unwrap())).await;
    assert_eq!((ids(&first).len(), ids(&rest).len()), (3, 1), "it is the same list, counted or not");
    assert_eq!(get("searchQuery=night&facets=false").await["facets"], json!(null));
}

#[tokio::test]
async fn pages_of_a_search_follow_each_other_to_the_end() {
    let (_dir, service) = library().await;
    for query in ["searchQuery=night", "sort=title", "sort=popularity", "sort=newest&facets=true", "sort=relevance"] {
        let whole = service.get(&format!("/videos?{query}")).await.json();
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = service.get(&format!("/videos?{query}&limit=1{cursor}")).await.json();
            seen.extend(ids(&page).iter().map(|id| (*id).to_owned()));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&nextCursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, ids(&whole), "{query}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_told() {
    let (_dir, service) = library().await;
    let cursor = service.get("/videos?searchQuery=night&limit=1").await.json()["nextCursor"].as_str().unwrap().to_owned();
    let plain = service.get("/videos?limit=1").await.json()["nextCursor"].as_str().unwrap().to_owned();
    for bad in [
        format!("searchQuery=other&nextCursor={cursor}"),
        format!("searchQuery=night&genre=drama&nextCursor={cursor}"),
        format!("nextCursor={cursor}"),
        format!("searchQuery=night&nextCursor={plain}"),
        "year=x".into(),
        "year=2000-1990".into(),
        "kind=poem".into(),
        "genre=".into(),
        "genre=a,,b".into(),
        format!("genre={}", "x".repeat(65)),
        format!("language={}", "en,".repeat(30)),
        "sort=best".into(),
        "facets=maybe".into(),
        format!("searchQuery={}", "x".repeat(201)),
        "unknown=1".into(),
    ] {
        let reply = service.get(&format!("/videos?{bad}")).await;
        assert_eq!((reply.status, &reply.json()["type"]), (StatusCode::BAD_REQUEST, &json!("/problems/bad-parameter")), "{bad}");
    }
}

async fn amend(service: &Service, patch: &Value, condition: Option<(&'static str, &str)>) -> Reply {
    let mut request = with(Method::PATCH, "/videos/agent/metadata", OPERATOR, patch);
    request.headers_mut().insert("content-type", "application/merge-patch+json".parse().unwrap());
    if let Some((name, value)) = condition {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    service.send(request).await
}

#[tokio::test]
async fn an_operator_amends_what_is_said_of_a_title_and_search_follows() {
    let (_dir, service) = library().await;
    let before = service.get("/videos/agent").await;
    let patch = json!({ "title": "The Day Agent", "genres": ["Comedy"], "year": null, "kind": "film" });
    let etag = before.header("etag").to_owned();
    assert_eq!(amend(&service, &patch, Some(("if-match", "\"other\""))).await.status, StatusCode::PRECONDITION_FAILED);
    let amended = amend(&service, &patch, Some(("if-match", &etag))).await;
    assert_eq!(amended.status, StatusCode::OK);
    let mut expected = before.json();
    expected.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
    assert_eq!(amended.json(), expected, "nothing else is changed");
    let now = service.get("/videos/agent").await;
    assert_eq!((now.json(), now.header("etag")), (expected, amended.header("etag")));
    finds(&service, "day agent", &["agent"]).await;
    until(&service, "/videos?genre=comedy", |page| ids(page) == ["agent"]).await;

    for (bad, pointer) in [
        (json!({ "title": null }), json!("")),
        (json!({ "title": " " }), json!("/title")),
        (json!({ "durationMs": 1 }), json!("")),
        (json!({ "language": "no language" }), json!("/language")),
        (json!([]), json!("")),
    ] {
        let refused = amend(&service, &bad, None).await;
        assert_eq!((refused.status, &refused.json()["pointer"]), (StatusCode::UNPROCESSABLE_ENTITY, &pointer), "{bad}");
    }
    let unknown = service.send(with(Method::PATCH, "/videos/unknown/metadata", OPERATOR, &json!({}))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let stranger = service.send(request(Method::PATCH, "/videos/agent/metadata")).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_operator_has_the_index_made_anew() {
    let (dir, service) = library().await;
    let state = async || service.send(with(Method::GET, "/search", OPERATOR, &json!(null))).await.json();
    let before = state().await;
    assert_eq!((&before["titles"], &before["complete"], &before["kept"]), (&json!(4), &json!(true), &json!(true)));
    assert_eq!(service.send(request(Method::GET, "/search")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.send(request(Method::POST, "/search/rebuild")).await.status, StatusCode::UNAUTHORIZED);

    // A change that control was not told of, so that only an index which is made anew has it.
    let db = Connection::open(dir.path().join("state/control.db")).unwrap();
    db.execute("UPDATE titles SET title = 'Evening Shift' WHERE id = 'shift'", []).unwrap();
    drop(db);
    let accepted = service.send(with(Method::POST, "/search/rebuild", OPERATOR, &json!(null))).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    finds(&service, "evening", &["shift"]).await;
    let rebuilt = async {
        while state().await["rebuilding"] == true {
            sleep(Duration::from_millis(25)).await;
        }
    };
    timeout(Duration::from_secs(60), rebuilt).await.unwrap();
    let after = state().await;
    assert_eq!((&after["rebuilt"], &after["titles"], &after["replaced"]), (&json!(1), &json!(4), &json!(0)));
}

#[tokio::test]
async fn what_a_crash_left_different_is_brought_over_at_the_next_start() {
    let (dir, service) = library().await;
    service.stop().await;
    // As if control had died after the database's commits and before the index's.
    let db = Connection::open(dir.path().join("state/control.db")).unwrap();
    db.execute("UPDATE titles SET title = 'Evening Shift', stamp = 77 WHERE id = 'shift'", []).unwrap();
    db.execute("DELETE FROM titles WHERE id = 'day'", []).unwrap();
    drop(db);
    let service = start_in(dir.path()).await.unwrap();
    finds(&service, "evening", &["shift"]).await;
    finds(&service, "ubermut", &[]).await;
    finds(&service, "night agent", &["agent"]).await;
    until(&service, "/videos?sort=title", |page| page["total"] == 3 && page["complete"] == true).await;
}

#[tokio::test]
async fn an_index_that_is_missing_damaged_or_of_another_version_is_made_anew() {
    let (dir, mut service) = library().await;
    let index = dir.path().join("state/search");
    type Spoil = fn(&std::path::Path);
    let spoils: [Spoil; 4] = [
        |index| fs::remove_dir_all(index).unwrap(),
        |index| fs::write(index.join("meta.json"), "{}").unwrap(),
        |index| {
            let meta = fs::read_to_string(index.join("meta.json")).unwrap();
            fs::write(index.join("meta.json"), meta.replace("larder 1", "larder 0")).unwrap();
        },
        |index| {
            for file in fs::read_dir(index).unwrap().map(|file| file.unwrap().path()).filter(|path| path.extension().is_some()) {
                fs::write(file, "damaged").unwrap();
            }
        },
    ];
    for spoil in spoils {
        service.stop().await;
        spoil(&index);
        service = start_in(dir.path()).await.unwrap();
        finds(&service, "nihgt agent", &["agent"]).await;
        assert!(index.join("meta.json").is_file());
    }
    // Where no directory can be, the index is in memory.
    service.stop().await;
    fs::remove_dir_all(&index).unwrap();
    fs::write(&index, "a file").unwrap();
    let service = start_in(dir.path()).await.unwrap();
    finds(&service, "nihgt agent", &["agent"]).await;
    let metrics = service.get("/metrics").await;
    let metrics = str::from_utf8(&metrics.body).unwrap();
    for line in
        ["larder_control_search_whole 1", "larder_control_search_titles 4", "larder_control_searches_total{outcome=\"whole\"}"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

use std::{net::IpAddr, time::SystemTime};

use http::StatusCode;
use serde_json::{Value, json};
use wire::token::{KeySet, Presented, Refusal, Rules, Verifier, find};

use crate::service::{ISSUER, Service, start, title};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

async fn playing() -> (tempfile::TempDir, Service) {
    let (dir, service) = start().await;
    service.publish(&title("demo")).await;
    service.edge_up("e1").await;
    service.edge_up("e2").await;
    (dir, service)
}

/// An edge's verifier with the keys that control publishes.
async fn verifier(service: &Service) -> Verifier {
    let keys = service.get("/keys.json").await;
    let keys = KeySet::from_jwks(str::from_utf8(&keys.body).unwrap()).unwrap();
    Verifier::new(keys, Rules { issuers: vec![ISSUER.into()], ..Rules::default() })
}

/// What an edge finds in a URL: the path without the token, and the token.
fn found(url: &str) -> (String, Presented) {
    let uri: http::Uri = url.parse().unwrap();
    let found = find(
        uri.scheme_str().unwrap(),
        uri.authority().unwrap().as_str(),
        uri.path_and_query().unwrap().as_str(),
        std::iter::empty(),
    );
    let found = found.unwrap();
    (found.path, found.presented.unwrap())
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn playback_gives_ranked_edges_with_urls_that_edges_accept() {
    let (_dir, service) = playing().await;
    let reply = service.get("/videos/demo/playback").await;
    assert_eq!((reply.status, reply.header("cache-control")), (StatusCode::OK, "no-store"));
    let playback = reply.json();
    assert_eq!((&playback["videoId"], &playback["durationMs"]), (&json!("demo"), &json!(10_000)));
    assert_eq!(playback["renditions"].as_array().unwrap().len(), 3);
    let edges = playback["edges"].as_array().unwrap();
    let mut names: Vec<_> = edges.iter().map(|edge| edge["edge"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["e1", "e2"]);

    let verifier = verifier(&service).await;
    let root = title("demo")["root"].as_str().unwrap().to_owned();
    for edge in edges {
        let base = edge["url"].as_str().unwrap();
        for (member, file) in
            [("hls", "master.m3u8"), ("dash", "manifest.mpd"), ("storyboard", "storyboard.vtt"), ("poster", "poster.jpg")]
        {
            let url = edge[member].as_str().unwrap();
            assert!(url.starts_with(base), "{url}");
            assert!(
                url.ends_with(&format!("{root}/{file}")),
                "the token stands before the root, so that relative URLs keep it: {url}"
            );
            let (path, presented) = found(url);
            assert_eq!(path, format!("{root}/{file}"));
            let grant = verifier.check(&presented, CLIENT, unix_s()).unwrap();
            assert!((3590..=3600).contains(&(grant.expires_unix_s() - unix_s())));
        }
    }
    assert_eq!(edges[0]["site"], "site-1");
    assert_eq!(
        service.get("/videos/demo/playback").await.json()["edges"][0]["edge"],
        edges[0]["edge"],
        "a title prefers one edge"
    );
}

#[tokio::test]
async fn the_token_opens_the_whole_title_and_no_other() {
    let (_dir, service) = playing().await;
    let playback = service.get("/videos/demo/playback").await.json();
    let hls = playback["edges"][0]["hls"].as_str().unwrap();
    let verifier = verifier(&service).await;
    let check = |url: &str| verifier.check(&found(url).1, CLIENT, unix_s()).map(|_| ());
    assert_eq!(check(&hls.replace("master.m3u8", "v720/00001.m4s")), Ok(()));
    let root = title("demo")["root"].as_str().unwrap().to_owned();
    let other = title("other")["root"].as_str().unwrap().to_owned();
    let refused: Result<(), Refusal> = check(&hls.replace(&root, &other));
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_segment_is_found_by_number_or_by_time_and_by_filters() {
    let (_dir, service) = playing().await;
    for (query, rendition, segment, start_ms, duration_ms) in [
        ("segment=1", "v720", 1, 0, 4000),
        ("segment=3", "v720", 3, 8000, 2000),
        ("lastWatchedTimestamp=0", "v720", 1, 0, 4000),
        ("lastWatchedTimestamp=4000", "v720", 2, 4000, 4000),
        ("lastWatchedTimestamp=9999", "v720", 3, 8000, 2000),
        ("segment=2&resolution=360p", "v360", 2, 4000, 4000),
        ("segment=2&resolution=640x360&codec=h264", "v360", 2, 4000, 4000),
        ("segment=1&codec=mp4a", "a1", 1, 0, 4000),
    ] {
        let found = service.get(&format!("/videos/demo/cdn-url?{query}")).await.json();
        let described = (&found["rendition"], &found["segment"], &found["startMs"], &found["durationMs"]);
        assert_eq!(described, (&json!(rendition), &json!(segment), &json!(start_ms), &json!(duration_ms)), "{query}");
        let urls = found["urls"].as_array().unwrap();
        assert_eq!(urls.len(), 2);
        assert!(
            urls.iter().all(|url| url.as_str().unwrap().ends_with(&format!("/{rendition}/{segment:05}.m4s"))),
            "{query}: {urls:?}"
        );
    }
    let url = service.get("/videos/demo/cdn-url?segment=1").await.json()["urls"][0].as_str().unwrap().to_owned();
    assert!(verifier(&service).await.check(&found(&url).1, CLIENT, unix_s()).is_ok());
}

#[tokio::test]
async fn a_segment_that_is_not_there_is_said_to_be_so() {
    let (_dir, service) = playing().await;
    for (query, status, kind, detail) in [
        ("", 400, "bad-parameter", "give segment or lastWatchedTimestamp"),
        ("segment=1&lastWatchedTimestamp=1", 400, "bad-parameter", "not both"),
        ("segment=0", 400, "bad-parameter", "numbered from 1"),
        ("segment=-1", 400, "bad-parameter", "segment: invalid digit"),
        ("segment=x", 400, "bad-parameter", "segment: invalid digit"),
        ("segment=1&resolution=big", 400, "bad-parameter", "resolution: a resolution is a height such as 720p"),
        ("segment=1&codec=", 400, "bad-parameter", "codec: it must have 1 to 64 characters"),
        ("segment=4", 404, "no-such-segment", "rendition v720 has segments 1 to 3"),
        ("lastWatchedTimestamp=10000", 404, "no-such-segment", "the title ends after 10000 ms"),
        ("segment=1&resolution=1080p", 404, "no-such-rendition", "v720 (avc1.64001f, 1280x720); v360"),
        ("segment=1&codec=av1", 404, "no-such-rendition", "a1 (mp4a.40.2, und)"),
    ] {
        let reply = service.get(&format!("/videos/demo/cdn-url?{query}")).await;
        let problem = reply.json();
        assert_eq!(
            (reply.status.as_u16(), &problem["type"]),
            (status, &json!(format!("/problems/{kind}"))),
            "{query}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{query}: {problem}");
        let lists = problem.get("available").map(|list| list.as_array().unwrap().len());
        assert_eq!(lists, (kind == "no-such-rendition").then_some(3), "{query}");
    }
}

#[tokio::test]
async fn the_thumbnail_is_the_poster_on_the_best_edge() {
    let (_dir, service) = playing().await;
    let best = service.get("/videos/demo/playback").await.json()["edges"][0]["url"].as_str().unwrap().to_owned();
    let reply = service.get("/videos/demo/thumbnail").await;
    assert_eq!(reply.status, StatusCode::FOUND);
    let location = reply.header("location");
    assert!(location.starts_with(&best) && location.ends_with("/poster.jpg"), "{location}");
    assert!(verifier(&service).await.check(&found(location).1, CLIENT, unix_s()).is_ok());
}

#[tokio::test]
async fn without_an_edge_players_are_asked_to_come_again() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    for path in ["/videos/demo/playback", "/videos/demo/cdn-url?segment=1", "/videos/demo/thumbnail"] {
        let reply = service.get(path).await;
        assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"), "{path}");
        assert_eq!(reply.json()["type"], "/problems/no-edge");
    }
    let unknown: Value = service.get("/videos/other/playback").await.json();
    assert_eq!(unknown["type"], "/problems/no-such-title");
}
